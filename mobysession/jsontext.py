"""Reading JSON that others wrote: whatever is wrong with it is a ValueError, also that it is nested too deeply."""

from __future__ import annotations

__all__ = ["parse_json"]


def parse_json(text: str | bytes) -> object:
    """Return the value of a JSON document.

    Raises:
        ValueError: it is none, or nested deeper than Python reads; a `json.JSONDecodeError` where a place can be named.
    """
    import json  # only for who reads some: start-up

    try:
        value: object = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value

"""Reading JSON that others wrote: whatever is wrong with it is a ValueError, also that it is nested too deeply."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["parse_json"]


def parse_json(text: str | bytes, table: Callable[[list[tuple[str, object]]], object] | None = None) -> object:
    """Return the value of a JSON document.

    Args:
        text: the document.
        table: makes a table of its pairs; None: a dictionary, with the last of several values of one name.

    Raises:
        ValueError: it is none, or nested deeper than Python reads; a `json.JSONDecodeError` where a place can be named.
    """
    import json  # only for who reads some: start-up

    try:
        value: object = json.loads(text, object_pairs_hook=table)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value

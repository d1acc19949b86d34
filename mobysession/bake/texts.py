"""Texts made of values, as Go makes them: by the verbs of its ``format``, and as JSON.

Source: zclconf/go-cty function/stdlib/format.go; Go's encoding/json.
"""

from __future__ import annotations

import json
import re

from mobysession.bake.values import Value, as_bool, as_number, as_text
from mobysession.errors import UsageError

__all__ = ["escape_json", "format_list", "format_text", "jsonencode"]

_VERB = re.compile(r"%(?:%|(?:\[(\d+)\])?([-+ 0#]*)(\d+)?(?:\.(\d+))?([a-zA-Z]))")


def jsonencode(value: Value) -> str:
    """Return a value as JSON without spaces."""
    return escape_json(json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True))


def escape_json(text: str) -> str:
    """Return JSON with those letters escaped that could mean something in a page."""
    return re.sub("[<>&\u2028\u2029]", lambda letter: f"\\u{ord(letter[0]):04x}", text)


def format_text(form: Value, *values: Value) -> str:
    """Return a text with values in the places of its verbs, as ``%s`` and ``%[2]05d``."""
    given, used = list(values), 0

    def written(match: re.Match[str]) -> str:
        nonlocal used
        if match[0] == "%%":
            return "%"
        at = int(match[1]) - 1 if match[1] else used
        used = at + 1
        if not 0 <= at < len(given):
            raise UsageError(f"there is no value for {match[0]!r}")
        return _verb(match[0], match[2], match[3], match[4], match[5], given[at])

    return _VERB.sub(written, as_text(form))


def _verb(whole: str, flags: str, width: str | None, precision: str | None, letter: str, value: Value) -> str:
    layout = f"{flags}{width or ''}{f'.{precision}' if precision is not None else ''}"
    match letter:
        case "s":
            return f"%{layout}s" % as_text(value)
        case "q":
            return json.dumps(as_text(value), ensure_ascii=False)
        case "d":
            return f"%{layout}d" % int(as_number(value))
        case "f" | "e" | "E" | "g" | "G":
            return f"%{layout}{letter}" % float(as_number(value))
        case "x" | "X" | "o":
            return f"%{layout}{letter}" % int(as_number(value))
        case "b":
            return f"{int(as_number(value)):b}".rjust(int(width or 0), "0" if "0" in flags else " ")
        case "t":
            return as_text(as_bool(value))
        case "v":
            text = jsonencode(value) if value is None or isinstance(value, list | dict) else as_text(value)
            return f"%{flags.replace('#', '')}{width or ''}s" % text
    raise UsageError(f"there is no {whole!r}")


def format_list(form: Value, *values: Value) -> list[str]:
    """Return `format_text` for each element of the lists among the values, which are of one length."""
    lengths = {len(value) for value in values if isinstance(value, list)}
    if len(lengths) > 1:
        raise UsageError("its lists are not of the same length")
    count = lengths.pop() if lengths else 1
    return [format_text(form, *(v[at] if isinstance(v, list) else v for v in values)) for at in range(count)]

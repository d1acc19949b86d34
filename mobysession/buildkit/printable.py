"""Text from the engine, made harmless for a terminal.

Names, messages and logs come from the engine and from whatever runs in the build; a terminal obeys what it is sent. So
before display every escape sequence and every control character goes: C0 except tab and, where asked for, newline; DEL;
C1, as terminals take U+009B for an escape too; and the marks that turn the direction of writing, with which one text
passes for another. A carriage return starts its line afresh, as on a terminal: what was written last is what stays.
"""

from __future__ import annotations

import functools
import re

__all__ = ["printable"]

_CONTROL_STRING = "\x1b[PX^_\\]][^\x07\x1b\x9c]*(?:\x07|\x9c|\x1b\\\\)"
_CONTROL_SEQUENCE = "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
_ESCAPE = "\x1b[ -/]*[0-~]"
_LONE = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"


def printable(text: str, *, newlines: bool = False) -> str:
    """Return ``text`` without anything that a terminal would obey.

    Args:
        text: any text.
        newlines: keep them; otherwise each becomes a space.

    Source: our decision; ECMA-48 for the shape of the sequences.
    """
    if text.isprintable():  # true for nearly every line, and quick
        return text
    if newlines:
        return "\n".join(printable(line) for line in text.split("\n"))
    if "\r" in text:
        text = _last_writing(text)
    return _pattern().sub("", text.rstrip("\n").replace("\n", " "))


def _last_writing(text: str) -> str:
    return text.rstrip("\r\n").rpartition("\r")[2]


@functools.cache
def _pattern() -> re.Pattern[str]:
    return re.compile(f"{_CONTROL_STRING}|{_CONTROL_SEQUENCE}|{_ESCAPE}|{_LONE}")

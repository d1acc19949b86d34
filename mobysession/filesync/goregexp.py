"""Regular expressions of Go's dialect, RE2, written in Python's.

The expressions come from the pattern compiler, so groups are its own and only brackets, escapes, ``|``, ``^`` and
braces arrive from users. The two dialects agree on most of that; the rest is translated or refused here. Refused too
are three things RE2 has and Python lacks, which no ignore file uses: ``\\Q``, ``\\p`` and ``\\C``.

Source: Go's src/regexp/syntax/parse.go.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["class_end", "to_python"]

#: Escaped letters that mean the same in both (with Python's ASCII flag).
_LETTERS: Final = frozenset("abBfnrtvdDsSwWA")
_CLASS_LETTERS: Final = frozenset("afnrtvdDsSwW")
_POSIX: Final = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": r"0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
#: RE2 refuses larger repeat counts.
_MAX_REPEAT: Final = 1000


def to_python(expression: str) -> str:
    """Return ``expression`` in Python's syntax; raise ``re.error`` where Go's compiler refuses it."""
    out: list[str] = []
    at = 0
    while at < len(expression):
        char = expression[at]
        if char == "[":
            text, at = _class(expression, at + 1)
        elif char == "\\":
            text, at = _escape(expression, at + 1, _LETTERS)
        elif char == "{":
            text, at = _brace(expression, at)
        else:
            text, at = (r"\Z" if char == "$" else char), at + 1
        out.append(text)
    return "".join(out)


def class_end(expression: str, at: int) -> int:
    """Return the index behind the ``]`` of a class whose ``[`` is before ``at``; raise ``re.error`` for none."""
    return _class(expression, at)[1]


def _escape(expression: str, at: int, letters: frozenset[str]) -> tuple[str, int]:
    char = expression[at : at + 1]
    if char == "x":
        found = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]+)\})").match(expression, at)
        if found is None or int(found[1] or found[2], 16) > 0x10FFFF:
            raise re.error("invalid escape sequence")
        return re.escape(chr(int(found[1] or found[2], 16))), found.end()
    if char == "z" and letters is _LETTERS:
        return r"\Z", at + 1
    if char in letters or (char.isascii() and char and not char.isalnum()):
        return "\\" + char, at + 1
    octal = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}").match(expression, at)
    if octal is None:
        raise re.error("invalid escape sequence")
    return re.escape(chr(int(octal[0], 8))), octal.end()


def _brace(expression: str, at: int) -> tuple[str, int]:
    found = re.compile(r"\{(\d+)(?:(,)(\d*))?\}").match(expression, at)
    if found is None:
        # Not a repeat count, so a brace as such; Python would read {,3} as one.
        return r"\{", at + 1
    if max(int(found[1]), int(found[3] or 0)) > _MAX_REPEAT:
        raise re.error("invalid repeat count")
    return found[0], found.end()


def _class(expression: str, at: int) -> tuple[str, int]:
    """Translate what follows a ``[``; return the class and the index behind its ``]``."""
    out = ["["]
    if expression.startswith("^", at):
        out.append("^")
        at += 1
    start = at
    while at < len(expression):
        char = expression[at]
        if char == "]" and at > start:
            return "".join(out) + "]", at + 1
        named = re.compile(r"\[:(\^?)(\w+):\]").match(expression, at)
        if named is not None:
            if named[1] or named[2] not in _POSIX:
                raise re.error("invalid character class")
            text, at = _POSIX[named[2]], named.end()
        elif char == "\\":
            text, at = _escape(expression, at + 1, _CLASS_LETTERS)
        else:
            # Python reserves doubled punctuation inside brackets for set operations.
            text, at = ("\\" + char if char in "[]&|~" else char), at + 1
        out.append(text)
    raise re.error("missing closing ]")

"""Go's ``path/filepath`` on slash-separated names: Clean, Match, and what counts as white space.

Patterns are written for Go's rules, and Python's ``posixpath`` and ``fnmatch`` differ from them in the corners that
matter (a leading ``//``, ``[!a]``, what an unclosed bracket means), so the few functions needed are here.

Source: Go's src/internal/filepathlite/path.go and src/path/filepath/match.go.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

__all__ = ["BadPattern", "check_glob", "clean", "compile_glob", "has_wildcard", "join", "match_name", "trim_space"]

#: What unicode.IsSpace calls white space; str.strip() alone would also take the four ASCII separators.
_WHITE_SPACE: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


class BadPattern(ValueError):
    """A pattern does not follow the syntax."""


def trim_space(text: str) -> str:
    """Return ``text`` without the white space around it."""
    return text.strip(_WHITE_SPACE)


def clean(path: str) -> str:
    """Return the shortest equivalent of ``path`` by its letters alone; ``.`` for an empty one."""
    rooted = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            parts.append(part)
        elif parts and parts[-1] != "..":
            parts.pop()
        elif not rooted:
            parts.append(part)
    return "/" * rooted + "/".join(parts) or "."


def join(*elements: str) -> str:
    """Join the elements that are not empty with slashes and clean the result; empty when all are."""
    present = [element for element in elements if element]
    return clean("/".join(present)) if present else ""


def has_wildcard(name: str) -> bool:
    """Tell whether ``name`` contains ``*``, ``?`` or ``[`` without a backslash before it."""
    return re.search(r"[*?[]", re.sub(r"\\.", "", name, flags=re.DOTALL)) is not None


def check_glob(pattern: str) -> None:
    """Raise `BadPattern` unless filepath.Match understands ``pattern``."""
    compile_glob(pattern)


def match_name(pattern: str, name: str) -> bool:
    """Tell whether filepath.Match matches the whole of ``name``; a bad pattern matches nothing."""
    try:
        return compile_glob(pattern).fullmatch(name) is not None
    except BadPattern:
        return False


@lru_cache(maxsize=64)
def compile_glob(pattern: str) -> re.Pattern[str]:
    """Return what filepath.Match matches as an expression for the whole name; raise `BadPattern` where it refuses."""
    out: list[str] = []
    # A star takes the first place where what is between it and the next one fits, and never tries another: so does
    # Go, and that keeps the time linear.
    open_star = False
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "[":
            text, at = _bracket(pattern, at + 1)
            out.append(text)
            continue
        if char == "*":
            out.append(")(?>[^/]*?" if open_star else "(?>[^/]*?")
            open_star = True
            at += 1
            continue
        if char == "\\":
            at += 1
            char = pattern[at : at + 1]
            if not char:
                raise BadPattern("syntax error in pattern")
            out.append(re.escape(char))
        else:
            out.append("[^/]" if char == "?" else re.escape(char))
        at += 1
    if open_star:
        # But the last one has to reach the end.
        last = len(out) - 1 - next(index for index, text in enumerate(reversed(out)) if text.endswith("(?>[^/]*?"))
        out[last] = out[last].replace("(?>", "(?:")
        out.append(")")
    return re.compile("".join(out), re.DOTALL)


def _bracket(pattern: str, at: int) -> tuple[str, int]:
    """Translate what follows a ``[``; return the regular expression and the index behind the ``]``."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while not (ranges and pattern.startswith("]", at)):
        low, at = _bracket_char(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _bracket_char(pattern, at + 1)
        # An empty range is allowed and matches nothing; it still makes the bracket a complete one.
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    inside = "".join(ranges)
    if not inside:
        return ("." if negated else "(?!)"), at + 1
    return f"[{'^' * negated}{inside}]", at + 1


def _bracket_char(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at : at + 1]
    if char in ("", "-", "]"):
        raise BadPattern("syntax error in pattern")
    if char == "\\":
        at += 1
        char = pattern[at : at + 1]
    # A bracket needs its end: a character that is the last one of the pattern cannot be inside.
    if not char or at + 1 >= len(pattern):
        raise BadPattern("syntax error in pattern")
    return char, at + 1

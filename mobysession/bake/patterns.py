"""The functions of expressions that search with regular expressions, for a bounded time.

Source: zclconf/go-cty function/stdlib/regexp.go and string_replace.go.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mobysession import limits
from mobysession.bake.values import Value, as_text
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["find_all", "find_first", "replace_all"]


def _pattern(written: Value) -> Any:
    """Return a regular expression; that of the package regex, which python-hcl2 brings, can be given a time."""
    import regex

    try:
        return regex.compile(as_text(written))
    except regex.error as error:
        raise UsageError(f"{written!r} is no regular expression: {error}") from None


@contextmanager
def _in_time() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise UsageError("the regular expression takes too long") from None


def _captured(match: Any) -> Value:
    if match.re.groupindex:
        return match.groupdict()
    return list(match.groups()) if match.re.groups else match[0]


def find_first(pattern: Value, text: Value) -> Value:
    """Return what the first match has caught; UsageError where there is no match."""
    with _in_time():
        match = _pattern(pattern).search(as_text(text), timeout=limits.BAKE_REGEX_TIME)
    if match is None:
        raise UsageError(f"{pattern!r} does not match {text!r}")
    return _captured(match)


def find_all(pattern: Value, text: Value) -> list[Value]:
    """Return what each match has caught."""
    with _in_time():
        return [_captured(m) for m in _pattern(pattern).finditer(as_text(text), timeout=limits.BAKE_REGEX_TIME)]


def replace_all(text: Value, pattern: Value, replacement: Value) -> str:
    """Return a text with another in the place of each match, in which ``$1`` and ``${name}`` are what was caught."""
    with_groups = as_text(replacement)

    def replaced(match: Any) -> str:
        def group(name: re.Match[str]) -> str:
            key = name[1] or name[2]
            if key is None:
                return "$"
            try:
                return str(match[int(key) if key.isdigit() else key] or "")
            except IndexError:
                return ""

        return re.sub(r"\$(?:\{(\w+)\}|(\w+)|\$)", group, with_groups)

    with _in_time():
        return str(_pattern(pattern).sub(replaced, as_text(text), timeout=limits.BAKE_REGEX_TIME))

"""moby/patternmatcher and fsutil's filter as they are specified: slow, obvious, sharing no code with ours.

Patterns are limited to what Go's and Python's regular expressions agree on: no braces, no named classes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Tree = Mapping[str, object]

__all__ = ["Walked", "order", "walk"]


class Walked(NamedTuple):
    """What a walk sends, in order, and the directories it looks into."""

    sent: list[str]
    listed: set[str]


class _Pattern(NamedTuple):
    text: str
    negated: bool
    matches: Callable[[str], bool]


def _parse(written: str) -> _Pattern | None:
    text = written.strip()
    if not text:
        return None
    rooted = text.startswith("/")
    parts: list[str] = []
    for part in text.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", ".") and not (part == ".." and rooted):
            parts.append(part)
    text = "/" * rooted + "/".join(parts) or "."
    negated = text.startswith("!")
    text = text[negated:]
    return _Pattern(text, negated, _test(text))


def _test(text: str) -> Callable[[str], bool]:
    kind, expression, at = "exact", "^", 0
    while at < len(text):
        begin, char = at, text[at]
        at += 1
        if char == "*":
            if text[at : at + 1] == "*":
                at += 1
                if text[at : at + 1] == "/":
                    at += 1
                if at == len(text):
                    if kind == "exact":
                        kind = "prefix"
                    else:
                        expression += ".*"
                        kind = "regexp"
                else:
                    expression += "(.*/)?"
                    kind = "regexp"
                if begin == 0:
                    kind = "suffix"
            else:
                expression += "[^/]*"
                kind = "regexp"
        elif char == "?":
            expression += "[^/]"
            kind = "regexp"
        elif char in ".+()$":
            expression += "\\" + char
        elif char == "\\":
            expression += "\\" + text[at]
            at += 1
            kind = "regexp"
        elif char in "[]":
            expression += char
            kind = "regexp"
        else:
            expression += char
    if kind == "exact":
        return lambda path: path == text
    if kind == "prefix":
        return lambda path: path.startswith(text[:-2])
    if kind == "suffix":
        end = text[2:]
        return lambda path: path.endswith(end) or (end.startswith("/") and path == end[1:])
    return lambda path: re.search(expression + r"\Z", path) is not None


def _match(patterns: Sequence[_Pattern], path: str, parent: list[bool] | None) -> tuple[bool, list[bool]]:
    matched, info = False, []
    for index, pattern in enumerate(patterns):
        hit = parent[index] if parent else False
        if not hit and pattern.negated == matched:
            hit = pattern.matches(path)
        info.append(hit)
        if hit:
            matched = not pattern.negated
    return matched, info


def _stem(pattern: _Pattern) -> str:
    return pattern.text.removesuffix("/**").removesuffix("/*")


def _may_prune(path: str, patterns: Sequence[_Pattern]) -> bool:
    if any(char in _stem(pattern) for pattern in patterns for char in "*[]?^\\"):
        return False
    return not any((_stem(pattern) + "/").startswith(path + "/") for pattern in patterns)


def walk(tree: Tree, includes: Sequence[str], excludes: Sequence[str]) -> Walked:
    """Walk a nested mapping, None for a file, as fsutil's filter.go does."""
    include = [pattern for pattern in map(_parse, includes) if pattern]
    exclude = [pattern for pattern in map(_parse, excludes) if pattern]
    sent: set[str] = set()
    listed: set[str] = set()

    def visit(here: Tree, prefix: str, included: list[bool] | None, excluded: list[bool] | None) -> None:
        listed.add(prefix[:-1])
        for name, below in here.items():
            path, skip = prefix + name, False
            wanted, inner_included = _match(include, path, included)
            if includes and not wanted:
                if _may_prune(path, [pattern for pattern in include if not pattern.negated]):
                    continue
                skip = True
            unwanted, inner_excluded = _match(exclude, path, excluded)
            if unwanted:
                if _may_prune(path, [pattern for pattern in exclude if pattern.negated]):
                    continue
                skip = True
            if not skip:
                parts = path.split("/")
                sent.update("/".join(parts[: end + 1]) for end in range(len(parts)))
            if below is not None:
                assert isinstance(below, dict)
                visit(below, path + "/", inner_included, inner_excluded)

    visit(tree, "", None, None)
    return Walked(order(sent), listed)


def order(paths: set[str]) -> list[str]:
    """Sort as a transfer is sorted: by the bytes of the components."""
    return sorted(paths, key=lambda path: [part.encode() for part in path.split("/")])

"""The patterns of ``.dockerignore`` and of COPY sources, as moby/patternmatcher understands them.

A pattern is trimmed, cleaned as a path, and only then looked at for a leading ``!``. It is compiled into one of four tests:
equal, begins with, ends with, or a regular expression that is built character by character. The expression inherits oddities
(``^`` is an anchor, ``|`` an alternative, ``*`` inside brackets is still replaced), and builds depend on them, so the
algorithm is ported and not approximated with a glob library.

In a list, later patterns override earlier ones, and a pattern that matched a directory holds for everything below it unless
a later one says otherwise. While a tree is walked, each directory hands the matches of its patterns to its children.

Source: moby/patternmatcher patternmatcher.go.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Final

from mobysession.filesync.gopath import BadPattern, check_glob, clean, trim_space
from mobysession.filesync.goregexp import to_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["BadPattern", "Kind", "MatchInfo", "Pattern", "PatternList"]

#: What a directory's patterns found, for its children: one bool a pattern, or one for all where none is negated.
MatchInfo = tuple[bool, ...]

_ESCAPED: Final = frozenset(".+()$")


class Kind(enum.Enum):
    """How a pattern is tested."""

    EXACT = enum.auto()
    PREFIX = enum.auto()
    SUFFIX = enum.auto()
    REGEXP = enum.auto()


class Pattern:
    """One pattern, compiled into a kind of test.

    Attributes:
        text: the cleaned pattern, without its ``!``.
        negated: whether it had one.
        kind: how it is tested.
        expression: the regular expression in Go's syntax; used by `Kind.REGEXP` alone.
    """

    __slots__ = ("expression", "kind", "negated", "text")

    def __init__(self, cleaned: str) -> None:
        """Compile a cleaned pattern; raise `BadPattern` where filepath.Match does."""
        self.negated = cleaned.startswith("!")
        self.text = cleaned[1:] if self.negated else cleaned
        if not self.text:
            raise BadPattern('illegal exclusion pattern: "!"')
        check_glob(self.text)
        self.kind, self.expression = _compile(self.text)

    def test(self) -> Callable[[str], object]:
        """Return the test of one path; raise `BadPattern` when the regular expression is none."""
        text = self.text
        if self.kind is Kind.EXACT:
            return lambda path: path == text
        if self.kind is Kind.PREFIX:
            start = text[:-2]
            return lambda path: path.startswith(start)
        if self.kind is Kind.SUFFIX:
            end = text[2:]
            alone = end[1:] if end.startswith("/") else None
            return lambda path: path.endswith(end) or path == alone
        return _search([self.expression])


def _search(expressions: Sequence[str]) -> Callable[[str], object]:
    """Return one test for any of several expressions in Go's syntax."""
    try:
        joined = "|".join(f"(?:{to_python(expression)})" for expression in expressions)
        compiled = re.compile(joined, re.ASCII)
    except (re.error, OverflowError) as error:
        raise BadPattern("syntax error in pattern") from error
    # An alternative that came raw from a pattern has no anchor of its own and may match anywhere.
    return compiled.search if any("|" in expression for expression in expressions) else compiled.match


def _compile(text: str) -> tuple[Kind, str]:
    kind, out, at, first = Kind.EXACT, ["^"], 0, True
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*" and text.startswith("*", at):
            at += 1
            if text.startswith("/", at):
                at += 1
            if at < len(text):
                out.append("(.*/)?")
                kind = Kind.REGEXP
            elif kind is Kind.EXACT:
                kind = Kind.PREFIX
            else:
                out.append(".*")
                kind = Kind.REGEXP
            if first:
                kind = Kind.SUFFIX
        elif char in "*?":
            out.append("[^/]*" if char == "*" else "[^/]")
            kind = Kind.REGEXP
        elif char == "\\":
            out.append("\\" + text[at : at + 1])
            at += 1
            kind = Kind.REGEXP
        else:
            if char in "[]":
                kind = Kind.REGEXP
            out.append("\\" + char if char in _ESCAPED else char)
        first = False
    if kind is Kind.REGEXP:
        out.append("$")
    return kind, "".join(out)


class PatternList:
    """An ordered list of patterns.

    Args:
        patterns: as written, e.g. the lines of an ignore file.

    Raises:
        BadPattern: one of them breaks the syntax; the user must correct it. Its ``args[1]`` is that pattern.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns: Sequence[Pattern] = tuple(_prepare(patterns))
        self.negated = tuple(pattern for pattern in self.patterns if pattern.negated)
        self._tests: list[tuple[bool, Callable[[str], object]]] = []
        self._any: Callable[[str], object] | None = None
        try:
            if self.negated:
                self._tests = [(pattern.negated, pattern.test()) for pattern in self.patterns]
            else:
                self._any = _any_of(self.patterns)
        except BadPattern as error:
            raise _blame(self.patterns, error) from error

    def match(self, path: str, parent: MatchInfo | None) -> tuple[bool, MatchInfo]:
        """Match ``path`` below a directory that was matched before; return the result and the info for its children.

        Args:
            path: relative, slash-separated.
            parent: the info of its directory; None at the top level, where leading directories are tested too.

        Source: moby/patternmatcher patternmatcher.go, MatchesUsingParentResults.
        """
        if self._any is not None:
            # Without negations the list has matched when any pattern has, and one bool is all the children need.
            matched = parent[0] if parent else any(map(self._any, _with_leading(path)))
            matched = matched or bool(self._any(path))
            return matched, (matched,)
        matched = False
        info = list(parent) if parent else [False] * len(self._tests)
        for index, (negated, test) in enumerate(self._tests):
            if not info[index]:
                if negated is not matched:
                    continue
                if not (test(path) or (parent is None and any(map(test, _with_leading(path))))):
                    continue
                info[index] = True
            matched = not negated
        return matched, tuple(info)

    def match_or_parent(self, path: str) -> bool:
        """Tell whether ``path``, or a directory leading to it, is matched by the list as a whole."""
        return self.match(path, None)[0]


def _with_leading(path: str) -> list[str]:
    """Return the directories that lead to ``path``, outermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def _prepare(patterns: Iterable[str]) -> Iterator[Pattern]:
    for written in patterns:
        trimmed = trim_space(written)
        if trimmed:
            try:
                yield Pattern(clean(trimmed))
            except BadPattern as error:
                raise BadPattern(str(error), written) from error


def _blame(patterns: Iterable[Pattern], error: BadPattern) -> BadPattern:
    """Return ``error`` with the first pattern that fails alone; many are compiled as one."""
    for pattern in patterns:
        try:
            pattern.test()
        except BadPattern:
            return BadPattern(str(error), "!" * pattern.negated + pattern.text)
    return error


def _any_of(patterns: Sequence[Pattern]) -> Callable[[str], object]:
    """Return one test that is true when any of ``patterns`` matches: a few calls instead of one a pattern."""
    exact = frozenset(pattern.text for pattern in patterns if pattern.kind is Kind.EXACT)
    prefixes = tuple(pattern.text[:-2] for pattern in patterns if pattern.kind is Kind.PREFIX)
    rest = [pattern.test() for pattern in patterns if pattern.kind is Kind.SUFFIX]
    expressions = [pattern.expression for pattern in patterns if pattern.kind is Kind.REGEXP]
    if expressions:
        rest.append(_search(expressions))

    def test(path: str) -> bool:
        if path in exact or path.startswith(prefixes):
            return True
        return any(matches(path) for matches in rest)

    return test

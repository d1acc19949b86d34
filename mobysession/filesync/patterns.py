"""The patterns of ``.dockerignore`` and of COPY sources, as moby/patternmatcher understands them.

A pattern is trimmed, cleaned as a path, and only then looked at for a leading ``!``. It is compiled into one of four
tests: equal, begins with, ends with, or a regular expression that is built character by character. The expression
inherits oddities (``^`` is an anchor, ``|`` an alternative, ``*`` inside brackets is still replaced), and builds
depend on them, so the algorithm is ported and not approximated with a glob library.

In a list, later patterns override earlier ones, and a pattern that matched a directory holds for everything below it
unless a later one says otherwise. While a tree is walked, each directory hands the matches of its patterns to its
children.

Source: moby/patternmatcher patternmatcher.go.
"""

from __future__ import annotations

import enum
import itertools
import re
from typing import TYPE_CHECKING, Final

from mobysession.filesync.automaton import Automaton, program
from mobysession.filesync.gopath import BadPattern, check_glob, clean, trim_space
from mobysession.filesync.goregexp import to_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from mobysession.filesync.automaton import Step

__all__ = ["BadPattern", "Kind", "MatchInfo", "Pattern", "PatternList"]

#: What a directory's patterns found, for its children: one bool for each run of patterns of one sign.
MatchInfo = tuple[bool, ...]

_ESCAPED: Final = frozenset(".+()$")
#: What is not matched as it stands; ``**`` swallows the slash behind it.
_SPECIAL: Final = r"\*\*/?|\\.?|[*?\[\]|{}^]"
#: Wildcards in one alternative of an expression that only a backtracking engine knows how to match; ``**`` counts
#: twice, and so does a missing anchor once. A path of 4096 characters takes a second at the very most. Ours: the
#: reference's engine needs no bound.
_MAX_REPEATS: Final = 3


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
    """Return one test for any of several expressions in Go's syntax; it is false or None where none matches."""
    programs: list[list[Step]] = []
    others: list[str] = []
    try:
        for expression in expressions:
            steps = program(expression)
            cheap = _is_cheap(expression)
            if steps is None and not cheap:
                raise BadPattern(f"syntax error in pattern: more than {_MAX_REPEATS} wildcards beside other operators")
            # The engine in C is the faster one where it cannot lose itself.
            if steps is None or cheap:
                others.append(f"(?:{to_python(expression)})")
            else:
                programs.append(steps)
        # An alternative that came raw from a pattern has no anchor of its own and may match anywhere.
        compiled = re.compile("|".join(others), re.ASCII)
        raw = any("|" in expression for expression in expressions)
        other = (compiled.search if raw else compiled.match) if others else None
        automaton = Automaton(programs).match if programs else None
    except (re.error, OverflowError) as error:
        raise BadPattern("syntax error in pattern") from error
    if automaton is None or other is None:
        return automaton or other or _never
    return lambda path: automaton(path) or other(path)


def _is_cheap(expression: str) -> bool:
    """Tell whether Python's engine, which goes back and tries again, cannot hang on an expression."""
    for alternative in expression.split("|"):
        deep = alternative.count(".*")
        repeats = alternative.count("*") - deep + len(re.findall(r"\{\d+,", alternative))
        if 2 * deep + repeats + (alternative[:1] != "^") > _MAX_REPEATS:
            return False
    return True


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

    Neighbours of one sign are kept as one run with one test: within a run the order is of no consequence, and whether
    its children need be tested depends on any of them having matched.

    Args:
        patterns: as written, e.g. the lines of an ignore file.

    Attributes:
        patterns: compiled, in order, without empty ones.
        runs: the same, run by run.
        negated: those with a ``!``.

    Raises:
        BadPattern: one of them breaks the syntax; the user must correct it. Its ``args[1]`` is that pattern.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns: Sequence[Pattern] = tuple(_prepare(patterns))
        self.negated = tuple(pattern for pattern in self.patterns if pattern.negated)
        groups = itertools.groupby(self.patterns, key=lambda pattern: pattern.negated)
        #: The patterns of each run.
        self.runs = [tuple(run) for _, run in groups]
        try:
            self._runs = [(run[0].negated, _any_of(run)) for run in self.runs]
        except BadPattern as error:
            raise _blame(self.patterns, error) from error

    def match(self, path: str, parent: MatchInfo | None) -> tuple[bool, MatchInfo]:
        """Match ``path`` below a directory that was matched before; return the result and the info for its children.

        Args:
            path: relative, slash-separated.
            parent: the info of its directory; None at the top level, where leading directories are tested too.

        Source: moby/patternmatcher patternmatcher.go, MatchesUsingParentResults.
        """
        matched = False
        info = []
        for index, (negated, test) in enumerate(self._runs):
            hit = parent is not None and parent[index]
            if not hit and negated is matched:
                hit = test(path) or (parent is None and any(map(test, _leading(path))))
            if hit:
                matched = not negated
            info.append(hit)
        return matched, tuple(info)


def _leading(path: str) -> list[str]:
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


def _any_of(patterns: Sequence[Pattern]) -> Callable[[str], bool]:
    """Return one test that is true when any of ``patterns`` matches.

    It is asked about every entry of the tree, so what plain text can decide is decided by a few calls for all
    patterns, and a regular expression runs only on paths that begin or end as one of them demands.
    """
    exact = {pattern.text for pattern in patterns if pattern.kind is Kind.EXACT}
    prefixes = tuple(pattern.text[:-2] for pattern in patterns if pattern.kind is Kind.PREFIX)
    suffixes = tuple(pattern.text[2:] for pattern in patterns if pattern.kind is Kind.SUFFIX)
    exact.update(suffix[1:] for suffix in suffixes if suffix.startswith("/"))
    by_tail, by_head, free = _Group(), _Group(), _Group()
    for pattern in patterns:
        if pattern.kind is Kind.REGEXP:
            head, tail = _literal_ends(pattern.text)
            group = by_tail if tail else by_head if head else free
            group.add(tail or head, pattern.expression)
    tails, has_tail = by_tail.compile()
    heads, has_head = by_head.compile()
    _, is_free = free.compile()

    def test(path: str) -> bool:
        return bool(
            path in exact
            or path.startswith(prefixes)
            or path.endswith(suffixes)
            or (path.endswith(tails) and has_tail(path))
            or (path.startswith(heads) and has_head(path))
            or is_free(path)
        )

    return test


class _Group:
    """Regular expressions that share a way of being ruled out."""

    def __init__(self) -> None:
        self._ends: list[str] = []
        self._expressions: list[str] = []

    def add(self, end: str, expression: str) -> None:
        self._ends.append(end)
        self._expressions.append(expression)

    def compile(self) -> tuple[tuple[str, ...], Callable[[str], object]]:
        """Return the literal ends, and one test for all expressions."""
        return tuple(self._ends), _search(self._expressions) if self._expressions else _never


def _never(path: str) -> None:
    return None


def _literal_ends(text: str) -> tuple[str, str]:
    """Return how every path that a pattern matches begins and ends; both empty where that cannot be said."""
    if "|" in text:
        return "", ""
    parts = re.split(_SPECIAL, text, flags=re.DOTALL)
    # A repeat count behind it makes a letter optional.
    head = parts[0] if "{" not in text else ""
    return head, parts[-1]

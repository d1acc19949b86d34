"""Which entries of a tree are sent: include and exclude patterns, and when a directory need not be looked into.

An entry is sent when it is included and not excluded. A directory that is left out may still have to be walked,
because an exception (``!keep``) or a deeper include may match below it; it is then announced late, only once something
in it is.

A directory is not looked into for two reasons. The first is the reference's own rule, which must be followed because it
also loses files: with ``a/x`` and ``!a/*/**`` it does not look into ``a/x``. The second is that nothing that would be
found could be sent; there the reference, which gives up at the first exception with a wildcard, often looks in vain.

Source: tonistiigi/fsutil filter.go.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from mobysession.errors import ContextError
from mobysession.filesync.naming import quote
from mobysession.filesync.patterns import BadPattern, Kind, PatternList
from mobysession.filesync.reach import Reach

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobysession.filesync.patterns import MatchInfo, Pattern

__all__ = ["Filter", "Verdict", "parse_filter"]

_WILDCARDS: Final = frozenset("*[]?^\\")


class Verdict(enum.Enum):
    """What is to be done with an entry."""

    SEND = enum.auto()
    #: Do not send it; if it is a directory, look into it all the same.
    SKIP = enum.auto()
    #: Do not send it, nor anything below it.
    PRUNE = enum.auto()


#: By names of their own: they are looked up for every entry, and an enumeration's class takes its time.
_SEND: Final = Verdict.SEND
_SKIP: Final = Verdict.SKIP
_PRUNE: Final = Verdict.PRUNE


class Filter:
    """Include and exclude patterns, compiled.

    Args:
        includes: None to include everything.
        excludes: None to exclude nothing.
    """

    def __init__(self, includes: PatternList | None, excludes: PatternList | None) -> None:
        self._includes = includes
        self._excludes = excludes
        self._include_turns = _Turns(includes) if includes else None
        self._exclude_turns = _Turns(excludes) if excludes else None
        wanted = [pattern for pattern in includes.patterns if not pattern.negated] if includes else []
        self._include_stems = _stems(wanted)
        self._exception_stems = _stems(excludes.negated if excludes else ())
        #: The only paths that are included, with all below them; None where wildcards may include others.
        self._exact = [pattern.text for pattern in wanted] if all(map(_is_exact, wanted)) else None

    def judge(
        self, path: str, is_directory: bool, included: MatchInfo | None, excluded: MatchInfo | None
    ) -> tuple[Verdict, MatchInfo | None, MatchInfo | None]:
        """Decide about one entry.

        Args:
            path: relative, slash-separated.
            is_directory: whether something may be below it.
            included: what the include patterns found for its directory; None at the top.
            excluded: the same of the exclude patterns.

        Returns: the verdict, and the two infos for the entries below.
        """
        verdict = _SEND
        if self._includes is not None and self._include_turns is not None:
            matched, included = self._includes.match(path, included)
            if not matched:
                if is_directory and (
                    _nothing_below(path, self._include_stems)
                    or not self._include_turns.are_below(path, included, negated=False)
                ):
                    return _PRUNE, included, excluded
                verdict = _SKIP
        if self._excludes is not None and self._exclude_turns is not None:
            matched, excluded = self._excludes.match(path, excluded)
            if matched:
                if is_directory and (
                    _nothing_below(path, self._exception_stems)
                    or not self._exclude_turns.are_below(path, excluded, negated=True)
                ):
                    return _PRUNE, included, excluded
                verdict = _SKIP
        return verdict, included, excluded

    def names_in(self, directory: str, included: MatchInfo | None) -> frozenset[bytes] | None:
        """Return the only names in ``directory`` that may be sent or lead to what may; None where any may.

        Args:
            directory: relative, slash-separated; empty for the root.
            included: what the include patterns found for it; None for the root.
        """
        if self._includes is None or self._exact is None or any(included or ()):
            return None
        inside = directory + "/" if directory else ""
        names = {path[len(inside) :].partition("/")[0] for path in self._exact if path.startswith(inside)}
        try:
            return frozenset(name.encode("utf-8", "surrogateescape") for name in names)
        except UnicodeEncodeError:
            # Text that no path is turned into; the patterns will tell.
            return None


class _Turns:
    """Where the result of a pattern list may be another one than for the directory above.

    The matches of a directory hold for what is below it. So only patterns of the other sign can change the result, and
    only those behind the last one that matched.
    """

    def __init__(self, patterns: PatternList) -> None:
        self._runs = [(run[0].negated, Reach(run)) for run in patterns.runs]

    def are_below(self, directory: str, info: MatchInfo, *, negated: bool) -> bool:
        """Tell whether patterns with this sign may change below ``directory`` what ``info`` says of it."""
        for (sign, reach), hit in zip(reversed(self._runs), reversed(info), strict=True):
            if hit:
                return False
            if sign is negated and reach.goes_below(directory):
                return True
        return False


def parse_filter(includes: Sequence[str], excludes: Sequence[str]) -> Filter | None:
    """Compile a filter; None when there is nothing to filter by.

    Raises:
        ContextError: a pattern breaks the syntax; the user must correct it where it is written.
    """
    if not includes and not excludes:
        return None
    return Filter(_compile("includepatterns", includes), _compile("excludepatterns", excludes))


def _compile(name: str, patterns: Sequence[str]) -> PatternList | None:
    if not patterns:
        return None
    try:
        return PatternList(patterns)
    except BadPattern as error:
        what, pattern = error.args
        raise ContextError(
            f"invalid {name}: [{quote(pattern)}]: {what}",
            hint="correct the pattern, most likely a line of .dockerignore",
        ) from error


def _stems(patterns: Iterable[Pattern]) -> list[str] | None:
    """Return the literal paths below which ``patterns`` can match; None when one of them has wildcards inside."""
    stems = [pattern.text.removesuffix("/**").removesuffix("/*") for pattern in patterns]
    return None if any(_WILDCARDS.intersection(stem) for stem in stems) else [stem + "/" for stem in stems]


def _is_exact(pattern: Pattern) -> bool:
    return pattern.kind is Kind.EXACT


def _nothing_below(path: str, stems: list[str] | None) -> bool:
    """Tell whether no pattern with one of ``stems`` can match below the directory ``path``."""
    if stems is None:
        return False
    start = path + "/"
    return not any(stem.startswith(start) for stem in stems)

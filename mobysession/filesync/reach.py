"""Whether a pattern can match something below a directory, so that the others are not looked into.

The question is asked of directories that were left out, about the patterns that could take something in them back. A
pattern is compared with the directory's path name by name. From the first item on that may swallow a slash (``**``,
brackets, whatever else is more than ``*`` and ``?``) everything is thought possible: a directory that is looked into in
vain costs time, and one that is not looked into costs files.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mobysession.filesync.gopath import compile_glob
from mobysession.filesync.patterns import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobysession.filesync.patterns import Pattern

__all__ = ["Reach"]

#: What makes a regular expression of a pattern something else than names between slashes.
_RAW: Final = frozenset("|{^")
_SWALLOWS_SLASHES: Final = re.compile(r"\*\*|[\[\]\\]")


class _Names:
    """The leading names that a pattern demands, and whether more of any kind may follow."""

    __slots__ = ("names", "open")

    def __init__(self, names: Iterable[str], *, is_open: bool) -> None:
        self.names: list[str | re.Pattern[str]] = [
            compile_glob(name) if "*" in name or "?" in name else name for name in names
        ]
        self.open = is_open

    def allow(self, parts: Sequence[str]) -> bool:
        """Tell whether a path below the directory of ``parts`` may match."""
        for name, part in zip(self.names, parts, strict=False):
            if not (name == part if isinstance(name, str) else name.fullmatch(part)):
                return False
        return self.open or len(self.names) > len(parts)


class Reach:
    """Where several patterns can match.

    Args:
        patterns: compiled.
    """

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._everywhere = False
        self._starts: list[str] = []
        self._names: list[_Names] = []
        for pattern in patterns:
            self._add(pattern)

    def goes_below(self, directory: str) -> bool:
        """Tell whether one of the patterns may match a path below ``directory``."""
        if self._everywhere:
            return True
        inside = directory + "/"
        if any(start.startswith(inside) or inside.startswith(start) for start in self._starts):
            return True
        parts = directory.split("/")
        return any(names.allow(parts) for names in self._names)

    def _add(self, pattern: Pattern) -> None:
        text = pattern.text
        if pattern.kind is Kind.PREFIX:
            self._starts.append(text[:-2])
        elif pattern.kind is Kind.EXACT:
            self._names.append(_Names(text.split("/"), is_open=False))
        elif pattern.kind is Kind.SUFFIX or _RAW.intersection(text):
            self._everywhere = True
        else:
            found = _SWALLOWS_SLASHES.search(text)
            names = (text[: found.start()] if found else text).split("/")
            # The name in which that item stands is not known to its end.
            self._names.append(_Names(names[:-1] if found else names, is_open=found is not None))

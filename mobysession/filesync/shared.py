"""Directories that several builds read at the same time: each is listed once for all of them.

A listing may stand in for one of a build's own if it was begun after that build was: the build could not have told the
difference, as its own might have come at that very moment. What an earlier build has listed is never used for a later
one, which has to see what changed in between.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from mobysession import limits
from mobysession.filesync.directory import Directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.filesync.source import Entry, Source

__all__ = ["SharedWalks"]


class _Listing(NamedTuple):
    begun: float
    entries: tuple[Entry, ...]


class SharedWalks:
    """What builds of one call list, kept for those that run beside them; used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[tuple[str, bytes], threading.Lock] = {}
        self._listings: dict[tuple[str, bytes], _Listing] = {}
        self._kept = 0

    def share(self, source: Source) -> Source:
        """Return what stands for ``source`` in a build that begins now; only directories of this machine are shared."""
        return _SharedDirectory(source, self, time.monotonic()) if type(source) is Directory else source

    def entries(self, directory: Directory, root: str, path: bytes, since: float) -> tuple[Entry, ...]:
        """Return what is in ``path`` below ``root``, listed after ``since``; an OSError is as of `Source.entries`."""
        key = (root, path)
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            found = self._listings.get(key)
            if found is None or found.begun < since:
                begun = time.monotonic()
                found = _Listing(begun, tuple(directory.entries(path)))
                self._keep(key, found)
        return found.entries

    def forget(self) -> None:
        """Give up all that is kept."""
        with self._lock:
            self._listings.clear()
            self._turns.clear()
            self._kept = 0

    def _keep(self, key: tuple[str, bytes], listing: _Listing) -> None:
        with self._lock:
            earlier = self._listings.pop(key, None)
            self._kept -= len(earlier.entries) if earlier is not None else 0
            if self._kept + len(listing.entries) <= limits.SHARED_ENTRIES:
                self._listings[key] = listing
                self._kept += len(listing.entries)


class _SharedDirectory(Directory):
    """A directory whose listings may be those of another build's walk."""

    def __init__(self, directory: Directory, walks: SharedWalks, since: float) -> None:
        super().__init__(directory.path)
        self._directory = directory
        self._walks = walks
        self._since = since
        self._root = directory.location
        # As the original was resolved; a link that was changed since must not lead one of the two elsewhere.
        self._anchor = directory._anchor
        self._reader = directory._reader

    def entries(self, directory: bytes) -> Iterator[Entry]:
        """Yield what is in ``directory``, as `Source.entries`."""
        return iter(self._walks.entries(self._directory, self._root, directory, self._since))

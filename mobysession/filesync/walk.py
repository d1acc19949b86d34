"""The walk: a tree becomes STAT packets, in batches, and a list of what was offered.

Depth first, parents before children, names in byte order: the order the receiver insists on. Nothing but the path from
the root to the present directory is held; what went by is kept in `Offers`, in a few bytes an entry.

The walk runs in a worker thread and is asked for one batch at a time. A batch ends after a number of entries or a few
milliseconds, whichever comes first, so that a hop between threads costs little and a cancellation is heard soon.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from mobysession.filesync.filters import Verdict
from mobysession.filesync.modes import DIRECTORY, SYMLINK, TYPE
from mobysession.filesync.naming import cannot
from mobysession.filesync.offers import ROOT
from mobysession.filesync.packets import StatEncoder
from mobysession.filesync.source import entries_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from mobysession.filesync.filters import Filter
    from mobysession.filesync.offers import Offers
    from mobysession.filesync.patterns import MatchInfo
    from mobysession.filesync.snapshot import Snapshot
    from mobysession.filesync.source import Entry, Source

__all__ = ["Batch", "Walk"]

_BATCH_ENTRIES: Final = 1024
_BATCH_SECONDS: Final = 0.02
_CLOCK_EVERY: Final = 64
_ID_BITS: Final = 32
#: By names of their own: they are looked up for every entry, and an enumeration's class takes its time.
_SEND: Final[Verdict] = Verdict.SEND
_PRUNE: Final[Verdict] = Verdict.PRUNE
#: The receiver keeps a file of this name at the root for itself and would lose count of the ids behind it.
_RESERVED: Final = b".fsutil-metadata"


class Batch:
    """STAT packets ready to be sent, and what they add up to."""

    __slots__ = ("content", "files", "messages")

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.files = 0
        self.content = 0


class _Open:
    """A directory that is being walked, ``entry_id`` None as long as it was not announced."""

    __slots__ = ("entries", "entry", "entry_id", "excluded", "included", "parent", "prefix")

    def __init__(self, parent: _Open | None, prefix: bytes, entry: Entry | None) -> None:
        self.parent = parent
        self.prefix = prefix
        self.entry = entry
        self.entry_id: int | None = ROOT if parent is None else None
        self.entries: Iterator[Entry] | None = None
        self.included: MatchInfo | None = None
        self.excluded: MatchInfo | None = None

    @property
    def path(self) -> bytes:
        return self.prefix[:-1]


class Walk:
    """One walk of one source.

    Args:
        source: the tree.
        chosen: which of its entries are sent; None for all.
        offers: is given every entry that is.
        reset_owner: send 0 as uid and gid.
        snapshot: is given every entry that is sent, too.

    Attributes:
        odd_path: the first path that was sent and is not UTF-8; empty for none.
    """

    def __init__(
        self,
        source: Source,
        chosen: Filter | None,
        offers: Offers,
        *,
        reset_owner: bool,
        snapshot: Snapshot | None = None,
    ) -> None:
        self.odd_path = b""
        self._snapshot = snapshot
        self._check_readable: Callable[[bytes, Entry], None] | None = getattr(source, "check_readable", None)
        self._source = source
        self._filter = chosen
        self._offers = offers
        self._encoder = StatEncoder(reset_owner=reset_owner)
        #: Files with several names: to the id of the first one sent, and above it how many are still to come.
        self._links: dict[Hashable, int] = {}
        self._batch = Batch()

    def batches(self) -> Iterator[Batch]:
        """Yield the packets of the whole tree; a batch may be empty when much was left out.

        Raises:
            ContextError: a directory or an entry cannot be read, or vanished after it was announced, or is not any more
                what it was; the user must act.
        """
        stack = [_Open(None, b"", None)]
        deadline, visited = time.monotonic() + _BATCH_SECONDS, 0
        while stack:
            directory = stack[-1]
            if directory.entries is None:
                directory.entries = self._entries(directory)
            for entry in directory.entries:
                inner = self._visit(directory, entry)
                visited += 1
                if visited % _CLOCK_EVERY == 0 and (visited >= _BATCH_ENTRIES or time.monotonic() > deadline):
                    yield self._batch
                    self._batch = Batch()
                    self._encoder.renew()
                    deadline, visited = time.monotonic() + _BATCH_SECONDS, 0
                if inner is not None:
                    stack.append(inner)
                    break
            else:
                stack.pop()
        yield self._batch

    def _entries(self, directory: _Open) -> Iterator[Entry]:
        path, names = directory.path, None
        if self._filter is not None:
            names = self._filter.names_in(path.decode("utf-8", "surrogateescape"), directory.included)
        try:
            yield from entries_of(self._source, path, names)
        except OSError as error:
            if directory.entry_id is None and isinstance(error, (PermissionError, FileNotFoundError)):
                # Left out anyway, and looked into only because of an exception.
                return
            raise cannot("list", _named(error, directory.path), error) from error

    def _visit(self, directory: _Open, entry: Entry) -> _Open | None:
        """Announce an entry if it is to be sent; return it opened if it is a directory to look into."""
        path = directory.prefix + entry.name
        is_directory = entry.mode & DIRECTORY != 0
        verdict, included, excluded = _SEND, None, None
        if self._filter is not None:
            text = path.decode("utf-8", "surrogateescape")
            verdict, included, excluded = self._filter.judge(text, is_directory, directory.included, directory.excluded)
        if verdict is _PRUNE or path == _RESERVED:
            return None
        entry_id = None
        if verdict is _SEND:
            entry_id = self._announce(directory, path, entry)
            if entry_id is None:
                return None
        if not is_directory:
            return None
        inner = _Open(directory, path + b"/", entry)
        inner.entry_id, inner.included, inner.excluded = entry_id, included, excluded
        return inner

    def _announce(self, directory: _Open, path: bytes, entry: Entry) -> int | None:
        """Send the STAT of an entry after those of the directories that lead to it; None when it is gone."""
        name, mode, size, _, _, _, _, identity, _ = entry
        source = self._source
        try:
            link = source.readlink(path) if mode & SYMLINK else b""
            xattrs = source.xattrs(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise cannot("read", path, error) from error
        requestable = not mode & TYPE
        if requestable and self._check_readable is not None:
            self._check_readable(path, entry)
        parent = directory.entry_id
        if parent is None:
            parent = self._announce_late(directory)
            if parent is None:
                return None
        if identity is not None and not mode & SYMLINK:
            link = self._first_name(entry, len(self._offers))
        batch = self._batch
        batch.messages.append(self._encoder.encode(path, entry, link, xattrs))
        if requestable:
            batch.files += 1
            if size > 0:
                batch.content += size
        if self._snapshot is not None:
            self._snapshot.add(entry)
        if not (self.odd_path or path.isascii() or _is_utf8(path)):
            self.odd_path = path
        return self._offers.add(parent, name, size, requestable)

    def _announce_late(self, directory: _Open) -> int | None:
        """Announce a directory that was left out so far, with those that lead to it; return its id."""
        waiting = [directory]
        while (outer := waiting[-1].parent) is not None and outer.entry_id is None:
            waiting.append(outer)
        for late in reversed(waiting):
            if late.parent is not None and late.entry is not None:
                late.entry_id = self._announce(late.parent, late.path, late.entry)
                if late.entry_id is None:
                    break
        return directory.entry_id

    def _first_name(self, entry: Entry, entry_id: int) -> bytes:
        """Return the path under which the file of ``entry`` was sent before; empty when this is the first."""
        known = self._links.get(entry.identity)
        if known is None:
            self._links[entry.identity] = (entry.links - 1) << _ID_BITS | entry_id
            return b""
        if known >> _ID_BITS > 1:
            self._links[entry.identity] = known - (1 << _ID_BITS)
        else:
            # All its names were seen, so nobody will ask again.
            del self._links[entry.identity]
        return self._offers.path(known & (1 << _ID_BITS) - 1)


def _named(error: OSError, directory: bytes) -> bytes:
    """Return the path in the tree that ``error`` is about."""
    return error.filename if isinstance(error.filename, bytes) and not error.filename.startswith(b"/") else directory


def _is_utf8(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True

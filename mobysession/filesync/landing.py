"""The receiver of DiffCopy as a machine: packets in, requests out, the tree made on the way. It runs in worker threads.

Every STAT is checked, compared with what is there, and applied; a file whose content is wanted is only noted down. What
is there and was not listed is removed when everything has arrived, unless the trees are merged: an interrupted transfer
has taken nothing away. At the end directories get the modes and times that filling them would have spoilt.

Source: tonistiigi/fsutil receive.go and diff_containerd.go.
"""

from __future__ import annotations

import errno
import os
from array import array
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from mobysession import limits
from mobysession._pb import fsutil_pb2
from mobysession.errors import (
    DiskFull,
    MobysessionError,
    OutputError,
    OutputLimitExceeded,
    RemoteProtocolError,
    RpcError,
    StatusCode,
)
from mobysession.filesync import modes
from mobysession.filesync.arrivals import Arrival
from mobysession.filesync.naming import quote, reason
from mobysession.filesync.packet_fields import request_packet, split_data
from mobysession.filesync.packets import DATA, ERR, FIN, STAT
from mobysession.filesync.replica import Replica
from mobysession.filesync.terms import Differ, ReceiveReport
from mobysession.filesync.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession._pb.fsutil_pb2 import Packet, Stat
    from mobysession.filesync.terms import ReceiveLimits

__all__ = ["Landing"]

_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))
_REPLACED: Final = frozenset((errno.ELOOP, errno.ENOTDIR, errno.ENOENT))


class Landing:
    """One transfer; `take`, `finish` and `close` are called in worker threads, one at a time.

    Args:
        destination: an existing directory.
        merge: keep what is there and is not listed.
        differ: when a file that is there need not be sent.
        owner: user and group ID for everything; None for the listing's.
        bounds: what is accepted.

    Attributes:
        finished: the sender has said FIN after the receiver did.
    """

    def __init__(
        self,
        destination: str | os.PathLike[str],
        *,
        merge: bool,
        differ: Differ,
        owner: tuple[int, int] | None,
        bounds: ReceiveLimits,
    ) -> None:
        self._destination = os.fsencode(destination)
        self._merge = merge
        self._differ = differ
        self._limits = bounds
        self._validator = Validator()
        #: The path that is worked at, for errors.
        self._at = b""
        self._wanted: dict[int, Arrival] = {}
        #: Files of interest that were not asked for yet, and the number of those that were and are not complete.
        self._unasked: array[int] = array("I")
        self._next = self._asked = 0
        self._open: dict[int, Arrival] = {}
        self._directories: list[tuple[bytes, int, int]] = []
        #: The directories that lead to the last entry, each with the names that were there and not listed so far.
        self._branch: list[tuple[bytes, set[bytes]]] = []
        self._unlisted: list[bytes] = []
        #: Files with several names that were listed already, by device and inode.
        self._linked: set[tuple[int, int]] = set()
        self._listing = self._requested = self._received = self._received_bytes = self._removed = 0
        self._listed = self._settled = False
        self.finished = False
        try:
            self._replica = Replica(destination, owner=owner)
        except OSError as error:
            raise self._failed(error) from error
        try:
            self._enter(b"", there=True)
        except OSError as error:
            self._replica.close()
            raise self._failed(error) from error

    def close(self) -> None:
        """Remove what is incomplete and close what is open."""
        for arrival in self._open.values():
            arrival.discard(self._replica)
        self._open.clear()
        self._replica.close()

    @property
    def complete(self) -> bool:
        """Whether the listing has ended and every file has arrived."""
        return self._listed and not self._wanted

    def report(self) -> ReceiveReport:
        """Return the figures so far."""
        return ReceiveReport(
            entries=self._validator.count,
            requested=self._requested,
            received=self._received,
            received_bytes=self._received_bytes,
            removed=self._removed,
        )

    def take(self, messages: Sequence[bytes]) -> list[bytes]:
        """Apply packets in order; return the requests that follow from them.

        Raises:
            RemoteProtocolError: the sender broke the protocol.
            RpcError: the sender failed.
            OutputError: the tree cannot be written.
        """
        try:
            for message in messages:
                found = split_data(message)
                if found is not None:
                    self._data(found[0], message, found[1])
                else:
                    self._apply(message)
            for arrival in self._open.values():
                self._at = arrival.path
                arrival.write(self._replica)
        except OSError as error:
            raise self._failed(error) from error
        return self._ask()

    def finish(self) -> None:
        """Remove what was not listed and put directories right, once the transfer is complete.

        Raises:
            OutputError: that cannot be done.
        """
        try:
            for path in self._unlisted:
                self._at = path
                self._replica.remove(path)
                self._removed += 1
            while self._directories:
                self._at, mode, mtime = self._directories.pop()
                self._replica.finish_directory(self._at, mode, mtime)
        except OSError as error:
            raise self._failed(error) from error
        self._settled = True

    # -- packets -------------------------------------------------------------------------------------------------------

    def _apply(self, message: bytes) -> None:
        try:
            packet = fsutil_pb2.Packet.FromString(message)
        except DecodeError as error:
            raise RemoteProtocolError("the sender sent something that is no fsutil packet") from error
        kind = packet.type
        if kind == DATA:
            self._data(packet.ID, packet.data, 0)
        elif kind == STAT:
            self._stat(packet, len(message))
        elif kind == FIN:
            if not self._settled:
                raise RemoteProtocolError("the sender ended the transfer before it was complete")
            self.finished = True
        elif kind == ERR:
            words = packet.data.decode("utf-8", "replace")
            raise RpcError(StatusCode.UNKNOWN, f"error from sender: {words}")
        else:
            raise RemoteProtocolError(f"unexpected packet of type {kind}")

    def _stat(self, packet: Packet, size: int) -> None:
        if self._listed:
            raise RemoteProtocolError("another STAT after the end of the listing")
        if not packet.HasField("stat"):
            while self._branch:
                self._leave()
            self._listed = True
            return
        wanted = packet.stat
        path = self._at = wanted.path
        self._listing += size
        bounds = self._limits
        if len(path) > bounds.path:
            raise self._over("path", bounds.path, "bytes")
        if self._listing > bounds.listing:
            raise self._over("listing", bounds.listing, "bytes")
        if self._validator.count >= bounds.entries:
            raise self._over("entries", bounds.entries, "entries")
        self._announced(wanted, path)

    def _data(self, number: int, message: bytes, start: int) -> None:
        arrival = self._wanted.get(number)
        if arrival is None:
            raise RemoteProtocolError(f"invalid file request {number}")
        self._at = arrival.path
        if start < len(message):
            if number not in self._open:
                if len(self._open) >= self._limits.open_files:
                    raise self._over("open_files", self._limits.open_files, "files")
                self._open[number] = arrival
            self._received_bytes += arrival.add(message, start)
            if self._limits.size is not None and self._received_bytes > self._limits.size:
                raise self._over("size", self._limits.size, "bytes")
            return
        self._open[number] = arrival
        arrival.finish(self._replica)
        del self._open[number], self._wanted[number]
        self._received += 1
        self._asked -= 1

    def _ask(self) -> list[bytes]:
        """Return requests for what is wanted next, so many that asking never has to wait for the sender."""
        room = limits.MAX_ASKED_FILES - self._asked
        numbers = self._unasked[self._next : self._next + room]
        self._next += len(numbers)
        if self._next == len(self._unasked):
            self._unasked, self._next = array("I"), 0
        self._asked += len(numbers)
        self._requested += len(numbers)
        return [request_packet(number) for number in numbers]

    # -- entries -------------------------------------------------------------------------------------------------------

    def _announced(self, wanted: Stat, path: bytes) -> None:
        mode, link = wanted.mode, wanted.linkname
        number = self._validator.count
        first = self._validator.check(path, mode, link)
        if mode & modes.DEVICE or wanted.xattrs:
            self._validator.check_attributes(wanted)
        directory, _, name = path.rpartition(b"/")
        while self._branch[-1][0] != directory:
            self._leave()
        self._branch[-1][1].discard(name)
        if mode & modes.DIRECTORY:
            attributes = self._replica.attributes(wanted)
            there = self._replica.make_directory(path, attributes)
            self._directories.append((path, mode, wanted.modTime))
            self._enter(path, there=there)
        elif self._differ is Differ.METADATA and self._is_same(wanted, first):
            return
        elif first is not None:
            self._link(path, link, first)
        elif mode & modes.TYPE:
            self._replica.make_special(wanted)
        else:
            self._wanted[number] = Arrival(path, self._replica.attributes(wanted))
            self._unasked.append(number)

    def _link(self, path: bytes, link: bytes, first: int) -> None:
        arrival = self._wanted.get(first)
        if arrival is not None:
            arrival.links.append(path)
        else:
            self._replica.make_link(path, link, link.rpartition(b"/")[2], None)

    def _is_same(self, wanted: Stat, first: int | None) -> bool:
        found = self._replica.find(wanted.path)
        if found is None or (first is not None and first in self._wanted):
            return False
        identity = (found.st_dev, found.st_ino)
        if first is None and found.st_nlink > 1:
            # Under another name this file was listed before; here the listing has a file of its own.
            if identity in self._linked:
                return False
            self._linked.add(identity)
        mode, _, _, mtime, _ = attributes = self._replica.attributes(wanted)
        if modes.from_posix(found.st_mode) != mode or (found.st_uid, found.st_gid) != attributes[1:3]:
            return False
        if found.st_size != wanted.size or found.st_mtime_ns != mtime:
            return False
        if mode & modes.DEVICE and found.st_rdev != os.makedev(wanted.devmajor, wanted.devminor):
            return False
        if mode & modes.SYMLINK:
            return self._replica.readlink(wanted.path) == wanted.linkname
        if first is None:
            return True
        other = self._replica.find(wanted.linkname)
        return other is not None and (other.st_dev, other.st_ino) == identity

    def _enter(self, path: bytes, *, there: bool) -> None:
        names = self._replica.names(path) if there and not self._merge else set()
        self._branch.append((path, names))

    def _leave(self) -> None:
        """Note what was not listed of the innermost directory, and close it."""
        path, left = self._branch.pop()
        self._unlisted += [path + b"/" + name if path else name for name in sorted(left)]

    # -- errors --------------------------------------------------------------------------------------------------------

    def _place(self) -> str:
        return os.fsdecode(os.path.join(self._destination, self._at) if self._at else self._destination)

    def _over(self, name: str, limit: int, unit: str) -> OutputLimitExceeded:
        place = self._place()
        return OutputLimitExceeded(
            f"{quote(place)} is over a limit of what is received: {name} is {limit} {unit}",
            limit=name,
            value=limit,
            path=place,
        )

    def _failed(self, error: OSError) -> MobysessionError:
        place = self._place()
        words = f"cannot write {quote(place)}: {reason(error)}"
        if error.errno in _FULL:
            return DiskFull(words, path=place, hint="Free some space, or name a directory on another file system.")
        if error.errno in _REPLACED and self._at:
            return OutputError(
                f"{quote(place)} was replaced while it was being written: {reason(error)}",
                path=place,
                hint="Leave the directory alone while an output is written to it.",
            )
        return OutputError(words, path=place)

"""The receiver of DiffCopy: make a directory equal to what the sender lists, asking for the files that differ.

Every STAT is checked, compared with what is there, and applied at once; a file that differs is made empty and asked
for. What is there and was not listed is removed when its directory is done, unless the trees are merged. When the
listing has ended and every file asked for has arrived, the times of directories are put right and FIN is exchanged.

Source: tonistiigi/fsutil receive.go.
"""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from google.protobuf.message import DecodeError

from mobysession._pb import fsutil_pb2
from mobysession.errors import MobysessionError, RemoteProtocolError, RpcError, StatusCode
from mobysession.filesync import modes
from mobysession.filesync.naming import quote, reason
from mobysession.filesync.packets import DATA, ERR, FIN, FIN_PACKET, STAT, error_packet, request_packet
from mobysession.filesync.replica import Replica
from mobysession.filesync.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession._pb.fsutil_pb2 import Packet, Stat
    from mobysession.filesync.sender import PacketStream

__all__ = ["Differ", "ReceiveReport", "receive_tree"]

#: Seconds for the ERR packet to leave when receiving fails.
_FAREWELL = 2.0
#: Files that may arrive interleaved; Go's sender sends four at a time.
_MAX_OPEN = 64


class Differ(enum.Enum):
    """When a file that is there already counts as the same."""

    #: Never: every file is asked for.
    NONE = "none"
    #: When its metadata are the same.
    METADATA = "metadata"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiveReport:
    """What was received.

    Attributes:
        entries: entries listed.
        requested: files asked for.
        received_bytes: their content.
        removed: entries removed because they were not listed; one for a directory with all below it.
    """

    entries: int = 0
    requested: int = 0
    received_bytes: int = 0
    removed: int = 0


async def receive_tree(
    stream: PacketStream,
    destination: str | os.PathLike[str],
    *,
    merge: bool = False,
    differ: Differ = Differ.METADATA,
    owner: tuple[int, int] | None = None,
) -> ReceiveReport:
    """Receive a tree into ``destination``.

    Args:
        stream: the call; after the answering FIN nothing more is read from it.
        destination: an existing directory.
        merge: keep what is there and is not listed.
        differ: when a file that is there need not be sent.
        owner: user and group ID for everything; None for the listing's, or for our own where we are not root.

    Raises:
        RemoteProtocolError: the sender broke the protocol.
        RpcError: the sender failed; its words are in the message.
        OSError: the destination cannot be written; the user must act. The sender was told, as with the first.

    Cancel: what arrived stays; unfinished files will differ and be asked for the next time.
    """
    if owner is None and os.geteuid() != 0:
        owner = (os.geteuid(), os.getegid())
    receiving = await trio.to_thread.run_sync(_Receiving, destination, merge, differ, owner)
    try:
        return await _receive(stream, receiving)
    except (RemoteProtocolError, OSError) as error:
        text = error.message if isinstance(error, MobysessionError) else _words(error)
        with trio.move_on_after(_FAREWELL):
            await stream.send_batch([error_packet(text)])
        raise
    finally:
        receiving.close()


async def _receive(stream: PacketStream, receiving: _Receiving) -> ReceiveReport:
    said = False
    while messages := await stream.receive_batch():
        requests = await trio.to_thread.run_sync(receiving.take, messages)
        if requests:
            await stream.send_batch(requests)
        if receiving.complete and not said:
            said = True
            await stream.send_batch([FIN_PACKET])
        if receiving.finished:
            return receiving.report()
    raise RemoteProtocolError("the sender ended the transfer before it was complete")


def _words(error: OSError) -> str:
    name = error.filename if isinstance(error.filename, (bytes, str)) else b"."
    return f"cannot write {quote(name)}: {reason(error)}"


class _Receiving:
    """The state of one transfer; all but the properties is used in worker threads, one at a time."""

    def __init__(
        self, destination: str | os.PathLike[str], merge: bool, differ: Differ, owner: tuple[int, int] | None
    ) -> None:
        self._replica = Replica(destination, owner=owner)
        self._merge = merge
        self._differ = differ
        self._validator = Validator()
        self._entries = self._requested = self._received_bytes = self._removed = 0
        self._wanted: dict[int, Stat] = {}
        self._open: dict[int, int] = {}
        self._directories: list[Stat] = []
        #: The directories that lead to the last entry, each with the names that were there and not listed so far.
        self._branch: list[tuple[bytes, set[bytes]]] = []
        #: Files with several names that were listed already, by device and inode.
        self._linked: set[tuple[int, int]] = set()
        self._listed = False
        self.complete = False
        self.finished = False
        self._enter(b"", there=True)

    def close(self) -> None:
        """Close what is open."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        self._replica.close()

    def report(self) -> ReceiveReport:
        """Return the figures."""
        return ReceiveReport(
            entries=self._entries,
            requested=self._requested,
            received_bytes=self._received_bytes,
            removed=self._removed,
        )

    def take(self, messages: Sequence[bytes]) -> list[bytes]:
        """Apply packets in order; return the requests that follow from them."""
        requests: list[bytes] = []
        for message in messages:
            try:
                packet = fsutil_pb2.Packet.FromString(message)
            except DecodeError as error:
                raise RemoteProtocolError("the sender sent something that is no fsutil packet") from error
            self._apply(packet, requests)
        if self._listed and not self._wanted and not self.complete:
            for directory in reversed(self._directories):
                self._replica.finish(directory)
            self.complete = True
        return requests

    def _apply(self, packet: Packet, requests: list[bytes]) -> None:
        if packet.type == STAT:
            if self._listed:
                raise RemoteProtocolError("another STAT after the end of the listing")
            if packet.HasField("stat"):
                self._announced(packet.stat, requests)
            else:
                self._leave(b"")
                self._sweep()
                self._listed = True
        elif packet.type == DATA:
            self._data(packet.ID, packet.data)
        elif packet.type == FIN:
            if not self.complete:
                raise RemoteProtocolError("the sender ended the transfer before it was complete")
            self.finished = True
        elif packet.type == ERR:
            words = packet.data.decode("utf-8", "replace")
            raise RpcError(StatusCode.UNKNOWN, f"error from sender: {words}")
        else:
            raise RemoteProtocolError(f"unexpected packet of type {packet.type}")

    def _announced(self, wanted: Stat, requests: list[bytes]) -> None:
        entry_id = self._entries
        self._entries += 1
        path = wanted.path
        self._validator.check(path, wanted.mode, wanted.linkname)
        directory, _, name = path.rpartition(b"/")
        self._leave(directory)
        self._branch[-1][1].discard(name)
        found = self._replica.find(path)
        same = self._is_same(found, wanted)
        if not same:
            self._replica.make(wanted, found)
        if wanted.mode & modes.DIRECTORY:
            self._directories.append(wanted)
            self._enter(path, there=found is not None)
        elif not same and not wanted.mode & modes.TYPE and not wanted.linkname:
            self._wanted[entry_id] = wanted
            self._requested += 1
            requests.append(request_packet(entry_id))

    def _is_same(self, found: os.stat_result | None, wanted: Stat) -> bool:
        if found is None:
            return False
        if found.st_nlink > 1 and not wanted.linkname and not wanted.mode & modes.DIRECTORY:
            # Under another name this file was listed before; here the listing has a file of its own.
            identity = (found.st_dev, found.st_ino)
            if identity in self._linked:
                return False
            self._linked.add(identity)
        if self._differ is Differ.NONE and not wanted.mode & modes.DIRECTORY:
            return False
        return self._replica.same(found, wanted)

    def _data(self, entry_id: int, data: bytes) -> None:
        wanted = self._wanted.get(entry_id)
        if wanted is None:
            raise RemoteProtocolError(f"invalid file request {entry_id}")
        descriptor = self._open.get(entry_id)
        if data:
            if descriptor is None:
                if len(self._open) >= _MAX_OPEN:
                    raise RemoteProtocolError(f"more than {_MAX_OPEN} files sent at once")
                descriptor = self._open[entry_id] = self._replica.writer(wanted.path)
            self._received_bytes += len(data)
            _write_all(descriptor, data)
            return
        if descriptor is not None:
            os.close(self._open.pop(entry_id))
        del self._wanted[entry_id]
        self._replica.finish(wanted)

    def _enter(self, path: bytes, *, there: bool) -> None:
        names = self._replica.names(path) if there and not self._merge else set()
        self._branch.append((path, names))

    def _leave(self, directory: bytes) -> None:
        """Close the directories that do not lead to ``directory``."""
        while (path := self._branch[-1][0]) and path != directory and not directory.startswith(path + b"/"):
            self._sweep()

    def _sweep(self) -> None:
        """Remove what was not listed of the innermost directory, and close it."""
        path, left = self._branch.pop()
        for name in left:
            self._replica.remove(path + b"/" + name if path else name)
            self._removed += 1


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]

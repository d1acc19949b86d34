"""The daemon's part of DiffCopy: a tree received into a directory.

The sender announces entries with STATs, in order; every regular file that is no hard link is asked for with a REQ
that names its position, as soon as it was announced; DATA fills it, and an empty DATA ends it. When the listing has
ended and every file is there, the receiver says FIN and waits for the other's FIN. It believes nothing: entries out
of order, below something that is no directory, or above the root end the transfer.

Ownership is noted and not applied, device files neither: both need root, and no test of a sender needs them on a disk.

Source: tonistiigi/fsutil receive.go, validator.go, diskwriter.go.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final

from mobysession._pb import fsutil_pb2
from mobysession.errors import RemoteProtocolError, RpcError, StatusCode
from mobysession.filesync import modes, packets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["ReceivedEntry", "ReceivedTree", "TreeReceiver"]

_OWNER_WRITES: Final = 0o200


@dataclass(frozen=True)
class ReceivedEntry:
    """One announced entry.

    ``mode`` is Go's, ``mtime`` nanoseconds, ``link`` a symlink's target or a hard link's first path.
    """

    path: str
    mode: int
    size: int
    mtime: int
    uid: int = 0
    gid: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        """Whether entries may lie below it."""
        return bool(self.mode & modes.DIRECTORY)

    @property
    def is_requestable(self) -> bool:
        """Whether it has content to ask for; both sides use this test."""
        return not self.mode & modes.TYPE


@dataclass
class ReceivedTree:
    """What a transfer brought.

    Attributes:
        root: the directory it was written to.
        entries: by path, in the order of their announcement.
        requested: the paths that were asked for, in order.
        size: bytes of all packets, the last FIN included, which is what engines show as progress.
    """

    root: Path
    entries: dict[str, ReceivedEntry] = field(default_factory=dict)
    requested: list[str] = field(default_factory=list)
    size: int = 0

    def digest(self) -> str:
        """Return SHA-256 over paths, modes, links and contents, as ``sha256:<hex>``; blocking."""
        total = hashlib.sha256()
        for entry in self.entries.values():
            total.update(f"{entry.path}\0{entry.mode}\0{entry.link}\0".encode("utf-8", "surrogateescape"))
            if entry.is_requestable:
                with (self.root / entry.path).open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
        return f"sha256:{total.hexdigest()}"


class TreeReceiver:
    """The receiver as a machine: packets in, packets out, files written in between. Everything here may block.

    Args:
        root: existing directory; what is in it stays, unless an entry of the same path arrives.
        wanted: tells whether the content of an entry is asked for; None: always.
    """

    def __init__(self, root: Path, wanted: Callable[[ReceivedEntry], bool] | None = None) -> None:
        self.tree = ReceivedTree(root)
        #: Both sides have said FIN.
        self.finished = False
        self._wanted = wanted
        self._next_id = 0
        self._listed = False
        self._said_fin = False
        self._branch: list[tuple[str, bytes]] = [("", b"")]
        self._outstanding: dict[int, ReceivedEntry] = {}
        self._files: dict[int, BinaryIO] = {}

    def take(self, messages: Sequence[bytes]) -> list[bytes]:
        """Take packets and return the ones to answer.

        Raises:
            RemoteProtocolError: the sender broke a rule.
            RpcError: the sender gave up, and said why.
        """
        answers: list[bytes] = []
        for message in messages:
            packet = fsutil_pb2.Packet.FromString(message)
            self.tree.size += len(message)
            self._take_one(packet, answers)
        if self._listed and not self._outstanding and not self._said_fin:
            self._said_fin = True
            self._settle_directories()
            answers.append(packets.FIN_PACKET)
        return answers

    def close(self) -> None:
        """Close what is still open."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _take_one(self, packet: fsutil_pb2.Packet, answers: list[bytes]) -> None:
        if self.finished:
            return  # the reference ignores what follows the FIN
        if packet.type == packets.STAT:
            if not packet.HasField("stat"):
                self._listed = True
            else:
                self._announce(packet.stat, answers)
        elif packet.type == packets.DATA:
            self._fill(packet.ID, packet.data)
        elif packet.type == packets.FIN:
            if not self._said_fin:
                raise RemoteProtocolError("the sender said FIN before the receiver did")
            self.finished = True
        elif packet.type == packets.ERR:
            raise RpcError(StatusCode.UNKNOWN, f"error from sender: {packet.data.decode('utf-8', 'replace')}")
        else:
            raise RemoteProtocolError(f"a sender sends no packet of type {packet.type}")

    # -- entries -------------------------------------------------------------------------------------------------------

    def _announce(self, stat: fsutil_pb2.Stat, answers: list[bytes]) -> None:
        if self._listed:
            raise RemoteProtocolError("an entry after the end of the listing")
        entry = _entry(stat)
        self._check_order(entry)
        entry_id, self._next_id = self._next_id, self._next_id + 1
        self.tree.entries[entry.path] = entry
        wanted = entry.is_requestable and not entry.link and (self._wanted is None or self._wanted(entry))
        self._create(entry, empty=wanted)
        if wanted:
            self._outstanding[entry_id] = entry
            self.tree.requested.append(entry.path)
            answers.append(fsutil_pb2.Packet(type=fsutil_pb2.Packet.PACKET_REQ, ID=entry_id).SerializeToString())

    def _check_order(self, entry: ReceivedEntry) -> None:
        path = entry.path
        if path.startswith("/") or path in ("", ".", "..") or "\0" in path or path != os.path.normpath(path):
            raise RemoteProtocolError(f"unclean path {path!r}")
        if path.startswith("../"):
            raise RemoteProtocolError(f"{path!r} leads out of the root")
        directory, _, name = path.rpartition("/")
        base = os.fsencode(name)
        while self._branch and self._branch[-1][0] != directory:
            self._branch.pop()
        if not self._branch or base <= self._branch[-1][1]:
            previous = next(reversed(self.tree.entries), "")
            raise RemoteProtocolError(f'changes out of order: "{path}" "{previous}"')
        self._branch[-1] = (directory, base)
        if entry.is_directory:
            self._branch.append((path, b""))
        if entry.link and entry.is_requestable:
            target = self.tree.entries.get(entry.link)
            if target is None or not target.is_requestable or target.link:
                raise RemoteProtocolError(f'invalid link {path} to unknown path: "{entry.link}"')

    def _create(self, entry: ReceivedEntry, *, empty: bool) -> None:
        path = self.tree.root / entry.path
        if entry.is_directory:
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
                path.mkdir()
            path.chmod(modes.permissions_to_posix(entry.mode) | 0o700)
            return
        if path.is_symlink() or path.is_file():
            if not (empty or entry.link) and entry.is_requestable:
                return  # as it was: not asked for
            path.unlink()
        if entry.mode & modes.SYMLINK:
            path.symlink_to(entry.link)
        elif entry.mode & modes.NAMED_PIPE:
            os.mkfifo(path, modes.permissions_to_posix(entry.mode))
        elif entry.is_requestable and entry.link:
            path.hardlink_to(self.tree.root / entry.link)
        elif entry.is_requestable:
            path.touch()

    # -- contents ------------------------------------------------------------------------------------------------------

    def _fill(self, entry_id: int, data: bytes) -> None:
        entry = self._outstanding.get(entry_id)
        if entry is None:
            raise RemoteProtocolError(f"invalid file request {entry_id}")
        path = self.tree.root / entry.path
        if not data:
            file = self._files.pop(entry_id, None)
            if file is not None:
                file.close()
            del self._outstanding[entry_id]
            path.chmod(modes.permissions_to_posix(entry.mode))
            os.utime(path, ns=(entry.mtime, entry.mtime))
            return
        if entry_id not in self._files:
            self._files[entry_id] = path.open("wb")
        self._files[entry_id].write(data)

    def _settle_directories(self) -> None:
        for entry in reversed(self.tree.entries.values()):
            if entry.is_directory:
                path = self.tree.root / entry.path
                path.chmod(modes.permissions_to_posix(entry.mode) | _OWNER_WRITES)
                os.utime(path, ns=(entry.mtime, entry.mtime))


def _entry(stat: fsutil_pb2.Stat) -> ReceivedEntry:
    return ReceivedEntry(
        path=_text(stat.path),
        mode=stat.mode,
        size=stat.size,
        mtime=stat.modTime,
        uid=stat.uid,
        gid=stat.gid,
        link=_text(stat.linkname),
        device=(stat.devmajor, stat.devminor),
        xattrs=dict(stat.xattrs),
    )


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else os.fsdecode(value)

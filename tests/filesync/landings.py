"""What the tests of the receiving half share: packets by hand, a landing, and what a directory holds."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from mobysession._pb.fsutil_pb2 import Packet, Stat
from mobysession.filesync.landing import Landing
from mobysession.filesync.terms import Differ, ReceiveLimits

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["DIR", "END", "LINK", "MTIME", "data", "entry", "feed", "open_landing", "snapshot", "whole"]

DIR = 0x8000_01ED
LINK = 0x0800_01FF
MTIME = 1_600_000_000_000_000_001
END = b""

#: What is at a path: type and permissions, modification time, content or target, and the first path of the same file.
Seen = tuple[int, int, object, str]


def entry(path: bytes, mode: int = 0o644, **rest: Any) -> bytes:
    """Return a STAT."""
    return Packet(stat=Stat(path=path, mode=mode, modTime=rest.pop("mtime", MTIME), **rest)).SerializeToString()


def data(number: int, content: bytes = b"") -> bytes:
    """Return a DATA; without content it ends the file."""
    return Packet(type=Packet.PACKET_DATA, ID=number, data=content).SerializeToString()


def whole(number: int, content: bytes) -> list[bytes]:
    """Return a file in one piece, and its end."""
    return [data(number, content), data(number)]


def open_landing(root: Path, **options: Any) -> Landing:
    """Return a landing as for an output, unless the options say otherwise."""
    options = {
        "merge": True,
        "differ": Differ.NONE,
        "owner": (os.geteuid(), os.getegid()),
        "bounds": ReceiveLimits(),
        **options,
    }
    return Landing(root, **options)


def feed(root: Path, *messages: bytes, **options: Any) -> list[int]:
    """Receive a whole transfer; return the numbers that were asked for."""
    landing = open_landing(root, **options)
    try:
        requests = landing.take(messages)
        assert landing.complete
        landing.finish()
    finally:
        landing.close()
    return [Packet.FromString(request).ID for request in requests]


def snapshot(root: Path, ignoring: Iterable[str] = ()) -> dict[str, Seen]:
    """Return everything that a transfer keeps of a tree."""
    found: dict[str, Seen] = {}
    firsts: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        info = path.lstat()
        content: object = None
        if stat.S_ISLNK(info.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(info.st_mode):
            content = path.read_bytes()
        first = name if stat.S_ISDIR(info.st_mode) else firsts.setdefault(info.st_ino, name)
        if name not in ignoring:
            found[name] = (info.st_mode, info.st_mtime_ns, content, first)
    return found

"""A regular file of this machine, opened to be sent: read at once where it is small, in chunks where it is large."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from mobysession import limits
from mobysession.filesync.naming import changed

if TYPE_CHECKING:
    from mobysession.filesync.source import Content

__all__ = ["DiskFile", "OPEN_FLAGS", "read_or_keep"]

#: Never waits, as for the other end of a pipe, and never follows a link.
OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Files up to this size are read in one go; larger ones in chunks that need not be copied.
_SMALL: Final = 128 * limits.KIB
#: Bytes read at once from a file of size 0; nearly all of them are just empty.
_UNSIZED_READ: Final = 4096
#: And how often: 64 MiB, so that a file that never ends does.
_UNSIZED_READS: Final = 16384


def read_or_keep(descriptor: int, path: bytes) -> bytes | Content:
    """Return the content of an open file, which is closed then, or the file itself where it is large.

    Raises:
        OSError: it cannot be read.
        ContextError: it is not a regular file; it is said to have changed, at ``path``.
    """
    keep = False
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise changed(path, "was replaced by something that is not a file")
        size = found.st_size
        keep = size > _SMALL
        if keep:
            return DiskFile(descriptor, size)
        return os.read(descriptor, size) if size else _read_unsized(descriptor)
    finally:
        if not keep:
            os.close(descriptor)


def _read_unsized(descriptor: int) -> bytes:
    """Read a file of size 0: an empty one, or one that does not say its size, as in /proc."""
    parts: list[bytes] = []
    while len(parts) < _UNSIZED_READS and (data := os.read(descriptor, _UNSIZED_READ)):
        parts.append(data)
    return b"".join(parts)


class DiskFile:
    """A regular file, read up to the size it had when it was opened.

    The bound ends the reading of a file that somebody appends to faster than it can be sent.
    """

    __slots__ = ("_descriptor", "_left")

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._left = size

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` and return how many bytes that were."""
        if not self._left:
            return 0
        count = os.readv(self._descriptor, [buffer[: self._left]])
        self._left -= count
        return count

    def close(self) -> None:
        """Close the descriptor; more than once does no harm."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

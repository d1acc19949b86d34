"""Files that were asked for: written under another name as their content comes, and moved into place when complete.

Pieces of several files may come interleaved. What comes in one batch is written with one call for each file, and
blocks of zeros are left out, so that a sparse file stays one. A hard link to a file that is still coming waits for it.
Most files are small and come whole: those are made in one go, when their end is there.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mobysession import limits
from mobysession.filesync.replica import finish_file

if TYPE_CHECKING:
    from mobysession.filesync.replica import Attributes, Replica

__all__ = ["Arrival"]

#: A block of zeros that is a multiple of this is left out: the block size of most file systems.
_BLOCK: Final = 4096
#: Buffers handed to one writev; Linux takes 1024.
_MOST_BUFFERS: Final = 1024


class Arrival:
    """One file that was asked for.

    Args:
        path: where it belongs.
        attributes: what it is given in the end.

    Attributes:
        links: further paths that it will have.
        descriptor: of the file that is written; -1 while there is none.
    """

    __slots__ = ("_made", "_queued", "_sparse_end", "attributes", "descriptor", "links", "path")

    def __init__(self, path: bytes, attributes: Attributes) -> None:
        self.path = path
        self.attributes = attributes
        self.links: list[bytes] = []
        self.descriptor = -1
        self._made = b""
        self._queued: list[memoryview | bytes | int] = []
        #: The file ends in a hole, which only its length tells.
        self._sparse_end = False

    def add(self, message: bytes, start: int) -> int:
        """Queue the bytes of ``message`` from ``start`` on; return how many that is."""
        size = len(message) - start
        if not size % _BLOCK and size <= limits.MIB and message.endswith(_zeros(size)):
            self._queued.append(size)
        else:
            self._queued.append(memoryview(message)[start:] if start else message)
        return size

    def write(self, replica: Replica) -> None:
        """Write what is queued, to a file that is created for it where there is none yet."""
        if self.descriptor < 0:
            self.descriptor, self._made = replica.create(self.path)
        queued, self._queued = self._queued, []
        buffers: list[memoryview | bytes] = []
        for item in queued:
            if isinstance(item, int):
                _write(self.descriptor, buffers)
                os.lseek(self.descriptor, item, os.SEEK_CUR)
                self._sparse_end = True
            else:
                buffers.append(item)
                self._sparse_end = False
                if len(buffers) == _MOST_BUFFERS:
                    _write(self.descriptor, buffers)
        _write(self.descriptor, buffers)

    def finish(self, replica: Replica) -> None:
        """Write what is queued, give the file its attributes and move it into place, under all its names."""
        if self.descriptor < 0 and not self.links:
            content = self._whole()
            if content is not None:
                replica.make_file(self.path, content, self.attributes)
                return
        if self._queued or self.descriptor < 0:
            self.write(replica)
        if self._sparse_end:
            os.ftruncate(self.descriptor, os.lseek(self.descriptor, 0, os.SEEK_CUR))
        finish_file(self.descriptor, self.attributes)
        identity = None
        if self.links:
            found = os.fstat(self.descriptor)
            identity = (found.st_dev, found.st_ino)
        descriptor, self.descriptor = self.descriptor, -1
        # Some network file systems tell only here that the disk is full.
        os.close(descriptor)
        for path in self.links:
            replica.make_link(path, self.path, self._made, identity)
        replica.publish(self.path, self._made)
        self._made = b""

    def _whole(self) -> bytes | memoryview | None:
        """Return all of the content where it is in one piece, as that of most files is."""
        queued = self._queued
        if not queued:
            return b""
        piece = queued[0]
        return None if len(queued) > 1 or isinstance(piece, int) else piece

    def discard(self, replica: Replica) -> None:
        """Remove what came so far."""
        self._queued.clear()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        if self._made:
            replica.discard(self.path, self._made)
            self._made = b""


def _write(descriptor: int, buffers: list[memoryview | bytes]) -> None:
    """Write all of ``buffers`` and empty the list."""
    while buffers:
        written = os.write(descriptor, buffers[0]) if len(buffers) == 1 else os.writev(descriptor, buffers)
        while buffers and written >= len(buffers[0]):
            written -= len(buffers.pop(0))
        if written:
            buffers[0] = memoryview(buffers[0])[written:]


@lru_cache(maxsize=8)
def _zeros(size: int) -> bytes:
    return bytes(size)

"""Where a recording is kept while it is made: in memory, and what comes before in a temporary file without a name.

Who records is called in the loop and cannot wait. Records therefore wait in memory until there is a batch, which a
worker thread appends to the file. Nothing in here is hidden yet, for a value may become known as a secret later: the
file has no name, is nobody else's, and is gone with the process.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import weakref
from dataclasses import replace
from typing import IO, TYPE_CHECKING

import trio

from mobysession import limits
from mobysession.recording import Frame, Message, decode_record, encode_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.recording import Record

__all__ = ["Spool"]

_log = logging.getLogger("mobysession.session")
#: Bytes that a record takes beside its body; ours, and roughly what Python needs.
_RECORD = 512


class Spool:
    """Records in order; safe to be read by other threads while it grows.

    Args:
        memory: bytes of records that stay in memory.
        behind: bytes that may wait for the file before bodies are left out.
    """

    def __init__(self, memory: int = limits.RECORDING_MEMORY, behind: int = limits.RECORDING_BEHIND) -> None:
        self._memory = memory
        self._behind = behind
        self._lock = threading.Lock()
        self._waiting: list[Record] = []
        self._size = 0
        self._file: IO[bytes] | None = None
        self._end = 0
        self._full: trio.Event | None = None
        self._is_broken = False
        self._is_over = False

    @property
    def in_memory(self) -> int:
        """Bytes of the records that are in memory, roughly."""
        return self._size

    def add(self, record: Record) -> bool:
        """Append a record; False where it, or its body, had to be left out."""
        if self._is_broken:
            return False
        whole = True
        size = _size(record)
        if size and self._size + size > self._behind:
            bare = {"body": None} if isinstance(record, Message) else {"payload": None}
            record, whole, size = replace(record, **bare), False, 0  # type: ignore[arg-type]  # the field its class has
        self._size += size + _RECORD
        self._waiting.append(record)
        if self._size > self._memory and self._full is not None:
            self._full.set()
        return whole

    def finish(self) -> None:
        """Let `keep_writing` end: nothing more will come."""
        self._is_over = True
        if self._full is not None:
            self._full.set()

    async def keep_writing(self) -> None:
        """Write what is too much for the memory into the file, until cancelled; what waits then stays in memory.

        Where that is impossible, nothing more is kept from then on.
        """
        self._full = trio.Event()
        while not (self._is_broken or self._is_over):
            if self._size <= self._memory:
                self._full = trio.Event()
                await self._full.wait()
                continue
            count, size = len(self._waiting), self._size
            with trio.CancelScope(shield=True):
                try:
                    end = await trio.to_thread.run_sync(self._write, self._waiting[:count])
                except OSError as error:
                    _log.warning("the recording ends here, for it cannot be kept: %s", error.strerror)
                    self._is_broken = True
                    return
            with self._lock:
                del self._waiting[:count]
                self._size -= size
                self._end = end

    def _write(self, batch: list[Record]) -> int:
        lines = b"".join(map(encode_record, batch))
        with self._lock:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="mobysession-recording-")  # noqa: SIM115  # open as long as the spool
                weakref.finalize(self, self._file.close)
            self._file.seek(self._end)
            self._file.write(lines)
            self._file.flush()
            return self._end + len(lines)

    def __iter__(self) -> Iterator[Record]:
        """Yield the records that there are now, in order; blocks."""
        with self._lock:
            end, waiting = self._end, list(self._waiting)
        at, rest = 0, b""
        while at < end:
            with self._lock:
                assert self._file is not None
                self._file.seek(at)
                piece = self._file.read(min(limits.MIB, end - at))
            at += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                record = decode_record(line)
                assert record is not None
                yield record
        yield from waiting


def _size(record: Record) -> int:
    if isinstance(record, Message):
        return len(record.body or b"")
    return len(record.payload or b"") if isinstance(record, Frame) else 0

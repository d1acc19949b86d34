"""Where an output that is one stream of bytes goes: a file, an open file object, or a trio stream.

A file by its path appears complete or stays as it was: it is written beside itself and moved into place at the end. A
device or a pipe, such as ``/dev/stdout``, is written to as it is. What is written to an object of the caller's is
flushed, and closed only if it was made for this output. Disk and objects are touched in worker threads only.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, runtime_checkable

import trio

from mobysession.errors import DiskFull, MobysessionError, OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FileSink", "ObjectSink", "Sink", "StreamSink", "Writable", "Writer", "open_sink"]

_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
#: Buffers handed to one writev; Linux takes 1024.
_MOST_BUFFERS: Final = 1024


@runtime_checkable
class Writer(Protocol):
    """A binary file object: anything with ``write``. ``flush`` and ``close`` are called where they are there."""

    def write(self, data: bytes, /) -> Any:
        """Write bytes; return how many, or None for all."""


#: What a stream of bytes can be written to.
Writable: TypeAlias = str | os.PathLike[str] | Writer | trio.abc.SendStream


class Sink(Protocol):
    """One output on its way. After `write` any number of times, `finish` or `discard` ends it."""

    #: The file it becomes, where it becomes one.
    path: str | None

    async def write(self, chunks: Sequence[memoryview]) -> None:
        """Write all of ``chunks``; raises OutputError."""
        ...

    async def finish(self) -> None:
        """Make it complete and durable enough to say so; raises OutputError."""
        ...

    async def discard(self) -> None:
        """Give it up; what was there before stays where that is possible. Never raises."""
        ...


async def open_sink(to: object, *, close: bool, name: str = "the output") -> Sink:
    """Open what ``to`` stands for.

    Args:
        to: a path, a `Writer` or a trio stream.
        close: whether an object is closed in the end.
        name: what errors call an output that has no path.

    Raises:
        OutputError: the file cannot be written.
        UsageError: it is none of these.
    """
    if isinstance(to, trio.abc.SendStream):
        return StreamSink(to, close=close, name=name)
    if isinstance(to, str | os.PathLike):
        path = os.fspath(to)
        return await trio.to_thread.run_sync(FileSink, path)
    if isinstance(to, io.TextIOBase) or not isinstance(to, Writer):
        raise UsageError(f"{name} cannot be written to {type(to).__name__}")
    return ObjectSink(to, close=close, name=name)


class FileSink:
    """A file by its path; made in a worker thread."""

    def __init__(self, path: str) -> None:
        self.path: str | None = path
        self._made = ""
        try:
            self._target = os.path.realpath(path)
            self._descriptor = self._open()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise cannot_write(path, error) from error

    async def write(self, chunks: Sequence[memoryview]) -> None:
        """Append ``chunks``."""
        await self._in_thread(self._write, list(chunks))

    async def finish(self) -> None:
        """Close the file and move it into place."""
        await self._in_thread(self._finish)

    async def discard(self) -> None:
        """Remove what was written."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._discard)

    async def _in_thread(self, function: Any, *arguments: Any) -> None:
        try:
            await trio.to_thread.run_sync(function, *arguments)
        except OSError as error:
            raise cannot_write(self.path or "", error) from error

    def _open(self) -> int:
        mode = None
        with contextlib.suppress(FileNotFoundError):
            mode = os.stat(self._target).st_mode
        if mode is not None and not stat.S_ISREG(mode):
            return os.open(self._target, os.O_WRONLY | os.O_CLOEXEC)
        folder, name = os.path.split(self._target)
        # A name as long as the file system takes leaves no room for more.
        made = os.path.join(folder, f".{name[:200]}.tmp-{secrets.token_hex(6)}")
        descriptor = os.open(made, _CREATE, 0o666)
        self._made = made
        if mode is not None:
            os.fchmod(descriptor, stat.S_IMODE(mode))
        return descriptor

    def _write(self, buffers: list[memoryview]) -> None:
        start = 0
        while start < len(buffers):
            written = os.writev(self._descriptor, buffers[start : start + _MOST_BUFFERS])
            while start < len(buffers) and written >= len(buffers[start]):
                written -= len(buffers[start])
                start += 1
            if written:
                buffers[start] = buffers[start][written:]

    def _finish(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
        if self._made:
            os.replace(self._made, self._target)
            self._made = ""

    def _discard(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
        if self._made:
            with contextlib.suppress(OSError):
                os.unlink(self._made)
            self._made = ""


class ObjectSink:
    """A file object of the caller's."""

    path: str | None = None

    def __init__(self, writer: Writer, *, close: bool, name: str) -> None:
        self._writer = writer
        self._close = close
        self._name = name

    async def write(self, chunks: Sequence[memoryview]) -> None:
        """Write ``chunks`` as one piece."""
        await self._in_thread(self._write, b"".join(chunks))

    async def finish(self) -> None:
        """Flush the object, and close it where it was made for this."""
        await self._in_thread(self._finish)

    async def discard(self) -> None:
        """Close the object where it was made for this."""
        with trio.CancelScope(shield=True), contextlib.suppress(OutputError):
            await self._in_thread(self._closed)

    async def _in_thread(self, function: Any, *arguments: Any) -> None:
        try:
            await trio.to_thread.run_sync(function, *arguments)
        except MobysessionError:
            raise
        except Exception as error:  # of any kind: the object is not ours
            raise cannot_write(self._name, error, is_path=False) from error

    def _write(self, data: bytes) -> None:
        while data:
            # An unbuffered file may take less, and says so; others return None, or what they like.
            written = self._writer.write(data)
            if written is None and isinstance(self._writer, io.RawIOBase):
                raise BlockingIOError(errno.EAGAIN, "it does not block")
            if not isinstance(written, int) or written >= len(data):
                return
            if written <= 0:
                raise OSError(errno.EIO, "its write() takes nothing")
            data = data[written:]

    def _finish(self) -> None:
        flush = getattr(self._writer, "flush", None)
        if flush is not None:
            flush()
        self._closed()

    def _closed(self) -> None:
        close = getattr(self._writer, "close", None) if self._close else None
        if close is not None:
            close()


class StreamSink:
    """A trio stream, such as the stdin of a process."""

    path: str | None = None

    def __init__(self, stream: trio.abc.SendStream, *, close: bool, name: str) -> None:
        self._stream = stream
        self._close = close
        self._name = name

    async def write(self, chunks: Sequence[memoryview]) -> None:
        """Send ``chunks``."""
        try:
            for chunk in chunks:
                await self._stream.send_all(chunk)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise cannot_write(self._name, error, is_path=False) from error

    async def finish(self) -> None:
        """Close the stream where it was made for this."""
        if self._close:
            await self._stream.aclose()

    async def discard(self) -> None:
        """Break the stream off where it was made for this."""
        if self._close:
            await trio.aclose_forcefully(self._stream)


def cannot_write(what: str, error: Exception, *, is_path: bool = True) -> OutputError:
    """Return the error of an output that cannot be written: ``what`` is its path, or what it is called."""
    shown = repr(what) if is_path else what
    path = what if is_path else None
    if not isinstance(error, OSError):
        # The words of a stranger's exception may hold anything.
        why = str(error) if is_path else type(error).__name__
        return OutputError(f"{shown} cannot be written: {why}", path=path)
    words = f"{shown} cannot be written: {(error.strerror or type(error).__name__).lower()}"
    if error.errno in _FULL:
        return DiskFull(words, path=path, hint="Free some space, or name a file on another file system.")
    return OutputError(words, path=path)

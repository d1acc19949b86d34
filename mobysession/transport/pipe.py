"""``npipe://``: a named pipe of Windows, on which Docker Desktop and the daemon listen there.

A pipe whose places are all taken is busy for a moment, and is asked again, as go-winio does. What trio knows of Windows
is how to wait for a read or a write of a handle that was opened for it ("overlapped"); the rest is four calls of
Windows, behind `PipePort`, so that all that is not Windows can be tested anywhere.

Proved only as far as that interface: no Windows was at hand.
(microsoft/go-winio pipe.go)
"""

from __future__ import annotations

import importlib
import operator
import os
from typing import Final, Protocol

import trio

from mobysession import limits
from mobysession.errors import ConnectError

__all__ = ["PipePort", "PipeStream", "dial_pipe"]

_NOT_FOUND: Final = 2  # ERROR_FILE_NOT_FOUND
_DENIED: Final = 5  # ERROR_ACCESS_DENIED
_BROKEN: Final = frozenset({109, 232, 233})  # ERROR_BROKEN_PIPE, NO_DATA, PIPE_NOT_CONNECTED
_BUSY: Final = 231  # ERROR_PIPE_BUSY
_BUSY_PAUSE: Final = 0.01  # seconds, as go-winio


class PipePort(Protocol):
    """What Windows does. Its failures are OSErrors with a ``winerror``."""

    def open(self, path: str) -> int:
        """Open a pipe for overlapped reading and writing and return its handle."""

    async def read(self, handle: int, buffer: bytearray) -> int:
        """Read into a buffer; return how many bytes came, 0 at the end."""

    async def write(self, handle: int, data: bytes | memoryview) -> int:
        """Write; return how many bytes were taken."""

    def close(self, handle: int) -> None:
        """Close the handle; whoever waits for it is woken with an error."""


class PipeStream(trio.abc.Stream):
    """An open pipe; made by `dial_pipe`. It cannot be closed in one direction."""

    def __init__(self, port: PipePort, handle: int, name: str) -> None:
        self._port = port
        self._handle: int | None = handle
        self._name = name
        self._sending = trio.Lock()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read. Cancel: nothing is lost."""
        # What is no whole number is refused at once, and not only when something has come.
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        buffer = bytearray(max_bytes or limits.READ_SIZE)
        try:
            size = await self._port.read(self._opened(), buffer)
        except OSError as error:
            if self._handle is None:
                raise trio.ClosedResourceError("the pipe was closed meanwhile") from None
            if _winerror(error) in _BROKEN:  # how the other side's closing looks
                return b""
            raise trio.BrokenResourceError(f"{self._name}: {error.strerror}") from error
        return bytes(buffer[:size])

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of it. Cancel: any part may have been sent."""
        async with self._sending:
            with memoryview(data) as rest:
                sent = 0
                while sent < len(rest):
                    sent += await self._write(bytes(rest[sent : sent + limits.WRITE_SIZE]))
        self._opened()

    async def _write(self, piece: bytes) -> int:
        try:
            return await self._port.write(self._opened(), piece)
        except OSError as error:
            if self._handle is None:
                raise trio.ClosedResourceError("the pipe was closed meanwhile") from None
            raise trio.BrokenResourceError(f"{self._name}: {error.strerror}") from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until nobody else is writing; Windows does not tell more."""
        self._opened()
        async with self._sending:
            pass

    async def aclose(self) -> None:
        """Close the pipe. Cancel: it is closed all the same."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._port.close(handle)
        await trio.lowlevel.checkpoint()

    def _opened(self) -> int:
        if self._handle is None:
            raise trio.ClosedResourceError("the pipe was closed")
        return self._handle


async def dial_pipe(
    path: str, *, name: str, port: PipePort | None = None, timeout: float = limits.CONNECT_TIMEOUT
) -> PipeStream:
    r"""Open a pipe; the stream is the caller's.

    Args:
        path: as Windows writes it, ``\\.\pipe\docker_engine``.
        name: of the endpoint, for messages.
        port: Windows; None: the one that runs here.
        timeout: seconds for which a pipe may be busy.

    Raises:
        ConnectError: there is no such pipe, not for this user, or no Windows.

    Cancel: nothing stays open.
    """
    if port is None:
        port = _windows(name)
    with trio.move_on_after(timeout):
        while True:
            try:
                return PipeStream(port, port.open(path), name)
            except OSError as error:
                if _winerror(error) != _BUSY:
                    raise _failure(name, error) from error
            await trio.sleep(_BUSY_PAUSE)
    raise ConnectError(f"{name} was busy for {timeout:g} seconds", hint="The daemon may be stuck; restart it.")


def _failure(name: str, error: OSError) -> ConnectError:
    number = _winerror(error)
    if number == _NOT_FOUND:
        return ConnectError(f"there is no pipe at {name}", hint="Is the daemon, or Docker Desktop, running?")
    if number == _DENIED:
        return ConnectError(
            f"no permission to use the pipe of {name}",
            hint="Join the group docker-users, then log in again, or run this as an administrator.",
        )
    return ConnectError(f"cannot connect to {name}: {error.strerror or error}")


def _winerror(error: OSError) -> int | None:
    return getattr(error, "winerror", None)


def _windows(name: str) -> PipePort:
    if os.name != "nt":
        raise ConnectError(
            f"{name}: named pipes exist on Windows only",
            hint="Name the daemon's socket (unix://), or its port (tcp://).",
        )
    # By name: for a type checker that runs elsewhere the module is empty.
    port: PipePort = importlib.import_module("mobysession.transport.pipe_windows").WindowsPort()
    return port

"""The calls of Windows that a named pipe needs; see `mobysession.transport.pipe`, which is all that may load this."""

from __future__ import annotations

import sys

import trio

assert sys.platform == "win32"

import _winapi  # noqa: E402 - a type checker that runs elsewhere must have stopped before it

__all__ = ["WindowsPort"]

_OVERLAPPED = 0x40000000  # FILE_FLAG_OVERLAPPED
_ANONYMOUS = 0x00110000  # SECURITY_SQOS_PRESENT | SECURITY_ANONYMOUS: the server may not act in our name


class WindowsPort:
    """Windows itself; see `mobysession.transport.pipe.PipePort`."""

    def open(self, path: str) -> int:
        """Open a pipe for overlapped reading and writing and return its handle."""
        access = _winapi.GENERIC_READ | _winapi.GENERIC_WRITE
        handle = _winapi.CreateFile(path, access, 0, 0, _winapi.OPEN_EXISTING, _OVERLAPPED | _ANONYMOUS, 0)
        try:
            trio.lowlevel.register_with_iocp(handle)
        except BaseException:
            _winapi.CloseHandle(handle)
            raise
        return handle

    async def read(self, handle: int, buffer: bytearray) -> int:
        """Read into a buffer; return how many bytes came, 0 at the end."""
        return await trio.lowlevel.readinto_overlapped(handle, buffer)

    async def write(self, handle: int, data: bytes | memoryview) -> int:
        """Write; return how many bytes were taken."""
        return await trio.lowlevel.write_overlapped(handle, data)

    def close(self, handle: int) -> None:
        """Close the handle; whoever waits for it is woken with an error."""
        _winapi.CloseHandle(handle)

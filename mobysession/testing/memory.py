"""A connection in memory that can be reset: trio's own pair only knows orderly ends."""

from __future__ import annotations

import trio
import trio.testing

__all__ = ["MemoryStream", "memory_connection"]


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end. Made by `memory_connection`."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream
        self._other: MemoryStream | None = None
        self._was_reset = False

    def join(self, other: MemoryStream) -> None:
        """Make this the opposite of ``other``."""
        self._other, other._other = other, self

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send; never waits for the reader."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait, which is never long."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read; BrokenResourceError where a reset is what comes next."""
        data = bytes(await self._stream.receive_some(max_bytes))
        if not data and self._was_reset:
            raise trio.BrokenResourceError("the connection was reset")
        return data

    async def send_eof(self) -> None:
        """End this direction in order."""
        await self._stream.send_eof()

    async def reset(self) -> None:
        """Close without order: the other end's reading fails behind what was sent."""
        if self._other is not None:
            self._other._was_reset = True
        await trio.aclose_forcefully(self)

    async def aclose(self) -> None:
        """Close in order."""
        await self._stream.aclose()


def memory_connection() -> tuple[MemoryStream, MemoryStream]:
    """Return the two ends of a new connection."""
    ours, theirs = map(MemoryStream, trio.testing.memory_stream_pair())
    ours.join(theirs)
    return ours, theirs

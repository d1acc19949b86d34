"""What a connection is about to speak, by its first bytes: HTTP/1.1, or HTTP/2 from the start."""

from __future__ import annotations

from typing import Final

import trio

__all__ = ["FOUND_ELSEWHERE", "ReplayedStream", "greeting"]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: How an engine before 29.2 answers HTTP/2: its router cleans the path ``*`` of a request that looks like HTTP/1.1.
FOUND_ELSEWHERE: Final = (
    b"HTTP/1.1 301 Moved Permanently\r\nLocation: /%2A\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


class ReplayedStream(trio.abc.Stream):
    """A connection of which something was read already."""

    def __init__(self, stream: trio.abc.Stream, read: bytes) -> None:
        self._stream = stream
        self._read = read

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return first what was read already."""
        if not self._read:
            return bytes(await self._stream.receive_some(max_bytes))
        await trio.lowlevel.checkpoint()
        data, self._read = self._read[:max_bytes], self._read[max_bytes or len(self._read) :]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream below does."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()


async def greeting(stream: trio.abc.Stream) -> tuple[bool, ReplayedStream]:
    """Return whether HTTP/2 begins on ``stream``, and the stream with nothing missing."""
    read = b""
    while len(read) < len(_PREFACE) and _PREFACE.startswith(read):
        data = bytes(await stream.receive_some(64 * 1024))
        if not data:
            break
        read += data
    return read.startswith(_PREFACE), ReplayedStream(stream, read)

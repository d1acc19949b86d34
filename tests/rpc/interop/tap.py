"""A stream that remembers its bytes, and what gRPC's compressed flags in them were."""

from __future__ import annotations

import trio

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _PADDED = 0, 8


class Tap(trio.abc.Stream):
    """A stream that remembers what it received and sent."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.received = bytearray()
        self.sent = bytearray()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await self._stream.receive_some(max_bytes)
        self.received += data
        return bytes(data)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class TapListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener whose streams are taps, kept in ``taps``."""

    def __init__(self, listener: trio.abc.Listener[trio.SocketStream]) -> None:
        self._listener = listener
        self.taps: list[Tap] = []

    async def accept(self) -> trio.abc.Stream:
        tap = Tap(await self._listener.accept())
        self.taps.append(tap)
        return tap

    async def aclose(self) -> None:
        await self._listener.aclose()


def compressed_flags(wire: bytes | bytearray) -> list[bool]:
    """Return the compressed flag of each message of a recorded direction, stream after stream."""
    bodies: dict[int, bytearray] = {}
    at = len(_PREFACE) if wire.startswith(_PREFACE) else 0
    while at + 9 <= len(wire):
        length, kind, flags = int.from_bytes(wire[at : at + 3], "big"), wire[at + 3], wire[at + 4]
        stream_id = int.from_bytes(wire[at + 5 : at + 9], "big")
        if kind == _DATA:
            assert not flags & _PADDED
            bodies.setdefault(stream_id, bytearray()).extend(wire[at + 9 : at + 9 + length])
        at += 9 + length
    return [flag for _, body in sorted(bodies.items()) for flag in _flags(body)]


def _flags(body: bytearray) -> list[bool]:
    found, at = [], 0
    while at < len(body):
        found.append(bool(body[at]))
        at += 5 + int.from_bytes(body[at + 1 : at + 5], "big")
    return found

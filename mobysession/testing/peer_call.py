"""One gRPC call of the fake daemon's: messages in and out, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from mobysession import limits
from mobysession.errors import RpcError, StatusCode
from mobysession.testing.grpc_fields import metadata
from mobysession.testing.windows import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession.testing.grpc_fields import Metadata
    from mobysession.testing.peer import Peer

__all__ = ["PeerCall"]

_PREFIX: Final = 5


class PeerCall:
    """One call of the daemon's. Its receiving methods raise `RpcError` once it has ended otherwise than OK."""

    def __init__(self, peer: Peer, stream_id: int, method: str) -> None:
        self.method = method
        self.stream_id = stream_id
        #: Of the response; None until it has begun.
        self.initial_metadata: Metadata | None = None
        self.trailing_metadata: Metadata = []
        #: How it ended; None while it has not.
        self.status: RpcError | None = None
        self.outgoing = bytearray()
        self.half_closing = False
        self.half_closed = False
        self._peer = peer
        self._window = Window(peer.stream_limit)
        self._buffer = bytearray()
        self._inbox: list[bytes] = []
        self._changed = trio.lowlevel.ParkingLot()

    async def receive_batch(self) -> list[bytes]:
        """Return every message that arrived, at least one; none when the call has ended OK."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._inbox:
            if self.status is not None:
                if self.status.code is StatusCode.OK:
                    return []
                raise self.status
            await self._changed.park()
        messages, self._inbox = self._inbox, []
        self._read(sum(len(message) + _PREFIX for message in messages))
        return messages

    async def receive(self) -> bytes | None:
        """Return one message; None when the call has ended OK."""
        batch = await self.receive_batch()
        if not batch:
            return None
        first, *rest = batch
        self._inbox[:0] = rest
        return first

    async def send_batch(self, messages: Sequence[bytes | bytearray | memoryview]) -> None:
        """Queue messages for sending."""
        for message in messages:
            self.outgoing += bytes(1) + len(message).to_bytes(4, "big") + message
        self._peer.wake()
        await trio.lowlevel.checkpoint()

    async def send(self, message: bytes | bytearray | memoryview) -> None:
        """Queue one message."""
        await self.send_batch((message,))

    async def end(self) -> None:
        """Half-close the call behind what is queued."""
        self.half_closing = True
        self._peer.wake()
        await trio.lowlevel.checkpoint()

    async def wait_initial_metadata(self) -> Metadata:
        """Return the metadata of the response once it has begun."""
        while self.initial_metadata is None and self.status is None:
            await self._changed.park()
        return self.initial_metadata or []

    def grow(self, limit: int) -> None:
        """Take the news of a new stream window."""
        self._window.grow(limit)

    # -- what the connection tells -------------------------------------------------------------------------------------

    def begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Take the head of the response."""
        self.initial_metadata = metadata(headers)
        self._changed.unpark_all()

    def feed(self, data: bytes) -> None:
        """Take bytes of messages."""
        buffer = self._buffer
        buffer += data
        arrived = 0
        while len(buffer) >= _PREFIX:
            if buffer[0]:
                raise RpcError(StatusCode.INTERNAL, "compressed message, and no grpc-encoding", method=self.method)
            length = int.from_bytes(buffer[1:_PREFIX], "big")
            if length > limits.MAX_MESSAGE:
                words = f"grpc: received message larger than max ({length} vs. {limits.MAX_MESSAGE})"
                raise RpcError(StatusCode.RESOURCE_EXHAUSTED, words, method=self.method)
            if len(buffer) < _PREFIX + length:
                break
            self._inbox.append(bytes(buffer[_PREFIX : _PREFIX + length]))
            arrived += length + _PREFIX
            del buffer[: _PREFIX + length]
        # A reader that waits for a message reads its beginning as it comes; whole ones count when they are taken.
        self._read(max(0, len(data) - arrived))
        self._changed.unpark_all()

    def finish(self, status: RpcError, trailers: Sequence[tuple[str, str | bytes]] = ()) -> None:
        """Take the end of the call; the first one counts."""
        if self.status is None:
            self.status = status
            self.trailing_metadata = list(trailers)
            if status.code is StatusCode.OK and self._buffer:
                self.status = RpcError(StatusCode.INTERNAL, "unexpected EOF", method=self.method)
        self._changed.unpark_all()

    def _read(self, size: int) -> None:
        back = self._window.take(size)
        if back and self.status is None:
            self._peer.give_back(back, self.stream_id)

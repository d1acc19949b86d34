"""A bare h2 object at the other end of one of our connections: it does what a test says and notes what it hears."""

from __future__ import annotations

import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RESPONSE = [(b":status", b"200"), (b"content-type", b"application/grpc")]
OK = [(b"grpc-status", b"0")]


def request(method: str, *extra: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Return the headers of a call."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", method.encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *extra,
    ]


def framed(*messages: bytes, compressed: bool = False) -> bytes:
    """Return messages as gRPC frames them."""
    return b"".join(struct.pack(">BL", compressed, len(message)) + message for message in messages)


class Bare:
    """The other end. ``events`` is what it has heard, in order, without what belongs to the connection alone."""

    def __init__(self, stream: trio.abc.Stream, *, client_side: bool) -> None:
        self.stream = stream
        config = h2.config.H2Configuration(
            client_side=client_side, header_encoding=None, validate_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.events: list[Any] = []
        #: False: the windows stay as full as they are.
        self.acknowledges = True

    async def read(self) -> None:
        """Hear everything, for ever."""
        while data := await self.stream.receive_some():
            for event in self.h2.receive_data(bytes(data)):
                if isinstance(event, h2.events.DataReceived) and self.acknowledges:
                    self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
                if getattr(event, "stream_id", None) and not isinstance(event, h2.events.WindowUpdated):
                    self.events.append(event)
            await self.flush()

    async def flush(self) -> None:
        """Send what is queued."""
        if data := self.h2.data_to_send():
            await self.stream.send_all(data)

    async def settle(self) -> None:
        """Send what is queued, in one piece, and let everybody act on it until nobody has anything to do."""
        await self.flush()
        await trio.testing.wait_all_tasks_blocked()

    def heard(self, stream_id: int) -> list[str]:
        """Return the kinds of what was heard of a stream, in order."""
        return [type(event).__name__ for event in self.events if event.stream_id == stream_id]

    def fields(self, stream_id: int, kind: type[Any]) -> list[tuple[bytes, bytes]]:
        """Return the header fields of the one event of its kind on a stream."""
        (event,) = [event for event in self.events if isinstance(event, kind) and event.stream_id == stream_id]
        return [(bytes(name), bytes(value)) for name, value in event.headers]

    def data(self, stream_id: int) -> bytes:
        """Return the DATA heard on a stream."""
        return b"".join(
            event.data
            for event in self.events
            if isinstance(event, h2.events.DataReceived) and event.stream_id == stream_id
        )


@asynccontextmanager
async def open_bare(stream: trio.abc.Stream, *, client_side: bool) -> AsyncIterator[Bare]:
    """Yield a bare peer on ``stream`` that hears what is said for the length of the block."""
    bare = Bare(stream, client_side=client_side)
    async with trio.open_nursery() as nursery:
        await bare.flush()
        nursery.start_soon(bare.read)
        yield bare
        nursery.cancel_scope.cancel()

"""The other side of a connection as a bare h2 object on a trio stream, which does only what a test tells it to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import h2.settings

from tests.protocol.peers import REQUEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio

_PING = 6


def request(method: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of a call."""
    return [(name, method.encode() if name == b":path" else value) for name, value in REQUEST]


class RawPeer:
    """An HTTP/2 client by hand, on ``stream``; what it acknowledges by itself is SETTINGS and PING."""

    def __init__(
        self, stream: trio.abc.Stream, *, stream_window: int = 65_535, connection_window: int = 65_535
    ) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.h2.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: stream_window}
        )
        self.h2.initiate_connection()
        if connection_window > 65_535:
            self.h2.increment_flow_control_window(connection_window - 65_535)
        self.heard: list[h2.events.Event] = []
        #: Bytes read from the stream.
        self.read = 0

    async def flush(self) -> None:
        """Send what there is."""
        if data := self.h2.data_to_send():
            await self.stream.send_all(data)

    async def receive(self, max_bytes: int = 65_536) -> list[h2.events.Event]:
        """Read once and return what it means; empty at the end of the stream. Answers are sent with `flush`."""
        data = await self.stream.receive_some(max_bytes)
        self.read += len(data)
        heard = self.h2.receive_data(bytes(data)) if data else []
        self.heard += heard
        return heard

    async def run(self) -> None:
        """Read and answer for ever."""
        await self.flush()
        while True:
            await self.receive()
            await self.flush()

    def open_call(self, stream_id: int, method: str = "/t.S/M", *, end: bool = True) -> None:
        """Open a call; `flush` sends it."""
        self.h2.send_headers(stream_id, request(method), end_stream=end)

    def data(self, stream_id: int) -> int:
        """Return the bytes of DATA heard on a stream."""
        return sum(len(event.data) for event in self._heard_of(h2.events.DataReceived) if event.stream_id == stream_id)

    def ended(self, stream_id: int) -> bool:
        """Say whether the trailers of a call were heard."""
        return any(event.stream_id == stream_id for event in self._heard_of(h2.events.StreamEnded))

    def _heard_of(self, kind: type) -> Iterator[Any]:
        return (event for event in self.heard if isinstance(event, kind))


def count_pings(data: bytes) -> int:
    """Return how many PING frames, which are no answers, stand in ``data``, which consists of whole frames."""
    found = position = 0
    while position < len(data):
        found += data[position + 3] == _PING and not data[position + 4] & 1
        position += 9 + int.from_bytes(data[position : position + 3], "big")
    return found

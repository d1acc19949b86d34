"""Two cores that talk until quiet, and a bare h2 object as the opposite peer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import h2.config
import h2.connection
import h2.events
import h2.settings

from mobysession.protocol.client import ClientConnection
from mobysession.protocol.server import ServerConnection

if TYPE_CHECKING:
    from mobysession.protocol.events import Event

Core = TypeVar("Core", ServerConnection, ClientConnection)

REQUEST = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a.B/C"),
    (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
]


class Pair:
    """A client and a server of ours, connected."""

    def __init__(self) -> None:
        self.client = ClientConnection()
        self.server = ServerConnection()
        #: Everything that each side was told, until somebody clears it.
        self.to_client: list[Event] = []
        self.to_server: list[Event] = []
        self.run()
        self.clear()

    def run(self) -> None:
        """Pass bytes until neither side has any."""
        while (up := self.client.data_to_send()) or (down := self.server.data_to_send()):
            if up:
                self.to_server += self.server.receive_data(up)
            else:
                self.to_client += self.client.receive_data(down)

    def clear(self) -> None:
        """Forget the events so far."""
        self.to_client, self.to_server = [], []

    def call(self, method: str = "/a.B/C", **options: Any) -> int:
        """Open a call and let the server hear of it."""
        stream_id = self.client.start_call(method, **options)
        self.run()
        return stream_id


class Bare(Generic[Core]):
    """A core of ours, and an h2 object without any gRPC as its peer."""

    def __init__(self, core: Core, *, settings: dict[h2.settings.SettingCodes, int] | None = None) -> None:
        self.core: Core = core
        client_side = core.client_side
        self.peer = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=not client_side,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.peer.local_settings = h2.settings.Settings(client=not client_side, initial_values=settings)
        self.peer.initiate_connection()
        self.events: list[Event] = []
        self.heard: list[h2.events.Event] = []
        self.run()
        self.events, self.heard = [], []

    def run(self) -> None:
        """Pass bytes until neither side has any."""
        while (up := self.peer.data_to_send()) or (down := self.core.data_to_send()):
            if up:
                self.events += self.core.receive_data(up)
            else:
                self.heard += self.peer.receive_data(down)

    def heard_of(self, kind: type) -> list[Any]:
        """Return what the peer heard of one kind."""
        return [event for event in self.heard if isinstance(event, kind)]

    def data(self, stream_id: int = 1) -> bytes:
        """Return the DATA that the peer got on a stream."""
        return b"".join(event.data for event in self.heard_of(h2.events.DataReceived) if event.stream_id == stream_id)

    def request(self, *extra: tuple[bytes, bytes], stream_id: int = 1, end: bool = False) -> None:
        """Let the peer open a call."""
        self.peer.send_headers(stream_id, [*REQUEST, *extra], end_stream=end)

"""What was seen from real engines, and a client on bare h2 that has no part in the package."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import pytest

if TYPE_CHECKING:
    import trio

_DATA = Path(__file__).parent.parent / "data" / "daemon-half.json"


class Recording:
    """The daemon's half of one recorded session."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        #: The client's request, which the fake is sent as it stands.
        self.request: bytes = recorded["request"].encode()
        #: From the 101 to the first SETTINGS.
        self.opening = base64.b64decode(recorded["opening"])
        #: The header fields of the daemon's calls, in order.
        self.calls: list[list[tuple[str, str]]] = [[(k, v) for k, v in call] for call in recorded["calls"]]
        self.goaway = base64.b64decode(recorded["goaway"] or "")
        self.health: list[tuple[str, str]] = [(k, v) for k, v in recorded.get("health", ())]
        self.ping: str = recorded["ping"]

    def session_id(self) -> str:
        """The ID in the request."""
        _, _, rest = self.request.decode().partition("X-Docker-Expose-Session-Uuid: ")
        return rest.splitlines()[0]


@pytest.fixture(scope="session")
def recordings() -> dict[str, Recording]:
    """Give the recordings by engine."""
    return {engine: Recording(recorded) for engine, recorded in json.loads(_DATA.read_text("utf-8")).items()}


class BareServer:
    """The client's half on bare h2: keeps what arrives, answers what it is told to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = bytearray()
        self.events: list[h2.events.Event] = []
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self._switched = False

    async def until(self, kind: type[h2.events.Event], count: int = 1) -> Any:
        """Read until ``count`` events of a kind have arrived; return the last of them."""
        while sum(isinstance(event, kind) for event in self.events) < count:
            await self.flush()
            data = bytes(await self.stream.receive_some())
            assert data, "the daemon closed the connection"
            self.received += data
            if not self._switched:
                head, mark, data = bytes(self.received).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 101")
                self._switched = bool(mark)
            self.events += self.h2.receive_data(data)
        await self.flush()
        return [event for event in self.events if isinstance(event, kind)][count - 1]

    async def flush(self) -> None:
        """Send what h2 has queued."""
        if self._switched and (data := self.h2.data_to_send()):
            await self.stream.send_all(data)

    async def answer(self, stream_id: int, *messages: bytes, status: str = "0") -> None:
        """Answer a call."""
        self.h2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
        for message in messages:
            self.h2.send_data(stream_id, bytes(1) + len(message).to_bytes(4, "big") + message)
        self.h2.send_headers(stream_id, [("grpc-status", status)], end_stream=True)
        await self.flush()


@pytest.fixture
def bare_server() -> type[BareServer]:
    """Give the class of such a client."""
    return BareServer

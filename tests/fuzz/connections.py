"""A gRPC connection under hostile bytes: what it may do, and what it must have let go of in the end."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mobysession import limits
from mobysession.errors import RemoteProtocolError, RpcError, StatusCode
from mobysession.protocol import events
from mobysession.protocol.client import ClientConnection
from mobysession.protocol.server import ServerConnection
from tests.fuzz.mutations import cut

if TYPE_CHECKING:
    from random import Random

    from mobysession.protocol.connection import GrpcConnection
    from mobysession.protocol.events import Event

__all__ = ["hear_as_client", "hear_as_server"]

_CALLS = 13
#: Bytes that `data_to_send` may return: bulk, and the answers to all that was heard since the last time.
_MOST_AT_ONCE = limits.WRITE_SIZE + limits.MAX_PENDING_CONTROL + 256 * limits.KIB


def hear_as_server(data: bytes, chance: Random) -> None:
    """Let a server hear ``data`` in pieces, do anything with the calls that come, and end in order."""
    _Driver(ServerConnection(), chance).run(data)


def hear_as_client(data: bytes, chance: Random) -> None:
    """Let a client with open calls hear ``data`` in pieces, go on with its calls, and end in order."""
    core = ClientConnection()
    driver = _Driver(core, chance)
    for number in range(_CALLS):
        stream_id = core.start_call("/a.B/C", metadata=[("n", str(number))])
        driver.open[stream_id] = []
        if chance.random() < 0.5:
            core.end_request(stream_id)
            driver.ended.add(stream_id)
    driver.run(data)


class _Driver:
    """Somebody who uses a connection by the rules, without any plan."""

    def __init__(self, core: ServerConnection | ClientConnection, chance: Random) -> None:
        self.core = core
        self.chance = chance
        #: Calls that are not over, with the messages of each that were not consumed.
        self.open: dict[int, list[bytes]] = {}
        #: Calls on which we have said our last word.
        self.ended: set[int] = set()

    def run(self, data: bytes) -> None:
        """Take ``data``, then end whatever is still open, and look for what is left over."""
        core = self.core
        for piece in cut(data, self.chance):
            try:
                heard = core.receive_data(piece)
            except RemoteProtocolError:
                assert core.terminated
                break
            for event in heard:
                self._take(event)
            _check_bounds(core)
            if self.chance.random() < 0.7:
                self._do_something()
                assert len(core.data_to_send()) <= _MOST_AT_ONCE
        self._end()

    def _take(self, event: Event) -> None:
        match event:
            case events.CallReceived(stream_id):
                assert stream_id not in self.open, "a call that was opened twice"
                self.open[stream_id] = []
            case events.MessagesReceived(stream_id, messages):
                self.open[stream_id] += messages
            case events.CallReset(stream_id) | events.CallEnded(stream_id):
                del self.open[stream_id]
            case _:
                pass

    def _do_something(self) -> None:
        chance, core = self.chance, self.core
        for stream_id in list(self.open):
            match chance.randrange(8):
                case 0 if stream_id not in self.ended:
                    core.send_messages(stream_id, [chance.randbytes(chance.choice((0, 10, 5000, 100_000)))])
                case 1 if stream_id not in self.ended:
                    self.ended.add(stream_id)
                    self._say_last_word(stream_id)
                case 2:
                    core.reset(stream_id)
                    del self.open[stream_id]
                case 3 | 4 | 5:
                    core.consumed(stream_id, self.open[stream_id])
                    self.open[stream_id] = []
                case _:
                    pass
        if isinstance(core, ClientConnection) and chance.random() < 0.1:
            with suppress(RpcError):
                self.open[core.start_call("/a.B/C")] = []

    def _say_last_word(self, stream_id: int) -> None:
        if isinstance(self.core, ServerConnection):
            self.core.send_trailers(stream_id, StatusCode(self.chance.randrange(17)), "why\n%")
        else:
            self.core.end_request(stream_id)

    def _end(self) -> None:
        core = self.core
        core.data_to_send()
        for stream_id in self.open:
            core.reset(stream_id)
        while core.data_to_send():
            pass
        if not core.terminated:
            _check_quiet(core)
        core.close()
        core.data_to_send()
        assert core.receive_data(b"anything") == []
        assert core.data_to_send() == b""


def _check_bounds(core: GrpcConnection) -> None:
    assert core.unread <= limits.MAX_UNREAD + limits.CONNECTION_WINDOW
    assert core.open_calls <= limits.MAX_CONCURRENT_STREAMS + _CALLS


def _check_quiet(core: GrpcConnection) -> None:
    # Requests that are no gRPC are answered at once, and kept until their own ends; nobody was told of them.
    refused = sum(call.refused for call in core._calls.values())
    assert core.open_calls == refused
    assert core.unread == 0
    assert not core.has_queued or refused

"""The table of RFC 9113's rules (`tests.protocol.wire`) as bytes on streams, against a server whose handlers run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from mobysession.errors import ConnectionLost, RemoteProtocolError, StatusCode
from mobysession.rpc.registrar import Cardinality, Method, Registrar
from mobysession.rpc.server import open_server
from tests.protocol import test_rfc7541, test_rfc9113_3, test_rfc9113_4, test_rfc9113_5, test_rfc9113_6, test_rfc9113_8
from tests.protocol.wire import (
    ACK,
    LAST_WORD,
    PREFACE,
    Case,
    Code,
    Seen,
    Type,
    data,
    goaway,
    judge,
    over,
    ping,
    read_frames,
    request,
    settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession.rpc.server import Server, ServerCall

    Pair = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]

_MODULES = (test_rfc9113_3, test_rfc9113_4, test_rfc9113_5, test_rfc9113_6, test_rfc9113_8, test_rfc7541)
CASES = [case for module in _MODULES for case in module.CASES]


class Patient:
    """Handlers that wait: each call stays as the client has left it, until it is told to go on."""

    def __init__(self) -> None:
        self.go_on = trio.Event()
        self.registrar = Registrar()
        self.registrar.add(Method("/a.B/C", Cardinality.STREAM_STREAM, self.serve))

    async def serve(self, call: ServerCall) -> None:
        """Take what comes, wait, and answer once."""
        while await call.receive_batch():
            pass
        await self.go_on.wait()
        await call.send(b"done")


class Client:
    """The other end of a server's stream, and what it has read there."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.heard = b""
        self.asked = 0

    async def say(self, said: bytes) -> None:
        """Write ``said``, unless the server has hung up, which is its right behind a GOAWAY."""
        try:
            await self.stream.send_all(said)
        except trio.BrokenResourceError:
            assert any(frame.type == Type.GOAWAY for frame in read_frames(self.heard))

    async def read(self) -> bool:
        """Read some more; False when the server has hung up."""
        more = await self.stream.receive_some()
        self.heard += more
        return bool(more)

    async def read_until(self, wanted: Callable[[Seen], bool]) -> bool:
        """Read until a frame is ``wanted``; False when the server has hung up before."""
        while not any(map(wanted, read_frames(self.heard))):
            if not await self.read():
                return False
        return True

    async def settle(self, said: bytes = b"") -> None:
        """Say something, and wait until the server has taken it all and has said what it has to say about that."""
        self.asked += 1
        payload = b"%8d" % self.asked
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.say, said + ping(payload))
            await self.read_until(lambda frame: frame.payload == payload or frame.type == Type.GOAWAY)

    async def begin(self) -> None:
        """Say the preface, and wait for the server's."""
        await self.settle(PREFACE + settings())
        self.heard = b""


async def put(case: Case, client: Client) -> None:
    """Let ``client`` say what stands in ``case``, and then `LAST_WORD`, and read to the end."""
    if not case.bare:
        await client.begin()
    for part in case.parts:
        if case.bare:
            await client.say(part)
        else:
            await client.settle(part)
    await client.say(ping(LAST_WORD))
    await client.read_until(lambda frame: frame.payload == LAST_WORD or frame.type == Type.GOAWAY)


@over(CASES)
async def test_rule(case: Case, autojump_clock: trio.testing.MockClock) -> None:
    """A server with running handlers answers what the rule is about as the rule says, and ends only where it has to."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_server(ours, Patient().registrar) as server, theirs:
        client = Client(theirs)
        await put(case, client)
        judge(case, client.heard)
        if case.verdict.code is None or case.verdict.stream_id:
            assert server.failure is None
            return
        while await client.read():
            pass
        await server.closed.wait()
        assert isinstance(server.failure, RemoteProtocolError)
        assert server.failure.error_code == case.verdict.code
        assert not server.calls


@pytest.mark.parametrize("module", _MODULES, ids=lambda module: module.__name__.rpartition("_")[2])
async def test_rules_on_a_socket(module: Any) -> None:
    """The first rule of each verdict, once more through a socket of the system."""
    from tests.rpc.conftest import socket_stream_pair

    for case in {case.verdict: case for case in reversed(module.CASES)}.values():
        ours, theirs = socket_stream_pair()
        async with open_server(ours, Patient().registrar), theirs:
            client = Client(theirs)
            await put(case, client)
            judge(case, client.heard)


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_drain(stream_pair: Pair) -> None:
    """`Server.drain` lets a call end, serves what was on its way, refuses what comes later, and then hangs up."""
    ours, theirs = stream_pair()
    patient = Patient()
    async with open_server(ours, patient.registrar) as server, theirs, trio.open_nursery() as nursery:
        client = Client(theirs)
        await client.begin()
        await client.settle(request(1, end=True))
        server.drain()
        assert await client.read_until(lambda frame: frame.type == Type.GOAWAY)
        assert await client.read_until(lambda frame: (frame.type, frame.flags) == (Type.PING, 0))
        (asked,) = [frame for frame in read_frames(client.heard) if (frame.type, frame.flags) == (Type.PING, 0)]
        nursery.start_soon(client.say, request(3, end=True) + ping(asked.payload, ACK))
        assert await client.read_until(lambda frame: frame.type == Type.GOAWAY and frame.payload[:4] == b"\0\0\0\3")
        nursery.start_soon(client.say, request(5, end=True))
        assert await client.read_until(lambda frame: frame.type == Type.RST_STREAM)
        patient.go_on.set()
        while await client.read():
            pass
        await server.closed.wait()
    assert server.failure is None
    frames = read_frames(client.heard)
    assert [frame.payload[:8] for frame in frames if frame.type == Type.GOAWAY] == [
        b"\x7f\xff\xff\xff\0\0\0\0",
        b"\0\0\0\3\0\0\0\0",
        b"\0\0\0\3\0\0\0\0",
    ]
    assert [frame[2:] for frame in frames if frame.type == Type.RST_STREAM] == [(5, b"\0\0\0\7")]
    assert b"".join(frame.payload for frame in frames if frame.type == Type.DATA) == b"\0\0\0\0\4done" * 2


async def test_a_client_that_hangs_up_when_told(autojump_clock: trio.testing.MockClock) -> None:
    """A client that leaves behind the announcement, with nothing open, has done what it was asked for: no failure."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_server(ours, Registrar()) as server:
        client = Client(theirs)
        await client.begin()
        server.drain()
        await client.read_until(lambda frame: frame.type == Type.GOAWAY)
        await theirs.aclose()
        await server.closed.wait()
    assert server.failure is None


async def test_a_client_that_says_goodbye(autojump_clock: trio.testing.MockClock) -> None:
    """Behind a client's GOAWAY its calls are answered; then the server does not wait for it to hang up."""
    ended: list[StatusCode] = []
    ours, theirs = trio.testing.memory_stream_pair()
    patient = Patient()
    async with open_server(ours, patient.registrar, on_call_ended=lambda call, code, *_: ended.append(code)) as server:
        client = Client(theirs)
        await client.begin()
        await client.settle(request(1) + data(1) + goaway(0, 0, b"bye") + data(1, end=True))
        assert not server.closed.is_set()
        patient.go_on.set()
        await client.read_until(lambda frame: (frame.type, frame.flags & 1) == (Type.HEADERS, 1))
        await client.say(ping())
        await server.closed.wait()
    assert ended == [StatusCode.OK]
    assert isinstance(server.failure, ConnectionLost)
    assert "bye" in server.failure.message


async def test_an_error_takes_the_handlers_along(autojump_clock: trio.testing.MockClock) -> None:
    """Handlers of a connection that ends with an error are cancelled, and each is told why."""
    ended: list[tuple[StatusCode, str]] = []
    ours, theirs = trio.testing.memory_stream_pair()
    server: Server
    async with open_server(
        ours, Patient().registrar, on_call_ended=lambda call, code, text, _: ended.append((code, text))
    ) as server:
        client = Client(theirs)
        await client.begin()
        await client.settle(request(1) + request(3))
        await client.say(data(0))
        while await client.read():
            pass
        await server.closed.wait()
        await trio.testing.wait_all_tasks_blocked()
    assert len(ended) == 2
    assert all(code is not StatusCode.OK and "stream" in text.lower() for code, text in ended)
    assert isinstance(server.failure, RemoteProtocolError)
    assert server.failure.error_code == Code.PROTOCOL_ERROR

"""gRPC on listening sockets, spoken to by grpcio's own client, by ours and by rude peers."""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trio
import trio.testing
import trustme

from mobysession.errors import EndpointError, RpcError, StatusCode, UsageError
from mobysession.limits import (
    HANDSHAKE_TIMEOUT,
    KEEPALIVE_TIMEOUT,
    LISTENER_KEEPALIVE,
    MAX_CONNECTIONS,
    READY_TIMEOUT,
)
from mobysession.rpc.client import open_channel
from mobysession.rpc.listener import serve_listener
from mobysession.rpc.registrar import Cardinality, Registrar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mobysession.rpc.client import Channel
    from mobysession.rpc.listener import Listening
    from mobysession.rpc.server import ServerCall

ECHO = "/tests.Echo/One"
HOLD = "/tests.Echo/Hold"


class Door(trio.abc.Listener[trio.abc.Stream]):
    """A listener whose connections, and failures to accept one, are put before it by the test."""

    def __init__(self) -> None:
        self._put, self._accepted = trio.open_memory_channel[trio.abc.Stream | OSError](MAX_CONNECTIONS + 1)

    async def accept(self) -> trio.abc.Stream:
        """Return the next connection."""
        next_one = await self._accepted.receive()
        if isinstance(next_one, OSError):
            raise next_one
        return next_one

    async def aclose(self) -> None:
        """Take no more."""
        self._accepted.close()
        await trio.lowlevel.checkpoint()

    def knock(self) -> trio.abc.Stream:
        """Return the client's end of a new connection."""
        ours, theirs = trio.testing.memory_stream_pair()
        self._put.send_nowait(theirs)
        return ours

    def fail(self, number: int) -> None:
        """Let one `accept` fail."""
        self._put.send_nowait(OSError(number, "not now"))


class Service:
    """Answers one method at once, and another when it is let go."""

    def __init__(self) -> None:
        self.held = trio.Event()
        self.let_go = trio.Event()

    def register(self, registrar: Registrar) -> None:
        """Bring both methods."""
        registrar.stream(ECHO, self.echo, Cardinality.UNARY_UNARY)
        registrar.stream(HOLD, self.hold, Cardinality.UNARY_UNARY)

    async def echo(self, call: ServerCall) -> None:
        """Send back what came."""
        message = await call.receive()
        assert message is not None
        await call.send(message)

    async def hold(self, call: ServerCall) -> None:
        """Do the same, later."""
        self.held.set()
        await self.let_go.wait()
        await self.echo(call)


@asynccontextmanager
async def serving(listeners: Any, *services: Any, **options: Any) -> AsyncIterator[Listening]:
    """Serve while the block runs, or until stopped."""
    async with trio.open_nursery() as nursery:
        serve = functools.partial(serve_listener, listeners, *(services or (Service(),)), **options)
        yield await nursery.start(serve)
        nursery.cancel_scope.cancel()


async def ask(address: str, credentials: grpc.ChannelCredentials | None = None) -> bytes:
    """Call the echo with grpcio's client, in a thread."""

    def call() -> bytes:
        channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
        with channel:
            one: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)
            return one(b"hello", timeout=20)

    return await trio.to_thread.run_sync(call)


async def echo(channel: Channel, method: str = ECHO) -> bytes | None:
    """Call with our own client."""
    async with channel.open_call(method) as call:
        await call.end(b"hello")
        return await call.receive()


async def connect(address: str) -> trio.SocketStream:
    """Open a connection to a TCP address."""
    host, _, port = address.rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def test_any_client_is_served_on_tcp_and_on_a_unix_socket(tmp_path: Path):
    """grpcio's client gets its answer on both, from one call that serves both."""
    async with serving(["tcp://127.0.0.1:0", f"unix://{tmp_path}/socket"]) as listening:
        tcp, unix = listening.addresses
        assert tcp.startswith("127.0.0.1:")
        assert unix == f"unix:{tmp_path}/socket"
        assert await ask(tcp) == await ask(unix) == b"hello"


async def test_a_listener_of_trio_and_a_registrar_are_served():
    """What was opened elsewhere is taken as it is, and a registrar may be given whole."""
    registrar = Registrar()
    Service().register(registrar)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with serving(listeners, registrar) as listening:
        assert await ask(listening.addresses[0]) == b"hello"
    assert listeners[0].socket.fileno() == -1


@pytest.fixture
def authority() -> trustme.CA:
    """Give a CA of our own."""
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """Give a server's context with a certificate for localhost."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


async def test_tls_is_spoken_with_h2(authority: trustme.CA, tls: ssl.SSLContext):
    """grpcio's client, which demands ALPN h2, is served over TLS."""
    async with serving("tcp://127.0.0.1:0", tls=tls) as listening:
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        port = listening.addresses[0].rpartition(":")[2]
        assert await ask(f"localhost:{port}", credentials) == b"hello"


async def test_a_tls_client_without_h2_is_shut_out(authority: trustme.CA, tls: ssl.SSLContext):
    """Who does not ask for h2 hears no HTTP/2, and neither that nor plain text on a TLS port disturbs the next one."""
    client = ssl.create_default_context()
    authority.configure_trust(client)
    async with serving("tcp://127.0.0.1:0", tls=tls) as listening:
        rude = await connect(listening.addresses[0])
        await rude.send_all(b"GET / HTTP/1.1\r\n\r\n")
        while await rude.receive_some():
            pass
        secured = trio.SSLStream(await connect(listening.addresses[0]), client, server_hostname="localhost")
        with pytest.raises(trio.BrokenResourceError):
            await secured.receive_some()
        port = listening.addresses[0].rpartition(":")[2]
        assert await ask(f"localhost:{port}", grpc.ssl_channel_credentials(authority.cert_pem.bytes())) == b"hello"
        await rude.aclose()
        await trio.aclose_forcefully(secured)


async def test_a_failure_of_one_connection_is_no_other_ones():
    """Garbage on one connection ends that one; a call that runs on another is answered."""
    service, door = Service(), Door()
    async with serving(door, service), open_channel(door.knock()) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(_expect, channel, HOLD)
        await service.held.wait()
        rude = door.knock()
        await rude.send_all(b"GET / HTTP/1.1\r\n\r\n")
        while await rude.receive_some():
            pass
        service.let_go.set()


async def _expect(channel: Channel, method: str) -> None:
    assert await echo(channel, method) == b"hello"


async def test_a_callback_that_fails_ends_its_connection_only():
    """An exception out of a stranger's callback neither ends the serving nor reaches another connection."""

    def refuse(call: ServerCall) -> None:
        if call.method == HOLD:
            raise ZeroDivisionError

    door = Door()
    async with (
        serving(door, on_call_started=refuse),
        open_channel(door.knock()) as bad,
        open_channel(door.knock()) as good,
    ):
        with pytest.raises(RpcError):
            await echo(bad, HOLD)
        assert await echo(good) == b"hello"


async def test_connections_over_the_bound_wait():
    """With one connection allowed, the second is served when the first has gone, not before."""
    door = Door()
    async with (
        serving(door, max_connections=1) as listening,
        open_channel(door.knock()) as first,
        open_channel(door.knock()) as second,
    ):
        assert await echo(first) == b"hello"
        await trio.testing.wait_all_tasks_blocked()
        assert len(listening.servers) == 1
        assert not second.ready.is_set()
        await first.finish()
        assert await echo(second) == b"hello"


async def test_the_bound_of_connections():
    """Where nothing else is said `MAX_CONNECTIONS` are let in; the next one gets the place of the first that goes."""
    door = Door()
    async with serving(door) as listening:
        streams = [door.knock() for _ in range(MAX_CONNECTIONS + 1)]
        await trio.testing.wait_all_tasks_blocked()
        assert len(listening.servers) == MAX_CONNECTIONS
        async with open_channel(streams.pop()) as last:
            await trio.testing.wait_all_tasks_blocked()
            assert not last.ready.is_set()
            await streams.pop().aclose()
            assert await echo(last) == b"hello"
            assert len(listening.servers) == MAX_CONNECTIONS
        for stream in streams:
            await stream.aclose()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EPROTO])
async def test_accepting_goes_on_after_an_error(number: int, autojump_clock: trio.testing.MockClock):
    """What the machine is short of is waited for, and the error of a connection that is gone again is nobody's."""
    door = Door()
    door.fail(number)
    async with serving(door), open_channel(door.knock()) as channel:
        assert await echo(channel) == b"hello"


async def test_a_silent_connection_is_closed_in_time(autojump_clock: trio.testing.MockClock):
    """Who connects and never speaks HTTP/2 does not hold a place for ever."""
    door = Door()
    async with serving(door, max_connections=1):
        silent = door.knock()
        async with open_channel(door.knock()) as channel:
            started = trio.current_time()
            assert await echo(channel) == b"hello"
            assert READY_TIMEOUT <= trio.current_time() - started < READY_TIMEOUT + 5
        await silent.aclose()


async def test_a_silent_connection_is_closed_in_time_before_tls(
    tls: ssl.SSLContext, autojump_clock: trio.testing.MockClock
):
    """Who connects to a TLS port and does not shake hands is shut out after as long as a handshake may take."""
    door = Door()
    async with serving(door, tls=tls):
        silent = door.knock()
        started = trio.current_time()
        assert await silent.receive_some() == b""
        assert trio.current_time() - started == HANDSHAKE_TIMEOUT
        await silent.aclose()


async def test_a_peer_that_vanished_gives_its_place_back(autojump_clock: trio.testing.MockClock):
    """Who was served, and is gone without a goodbye, is asked, and makes room for the next one."""
    door = Door()
    async with serving(door, max_connections=1):
        vanished = door.knock()
        await vanished.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        await trio.testing.wait_all_tasks_blocked()
        async with open_channel(door.knock()) as channel:
            started = trio.current_time()
            with trio.fail_after(LISTENER_KEEPALIVE + KEEPALIVE_TIMEOUT + 5):
                assert await echo(channel) == b"hello"
            assert trio.current_time() - started >= LISTENER_KEEPALIVE
        await vanished.aclose()


async def test_stopping_lets_calls_end():
    """After `stop` nobody new gets in, the call that runs is answered, and then the serving returns."""
    service, door = Service(), Door()
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(functools.partial(serve_listener, door, service))
        async with open_channel(door.knock()) as channel:
            nursery.start_soon(_expect, channel, HOLD)
            await service.held.wait()
            listening.stop(grace=60)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BrokenResourceError):
                door.knock()
            with pytest.raises(RpcError):
                await echo(channel)
            service.let_go.set()
            await channel.closed.wait()
    assert listening.servers == set()


async def test_stopping_is_bounded(autojump_clock: trio.testing.MockClock):
    """A call that does not end in the time given is cancelled, and its caller is told."""
    door = Door()
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(functools.partial(serve_listener, door, Service()))
        async with open_channel(door.knock()) as channel, channel.open_call(HOLD) as call:
            await call.end(b"hello")
            await trio.testing.wait_all_tasks_blocked()
            started = trio.current_time()
            listening.stop(grace=7)
            with pytest.raises(RpcError) as caught:
                await call.receive()
            assert caught.value.code is StatusCode.CANCELLED
            assert trio.current_time() - started == pytest.approx(7, abs=0.5)


async def test_the_socket_goes_with_its_listener(tmp_path: Path):
    """A unix socket leaves no file behind, but what took its place in the meantime stays."""
    path = tmp_path / "socket"
    async with serving(f"unix://{path}"):
        assert path.is_socket()
    assert not path.exists()
    async with serving(f"unix://{path}"):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


async def test_a_dead_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path):
    """What a killed process left behind is in nobody's way; where somebody listens, nobody else can."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(f"unix://{path}") as listening:
        assert await ask(listening.addresses[0]) == b"hello"
        with pytest.raises(EndpointError, match="nothing can listen at"):
            await serve_listener(f"unix://{path}", Service())
        assert await ask(listening.addresses[0]) == b"hello"


@pytest.mark.parametrize(
    "address",
    ["", "socket", "unix://", "tcp://", "tcp://localhost", "tcp://localhost:http", f"tcp://localhost:{'9' * 5000}"],
    ids=lambda address: address[:24],
)
async def test_an_address_must_be_one(address: str):
    """What is no address is refused with the forms that are."""
    with pytest.raises(EndpointError, match="no address to listen at") as caught:
        await serve_listener(address, Service())
    assert "tcp://host:port" in str(caught.value.hint)


async def test_a_listener_that_is_given_is_closed_when_another_cannot_be_opened():
    """Nothing stays open behind a call that failed."""
    given = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    with pytest.raises(EndpointError):
        await serve_listener([given, "tcp://nowhere"], Service())
    assert given.socket.fileno() == -1


@pytest.mark.parametrize("listeners", [b"unix:///x", 5, ["tcp://127.0.0.1:0", None]])
async def test_what_is_neither_an_address_nor_a_listener_is_refused(listeners: Any):
    """Bytes, or anything else, are a mistake of the caller, told with what it is."""
    with pytest.raises(UsageError, match=r"(b'unix:///x'|5|None) is neither an address"):
        await serve_listener(listeners, Service())


async def test_a_host_that_cannot_be_is_told():
    """An empty label, which Python refuses to look up, is an address at which nothing can listen."""
    with pytest.raises(EndpointError, match=r"nothing can listen at tcp://a\.\.b:0"):
        await serve_listener("tcp://a..b:0", Service())


STRANGE: list[BaseException] = [
    asyncio.CancelledError(),
    GeneratorExit(),
    BaseExceptionGroup("both", [asyncio.CancelledError(), ValueError()]),
]


@pytest.mark.parametrize("strange", STRANGE, ids=lambda strange: type(strange).__name__)
@pytest.mark.parametrize("waits", [False, True])
async def test_what_a_handler_raises_ends_its_call_alone(strange: BaseException, waits: bool):
    """What is no Exception but another loop's cancellation is a failure like any other: the connections go on."""

    async def fail(call: ServerCall) -> None:
        if waits:
            await trio.lowlevel.checkpoint()
        raise strange

    registrar = Registrar()
    Service().register(registrar)
    registrar.stream("/tests.Echo/Fail", fail)
    door = Door()
    async with serving(door, registrar), open_channel(door.knock()) as channel, open_channel(door.knock()) as other:
        for one in (channel, other, channel):
            with pytest.raises(RpcError, match=r"the handler of /tests\.Echo/Fail failed with") as caught:
                await echo(one, "/tests.Echo/Fail")
            assert caught.value.code is StatusCode.UNKNOWN
        assert await echo(channel) == await echo(other) == b"hello"


async def test_a_handler_that_asks_the_process_to_end_is_heard():
    """KeyboardInterrupt and SystemExit pass, and with them everything ends."""

    async def leave(call: ServerCall) -> None:
        raise SystemExit(3)

    registrar = Registrar()
    registrar.stream(ECHO, leave)
    door = Door()
    with pytest.RaisesGroup(SystemExit, flatten_subgroups=True):
        async with serving(door, registrar), open_channel(door.knock()) as channel:
            with suppress(RpcError):
                await echo(channel)
            await trio.sleep_forever()


async def test_there_must_be_something_to_serve():
    """No service, a registrar beside one, nowhere to listen, and a bound of nothing are mistakes of the caller."""
    with pytest.raises(UsageError, match="nothing to serve"):
        await serve_listener("tcp://127.0.0.1:0")
    with pytest.raises(UsageError, match="one registrar"):
        await serve_listener("tcp://127.0.0.1:0", Service(), Registrar())
    with pytest.raises(UsageError, match="max_connections"):
        await serve_listener("tcp://127.0.0.1:0", Service(), max_connections=0)
    with pytest.raises(UsageError, match="max_message is -1"):
        await serve_listener("tcp://127.0.0.1:0", Service(), max_message=-1)
    with pytest.raises(UsageError, match="nowhere to listen"):
        await serve_listener([], Service())

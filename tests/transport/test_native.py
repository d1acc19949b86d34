"""gRPC spoken at once: what TLS agrees on, what an address cannot have, what an old daemon says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from mobysession._pb import health_pb2
from mobysession.errors import EndpointError, HandshakeError, HandshakeTimeout, TLSError
from mobysession.rpc.client import open_channel
from mobysession.rpc.port import nowait_sender
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from mobysession.testing import FakeDaemon
from mobysession.transport.address import SSHAddress
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.native import dial_grpc, dial_native, introduce
from mobysession.transport.ssh import ssh_argv

if TYPE_CHECKING:
    from mobysession.rpc.server import ServerCall
    from tests.transport.conftest import Certificates, Daemon, Serve

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
BOTH = ("h2", "http/1.1")


async def _answers_at_once(endpoint: Endpoint) -> bool:
    """Tell whether a daemon at ``endpoint`` answers HTTP/2's preface with its SETTINGS."""
    async with await dial_native(endpoint) as stream:
        await stream.send_all(PREFACE + SETTINGS)
        return (await stream.receive_some())[3:4] == b"\x04"


@pytest.mark.parametrize("alpn", [("h2",), BOTH])
async def test_tls_agrees_on_h2(serve_tcp: Serve, certificates: Certificates, alpn: tuple[str, ...]) -> None:
    """With client certificates, too: an engine that has both and a buildkitd that has h2 only."""
    async with FakeDaemon(api_version="1.53") as daemon:
        server = certificates.server(alpn=alpn, demand=True)
        async with serve_tcp(daemon.serve, server=server, tls=certificates.client()) as endpoint:
            assert await _answers_at_once(endpoint)


@pytest.mark.parametrize("alpn", [(), ("http/1.1",)])
async def test_tls_without_h2_is_told(
    serve_tcp: Serve, certificates: Certificates, daemon: Daemon, alpn: tuple[str, ...]
) -> None:
    """An older engine does not agree, and the error says which ones do."""
    server = certificates.server(alpn=alpn)
    async with serve_tcp(daemon.answer(), server=server, tls=certificates.client()) as endpoint:
        with pytest.raises((HandshakeError, TLSError)) as caught:
            await dial_native(endpoint)
    assert str(endpoint) in str(caught.value)


async def test_a_path_has_no_place_in_grpc() -> None:
    """An address behind a path prefix is HTTP/1.1's; the user hears before anything is dialled."""
    with pytest.raises(EndpointError, match="has a path"):
        await dial_native(Endpoint.parse("tcp://127.0.0.1:1/docker"))


async def test_a_daemon_introduces_itself_and_can_be_used(serve: Serve) -> None:
    """Its version is known, and the connection is fit for an upgrade."""
    async with FakeDaemon(api_version="1.44") as daemon, serve(daemon.serve) as endpoint:
        introduced = await introduce(endpoint)
        assert introduced.api == (1, 44)
        assert not introduced.has_native
        assert introduced.stream is not None
        await introduced.close()
        assert introduced.stream is None


@pytest.mark.parametrize(
    ("answer", "reusable", "api"),
    [
        (b"HTTP/1.1 200 OK\r\nApi-Version: 1.47\r\nContent-Length: 2\r\n\r\n", True, (1, 47)),
        (b"HTTP/1.1 200 OK\r\nApi-Version: 1.47\r\nConnection: close\r\n\r\n", False, (1, 47)),
        (b"HTTP/1.0 200 OK\r\nApi-Version: 1.53\r\n\r\n", False, (1, 53)),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", True, None),
        (b"HTTP/1.1 500 Oh\r\nApi-Version: 1.47\r\nContent-Length: 0\r\n\r\nmore", False, (1, 47)),
    ],
)
async def test_answers_that_leave_the_connection_usable(
    serve: Serve, daemon: Daemon, answer: bytes, reusable: bool, api: tuple[int, int] | None
) -> None:
    """Only a whole answer with nothing behind it, on a connection that stays, is followed by another request."""
    async with serve(daemon.answer(answer, close=False)) as endpoint:
        introduced = await introduce(endpoint)
        assert (introduced.stream is not None, introduced.api) == (reusable, api)
        await introduced.close()


@pytest.mark.parametrize("answer", [SETTINGS, b"220 ready\r\n", b""])
async def test_what_is_no_engine_is_an_introduction_too(serve: Serve, daemon: Daemon, answer: bytes) -> None:
    """A buildkitd, something else, a closed connection: why it is no engine is kept, for who has another idea."""
    async with serve(daemon.answer(answer)) as endpoint:
        introduced = await introduce(endpoint)
    assert introduced.stream is None
    assert introduced.failure is not None
    assert str(endpoint) in introduced.failure.message


async def test_silence_is_no_introduction(autojump_clock: trio.testing.MockClock) -> None:
    """What accepts and says nothing is given up."""
    del autojump_clock

    async def silent(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    class Silent(FakeDaemon):
        serve = staticmethod(silent)

    async with Silent.listen() as daemon:
        with pytest.raises(HandshakeTimeout):
            await introduce(daemon.endpoint)


async def test_a_stream_for_control_is_closed_where_it_is_of_no_use(serve: Serve) -> None:
    """Asked by an old engine's version, the upgrade follows on the same connection."""
    async with FakeDaemon(api_version="1.44") as daemon, serve(daemon.serve) as endpoint:
        async with await dial_grpc(endpoint) as stream:
            await stream.send_all(PREFACE + SETTINGS)
            assert (await stream.receive_some())[3:4] == b"\x04"
        assert daemon.requests == [("HEAD", "/_ping"), ("POST", "/grpc")]


def test_the_command_line_for_a_buildkitd() -> None:
    """On the other host buildctl is asked, not docker's CLI."""
    assert ssh_argv(SSHAddress("box"), buildkitd=True)[-2:] == ["box", "buildctl dial-stdio"]
    assert ssh_argv(SSHAddress("box", socket="/run/a b.sock"), buildkitd=True)[-1] == (
        "buildctl --addr 'unix:///run/a b.sock' dial-stdio"
    )


def test_where_a_buildkitd_is() -> None:
    """Given, named by BUILDKIT_HOST, or at its default; who named it is told."""
    found = [
        Endpoint.buildkitd("tcp://box:1234", environ={}),
        Endpoint.buildkitd(environ={"BUILDKIT_HOST": "ssh://me@box"}),
        Endpoint.buildkitd(environ={}),
        Endpoint.parse("unix:///x").as_buildkitd(),
    ]
    assert [str(endpoint) for endpoint in found] == [
        "tcp://box:1234 (--host)",
        "ssh://me@box (BUILDKIT_HOST)",
        "unix:///run/buildkit/buildkitd.sock (default buildkitd socket)",
        "unix:///x (--host)",
    ]
    assert all(endpoint.is_buildkitd for endpoint in found)
    assert not Endpoint.parse("unix:///x").is_buildkitd


async def test_headers_are_metadata_of_every_call(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """What config.json wants on every request is on every call, as far as metadata can have it; no value is logged."""
    seen: list[list[tuple[str, str | bytes]]] = []

    async def answer(request: object, call: ServerCall) -> health_pb2.HealthCheckResponse:
        seen.append(list(call.metadata))
        return health_pb2.HealthCheckResponse()

    registrar = Registrar()
    registrar.unary_unary("/test.T/Ask", answer, health_pb2.HealthCheckRequest)

    async def be(stream: trio.abc.Stream) -> None:
        async with open_server(stream, registrar) as server:
            await server.closed.wait()

    headers = (
        *(("X-Meta", " v "), ("x-meta", "w"), ("Authorization", "Bearer swordfish")),
        *(("User-Agent", "me"), ("Host", "evil"), ("Connection", "close"), ("TE", "x"), ("Content-Type", "x")),
        *(("X-Key-bin", "swordfish"), ("grpc-timeout", "1S"), ("X Y", "swordfish"), ("X-Umlaut", "swördfish")),
    )
    async with serve(be) as plain:
        endpoint = Endpoint.parse(plain.url, headers=headers)
        stream = await dial_native(endpoint)
        assert nowait_sender(stream) is not None  # the fast way of writing is kept
        async with open_channel(stream) as channel:
            for _ in range(2):
                await channel.unary(
                    "/test.T/Ask",
                    health_pb2.HealthCheckRequest(),
                    health_pb2.HealthCheckResponse,
                    metadata=[("mine", "1")],
                )
    assert seen == [[("x-meta", "v"), ("x-meta", "w"), ("authorization", "Bearer swordfish"), ("mine", "1")]] * 2
    assert [name in caplog.text for name in ("X-Key-bin", "grpc-timeout", "X Y", "X-Umlaut")] == [True] * 4
    assert "sw" not in caplog.text

"""The fake's HTTP/1.1 answers, which are those of 28.5.2."""

from __future__ import annotations

import json

import pytest
import trio

from mobysession.errors import SessionIdInUse, UpgradeRefused
from mobysession.session import Session
from mobysession.testing import FakeDaemon, Faults, Refusal
from mobysession.transport.api import EngineApi
from mobysession.transport.hijack import hijack


async def _ask(request: str) -> tuple[int, list[str], str]:
    """Return status, names of header lines in order, and body."""
    async with FakeDaemon() as daemon:
        stream = await daemon.dial()
        assert isinstance(stream, trio.abc.HalfCloseableStream)
        await stream.send_all(request.encode())
        await stream.send_eof()
        received = b""
        while data := await stream.receive_some():
            received += data
    head, _, body = received.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    return int(status.split()[1]), [line.split(":")[0] for line in lines], body


_COMMON = ["Api-Version", "Content-Type", "Docker-Experimental", "Ostype", "Server", "Date", "Content-Length"]


@pytest.mark.parametrize(
    ("request_head", "status", "message"),
    [
        ("POST /session HTTP/1.1\r\nHost: d\r\n\r\n", 400, "no upgrade proto in request"),
        ("POST /session HTTP/1.1\r\nHost: d\r\nUpgrade: foo\r\n\r\n", 400, "protocol foo not supported"),
        ("POST /session HTTP/1.1\r\nHost: d\r\nUpgrade: H2C\r\n\r\n", 400, "protocol H2C not supported"),
        ("POST /grpc HTTP/1.1\r\nHost: d\r\n\r\n", 500, "no upgrade proto in request"),
        (
            "GET /v1.99/version HTTP/1.1\r\nHost: d\r\n\r\n",
            400,
            "client version 1.99 is too new. Maximum supported API version is 1.51",
        ),
    ],
)
async def test_refusals_are_those_that_were_seen(request_head, status, message):
    """Status, header lines in their order, and the body to its newline, as 28.5.2 answered the same requests."""
    assert await _ask(request_head) == (status, _COMMON, json.dumps({"message": message}, separators=(",", ":")) + "\n")


@pytest.mark.parametrize("method_and_path", ["GET /nope", "GET /session", "DELETE /v1.41/grpc"])
async def test_what_is_no_route_is_not_found(method_and_path):
    """What the daemon has no route for never reaches the part that names the engine."""
    answer = await _ask(f"{method_and_path} HTTP/1.1\r\nHost: d\r\n\r\n")
    assert answer == (404, ["Content-Type", "Date", "Content-Length"], '{"message":"page not found"}\n')


async def test_our_own_client_reads_the_identity():
    """The Engine API client sees version and ping of the fake as of an engine, also under a versioned path."""
    async with FakeDaemon.listen(api_version="1.47") as daemon:
        api = EngineApi(daemon.endpoint)
        assert (await api.ping()).api_version == "1.47"
        assert (await api.get_json("/version"))["ApiVersion"] == "1.47"
        assert (await api.get_json("/v1.41/info"))["OSType"] == "linux"
        assert daemon.requests[-1] == ("GET", "/info")


async def test_one_connection_serves_several_requests():
    """Requests on one connection are answered one after the other."""
    status, _, body = await _ask("GET /_ping HTTP/1.1\r\nHost: d\r\n\r\nGET /nope HTTP/1.1\r\nHost: d\r\n\r\n")
    assert status == 200
    assert body.startswith("OKHTTP/1.1 404")


async def test_what_was_sent_behind_the_request_is_lost():
    """Bytes that come before the 101 was read do not reach HTTP/2: as with the real one, they are dropped."""
    async with FakeDaemon() as daemon:
        stream = await daemon.dial()
        request = b"POST /session HTTP/1.1\r\nHost: d\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: early\r\n\r\n"
        await stream.send_all(request + b"this is no HTTP/2")
        await stream.receive_some()
        await trio.testing.wait_all_tasks_blocked()
        assert not daemon.sessions["early"].channel.closed.is_set()


async def test_an_id_is_refused_while_it_is_registered():
    """The second session of an ID is refused in the words by which clients know it."""
    async with FakeDaemon() as daemon, Session(daemon.dialer, session_id="twice").attach():
        with pytest.raises(SessionIdInUse) as caught:
            async with Session(daemon.dialer, session_id="twice").attach():
                pytest.fail("attached")
    assert caught.value.reason == "session twice already exists"


async def test_methods_are_one_a_line_and_lower_case():
    """A joined line is one long method, and what is kept is in lower case, as engines keep it."""
    async with FakeDaemon() as daemon:
        fields = [
            ("X-Docker-Expose-Session-Uuid", "abc"),
            ("X-Docker-Expose-Session-Grpc-Method", "/a.B/C"),
            ("X-Docker-Expose-Session-Grpc-Method", "/a.B/D, /a.B/E"),
        ]
        stream = await hijack(await daemon.dial(), "/session", fields)
        caller = daemon.sessions["abc"]
        assert caller.methods == ("/a.b/c", "/a.b/d, /a.b/e")
        assert caller.supports("/A.B/C")
        assert not caller.supports("/a.B/D")
        await stream.aclose()


async def test_a_daemon_in_memory_has_no_address():
    """Who asks for one is told what to use."""
    async with FakeDaemon() as daemon:
        with pytest.raises(ValueError, match="no address"):
            _ = daemon.endpoint


async def test_grpc_is_refused_where_it_is_told_to():
    """Faults of ``/grpc`` are its own: sessions still open."""
    async with FakeDaemon(grpc_faults=Faults(refusal=Refusal(404, "page not found"))) as daemon:
        with pytest.raises(UpgradeRefused):
            await hijack(await daemon.dial(), "/grpc")
        async with Session(daemon.dialer).attach():
            pass


async def test_a_socket_of_the_users_choice(tmp_path):
    """The daemon listens where it is told to, and takes the socket away at its end."""
    path = tmp_path / "docker.sock"
    async with FakeDaemon.listen(path) as daemon:
        assert daemon.host == f"unix://{path}"
        assert (await EngineApi(daemon.endpoint).ping()).os_type == "linux"
    assert not path.exists()


async def test_a_socket_that_cannot_be_made(tmp_path):
    """Where the socket cannot be bound, the system's own error comes out, and nothing is left open."""
    with pytest.raises(FileNotFoundError):
        async with FakeDaemon.listen(tmp_path / "missing" / "docker.sock"):
            pytest.fail("listens")

"""Plain requests: heads, bodies, endless lines, and daemons that are none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import h11
import pytest
import trio
import trio.testing

from mobysession import errors, limits
from mobysession.transport.api import EngineApi, Ping
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobysession.transport.http import Response
    from tests.transport.conftest import Daemon, Serve

PING = (
    b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nBuilder-Version: 2\r\nDocker-Experimental: true\r\nOstype: linux\r\n"
    b"Swarm: inactive\r\nServer: Docker/28.5.2 (linux)\r\nContent-Length: 2\r\n\r\n"
)
EXPECTED = Ping(
    api_version="1.51",
    builder_version="2",
    os_type="linux",
    experimental=True,
    swarm="inactive",
    server="Docker/28.5.2 (linux)",
)


def chunked(*chunks: bytes, head: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\n" + head + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


async def test_ping_reads_the_header_lines(serve: Serve, daemon: Daemon) -> None:
    """What an engine says of itself is in the head of its answer."""
    async with serve(daemon.answer(PING)) as endpoint:
        ping = await EngineApi(endpoint).ping()
    assert ping == EXPECTED
    assert ping.api == (1, 51)
    assert daemon.heard.startswith(b"HEAD /_ping HTTP/1.1\r\nHost: api.moby.localhost\r\n")


async def test_ping_reads_the_header_lines_of_an_error_too(serve: Serve, daemon: Daemon) -> None:
    """An engine in trouble still says what it is."""
    async with serve(daemon.answer(PING.replace(b"200 OK", b"500 Oops"))) as endpoint:
        assert await EngineApi(endpoint).ping() == EXPECTED


@pytest.mark.parametrize("refusal", [b"HTTP/1.1 404 Not Found\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_old_engines_are_asked_again(serve: Serve, daemon: Daemon, refusal: bytes) -> None:
    """Where HEAD gives nothing, GET is tried; an engine that says OK and no version has the oldest."""

    async def old(stream: trio.abc.Stream) -> None:
        head = await daemon.head(stream)
        await stream.send_all(
            refusal if head.startswith(b"HEAD") else b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
        )

    async with serve(old) as endpoint:
        assert await EngineApi(endpoint).ping() == Ping(api_version="1.24")


@pytest.mark.parametrize("version", [b"", b"1", b"x.y", b"1.\xb2", "1.٢".encode()])
async def test_a_nonsensical_version_is_the_oldest(serve: Serve, daemon: Daemon, version: bytes) -> None:
    """Nothing that a peer writes there breaks the comparison of versions."""
    answer = b"HTTP/1.1 200 OK\r\nApi-Version: " + version + b"\r\nContent-Length: 2\r\n\r\nOK"
    async with serve(daemon.answer(answer)) as endpoint:
        assert (await EngineApi(endpoint).ping()).api == (1, 24)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000,
    ],
    ids=["404", "page", "long-page"],
)
async def test_another_web_server_is_no_daemon(serve: Serve, daemon: Daemon, answer: bytes) -> None:
    """Whoever answers /_ping in another way is told for what it says it is."""

    async def nginx(stream: trio.abc.Stream) -> None:
        head = await daemon.head(stream)
        await stream.send_all(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head.startswith(b"HEAD") else answer)

    async with serve(nginx) as endpoint:
        with pytest.raises(errors.HandshakeError) as caught:
            await EngineApi(endpoint).ping()
    assert str(endpoint) in str(caught.value)


async def test_a_json_document_is_asked_for(serve: Serve, daemon: Daemon) -> None:
    """The path is sent without a version, behind the header lines of the configuration."""
    async with serve(daemon.answer(chunked(b'{"Vers', b'ion":"1"}'))) as plain:
        endpoint = Endpoint.parse(plain.url, headers=(("X-Meta", "v"),))
        assert await EngineApi(endpoint).version() == {"Version": "1"}
    assert daemon.heard.startswith(b"GET /version HTTP/1.1\r\n")
    assert b"\r\nX-Meta: v\r\n" in daemon.heard


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b'HTTP/1.1 403 Forbidden\r\n\r\n{"message":"denied"}', errors.ApiError, "GET /version: .* status 403: denied"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\nhalf", errors.ApiError, "status 500: half"),
        (b"HTTP/1.1 500 Oops\r\n\r\n", errors.ApiError, "status 500: Oops"),
        (chunked(b"[]"), errors.HandshakeError, "not a JSON object"),
        (chunked(b"{"), errors.HandshakeError, "not a JSON object"),
        (chunked(b'{"a":' * 200_000), errors.HandshakeError, "not a JSON object"),
        (chunked(b"{}")[:-9], errors.ConnectionLost, "in the middle"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", errors.HandshakeError, "not valid HTTP"),
        (b"", errors.ConnectionLost, "without an answer"),
        (b"-ERR unknown command\r\n", errors.HandshakeError, "does not speak HTTP"),
    ],
)
async def test_an_answer_that_is_no_document_is_told(
    serve: Serve, daemon: Daemon, answer: bytes, kind: type[errors.MobysessionError], words: str
) -> None:
    """An error of the engine is in its own words, anything else in ours."""
    async with serve(daemon.answer(answer)) as endpoint:
        with pytest.raises(kind, match=words) as caught:
            await EngineApi(endpoint).version()
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("head", "hint"),
    [
        (
            b"404 Not Found\r\nServer: nginx",
            "It says that it is nginx, and nothing in its answer tells of a Docker daemon",
        ),
        (b"404 Not Found", "Nothing in its answer tells of a Docker daemon"),
        (b"403 Forbidden\r\nApi-Version: 1.51", None),
        (b"503 Busy", None),  # a proxy's, with a daemon behind it
    ],
)
async def test_an_error_of_a_stranger_is_told_as_such(
    serve: Serve, daemon: Daemon, head: bytes, hint: str | None
) -> None:
    """And names the address, which is what has to be mended."""
    async with serve(daemon.answer(b"HTTP/1.1 " + head + b"\r\nContent-Length: 2\r\n\r\nno")) as endpoint:
        with pytest.raises(errors.ApiError) as caught:
            await EngineApi(endpoint).version()
    assert str(endpoint) in caught.value.message
    assert caught.value.hint == (f"{hint}: check the address." if hint else None)


async def test_an_engine_that_stalls_is_given_up(
    serve: Serve, daemon: Daemon, autojump_clock: trio.testing.MockClock
) -> None:
    """Neither a missing head nor a missing body is waited for without end."""
    for part, words in ((b"", "did not answer"), (b"HTTP/1.1 200 OK\r\n\r\n{", "did not finish its answer")):
        async with serve(daemon.answer(*filter(None, [part]), close=False)) as endpoint:
            with pytest.raises(errors.HandshakeTimeout, match=words):
                await EngineApi(endpoint).get_json("/version", timeout=5)


async def test_lines_are_read_at_any_length(serve: Serve, daemon: Daemon) -> None:
    """A streamed answer comes line by line, however it is cut and however long a line is."""
    long = b"x" * 300_000
    answer = chunked(b"one\r\ntw", b"o\n\n", long[:100_000], long[100_000:], b"\nlast")
    async with (
        serve(daemon.answer(answer)) as endpoint,
        EngineApi(endpoint).request("POST", "/build?version=2") as response,
    ):
        assert response.status == 200
        assert [line async for line in response.lines()] == [b"one", b"two", b"", long, b"last"]


async def test_lines_and_bodies_have_their_bounds(serve: Serve, daemon: Daemon) -> None:
    """Up to the bound they are given, beyond it the answer is refused."""
    for size, fits in ((64, True), (65, False)):
        async with serve(daemon.answer(chunked(b"x" * size))) as endpoint:
            for read in (_body, _lines):
                async with EngineApi(endpoint).request("GET", "/x") as response:
                    if fits:
                        assert await read(response) == b"x" * size
                    else:
                        with pytest.raises(errors.HandshakeError, match="longer than 64"):
                            await read(response)


async def _body(response: Response) -> bytes:
    return await response.read(64)


async def _lines(response: Response) -> bytes:
    return b"".join([line async for line in response.lines(64)])


async def upload(daemon: Daemon, stream: trio.abc.Stream) -> tuple[h11.Request, bytes]:
    """Read a request to its end."""
    connection = h11.Connection(h11.SERVER)
    request, body = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            assert request is not None
            return request, body


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await trio.lowlevel.checkpoint()
        yield chunk


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_body_is_sent_whole(serve: Serve, daemon: Daemon, streamed: bool) -> None:
    """Bytes go with their length, an iterator in chunks; both arrive as they are."""
    content = b"tar" * 200_000
    heard = []

    async def engine(stream: trio.abc.Stream) -> None:
        heard.append(await upload(daemon, stream))
        await stream.send_all(chunked(b"done"))

    body = pieces(content[:7], b"", content[7:]) if streamed else content
    async with (
        serve(engine) as endpoint,
        EngineApi(endpoint).request("POST", "/build", headers=[("Content-Type", "application/x-tar")], body=body) as r,
    ):
        assert await r.read() == b"done"
    [(request, received)] = heard
    assert received == content
    names = {name for name, _ in request.headers}
    assert b"content-type" in names
    assert (b"transfer-encoding" if streamed else b"content-length") in names


async def test_an_answer_before_the_end_of_the_body_counts(serve: Serve, daemon: Daemon) -> None:
    """An engine that refuses and closes in the middle of an upload is heard, and the upload is no error."""

    async def refuse(stream: trio.abc.Stream) -> None:
        await daemon.head(stream)
        await stream.send_all(b'HTTP/1.1 413 Large\r\nConnection: close\r\n\r\n{"message":"too much"}')

    async with (
        serve(refuse) as endpoint,
        EngineApi(endpoint).request("POST", "/build", body=pieces(*[b"x" * 65536] * 64)) as response,
    ):
        assert response.status == 413
        assert (await response.error("build")).message == f"build: {endpoint} answered with status 413: too much"


async def test_a_body_that_is_not_sent_to_its_end_is_closed(serve: Serve, daemon: Daemon) -> None:
    """A generator whose rest nobody wants is closed inside the request, and not when it is garbage."""
    closed = trio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed.set()

    endless = body()  # held, so that the garbage collector does not do the work
    async with (
        serve(daemon.answer(b"HTTP/1.1 413 Large\r\nConnection: close\r\n\r\n")) as endpoint,
        EngineApi(endpoint).request("POST", "/build", body=endless) as response,
    ):
        assert response.status == 413
        await closed.wait()


async def test_an_answer_is_read_while_the_body_is_sent(serve: Serve, daemon: Daemon) -> None:
    """Output that comes before the upload has ended is given at once."""

    async def both(stream: trio.abc.Stream) -> None:
        await daemon.head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nline\n")
        while not daemon.heard.endswith(b"0\r\n\r\n"):
            daemon.heard += bytes(await stream.receive_some())

    more = trio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await more.wait()
        yield b"second"

    async with serve(both) as endpoint, EngineApi(endpoint).request("POST", "/build", body=body()) as response:
        lines = []
        async for line in response.lines():
            more.set()
            lines.append(line)
    assert lines == [b"line"]
    assert b"second" in daemon.heard


async def test_a_failing_body_is_its_own_error(serve: Serve, daemon: Daemon) -> None:
    """What the body's iterator raises reaches the caller as it is, and the connection is closed."""

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        raise LookupError("gone")

    async with serve(daemon.answer(close=False)) as endpoint:
        with pytest.raises(LookupError, match="gone"):
            async with EngineApi(endpoint).request("POST", "/build", body=body()):
                pass


async def test_the_callers_error_passes_through(serve: Serve, daemon: Daemon) -> None:
    """An exception in the block is raised as itself, also while a body is being sent."""

    async def body() -> AsyncIterator[bytes]:
        await trio.Event().wait()
        yield b""

    async with serve(daemon.answer(b"HTTP/1.1 200 OK\r\n\r\n", close=False)) as endpoint:
        with pytest.raises(LookupError, match="mine"):
            async with EngineApi(endpoint).request("POST", "/build", body=body()):
                raise LookupError("mine")


async def test_an_engine_that_stops_reading_is_given_up(
    serve: Serve, daemon: Daemon, autojump_clock: trio.testing.MockClock
) -> None:
    """An upload that gets stuck ends in time; one that waits for its own source does not."""

    async def deaf(stream: trio.abc.Stream) -> None:
        await daemon.head(stream)
        await trio.sleep(1000)

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        await trio.sleep(100)
        yield b"second"

    async with serve(deaf) as endpoint:
        start = trio.current_time()
        with pytest.raises(errors.HandshakeTimeout):
            async with EngineApi(endpoint).request("POST", "/build", body=b"x" * 10_000_000):
                pass
        assert trio.current_time() - start == pytest.approx(limits.HANDSHAKE_TIMEOUT, abs=1)
        start = trio.current_time()
        with pytest.raises(errors.HandshakeTimeout):
            async with EngineApi(endpoint).request("POST", "/build", body=slow()):
                pass
        assert trio.current_time() - start == pytest.approx(100 + limits.HANDSHAKE_TIMEOUT, abs=1)


async def test_patience_can_be_endless(serve: Serve, daemon: Daemon, autojump_clock: trio.testing.MockClock) -> None:
    """A request that may take hours is waited for."""

    async def slow(stream: trio.abc.Stream) -> None:
        await daemon.head(stream)
        await trio.sleep(10_000)
        await stream.send_all(chunked(b"done"))

    async with serve(slow) as endpoint, EngineApi(endpoint).request("GET", "/x", patience=math.inf) as response:
        assert await response.read() == b"done"


@pytest.mark.parametrize(("method", "path"), [("GET", "/a b"), ("GET", "/ä"), ("G ET", "/")])
async def test_a_request_that_cannot_be_written_is_the_callers_error(
    serve: Serve, daemon: Daemon, method: str, path: str
) -> None:
    """What would break HTTP is refused."""
    async with serve(daemon.answer()) as endpoint:
        with pytest.raises(errors.UsageError):
            async with EngineApi(endpoint).request(method, path):
                pass

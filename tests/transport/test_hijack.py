"""The hijack over real sockets, and the stream that it gives."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from mobysession import errors
from mobysession.protocol.handshake import Upgraded
from mobysession.transport.dial import dial
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.hijack import HalfCloseableHijackedStream, HijackedStream, hijack

if TYPE_CHECKING:
    from tests.transport.conftest import Daemon, Serve

ACCEPTED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.parametrize(
    "parts",
    [(ACCEPTED + PREFACE,), (ACCEPTED, PREFACE), (ACCEPTED[:9], ACCEPTED[9:-1], ACCEPTED[-1:] + PREFACE)],
    ids=["at-once", "apart", "in-pieces"],
)
async def test_what_follows_the_head_is_the_streams_first_input(
    serve: Serve, daemon: Daemon, parts: tuple[bytes, ...]
) -> None:
    """Whether it came with the head or after it, the daemon's preface is read first, and nothing else is lost."""
    async with serve(daemon.answer(*parts)) as endpoint, await hijack(endpoint, "/session") as stream:
        received = b""
        while data := await stream.receive_some():
            received += data
        assert received == PREFACE
        assert stream.status_line == "HTTP/1.1 101 UPGRADED"
        assert ("upgrade", "h2c") in stream.headers


async def test_nothing_is_sent_before_the_answer(serve: Serve, daemon: Daemon) -> None:
    """Until the 101 has been read, the request is all there is on the wire."""
    asked = trio.Event()
    silent = []

    async def handle(stream: trio.abc.Stream) -> None:
        await daemon.head(stream)
        with trio.move_on_after(0.02) as scope:
            await stream.receive_some()
        silent.append(scope.cancelled_caught)
        await stream.send_all(ACCEPTED)
        daemon.heard = bytes(await stream.receive_some())
        asked.set()

    async with serve(handle) as endpoint, await hijack(endpoint, "/session") as stream:
        await stream.send_all(b"first")
        await asked.wait()
    assert silent == [True]
    assert daemon.heard == b"first"


async def test_the_request_carries_the_endpoints_prefix_host_and_headers(serve_tcp: Serve, daemon: Daemon) -> None:
    """A path in the address stands before the target; configured header lines come first, framing ones are dropped."""
    async with serve_tcp(daemon.answer(ACCEPTED)) as plain:
        endpoint = Endpoint.parse(f"{plain.url}/docker", headers=(("X-Meta", "v"), ("Host", "evil")))
        fields = [("X-Method", "/a/b"), ("X-Method", "/c/d")]
        async with await hijack(endpoint, "/session", fields):
            pass
    lines = daemon.heard.decode().split("\r\n")
    assert lines[0] == "POST /docker/session HTTP/1.1"
    assert lines[1] == f"Host: {plain.host}"
    assert lines[4:7] == ["X-Meta: v", "X-Method: /a/b", "X-Method: /c/d"]
    assert "evil" not in daemon.heard.decode()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b'HTTP/1.1 400 Bad\r\nContent-Length: 16\r\n\r\n{"message":"no"}', errors.UpgradeRefused, "status 400: no"),
        (b"HTTP/1.1 101 Ok\r\nUpgrade: tcp\r\n\r\n", errors.UpgradeRefused, "'tcp'"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", errors.HandshakeError, "SSH-2.0"),
        (b"", errors.ConnectionLost, "without an answer"),
        (b"HTTP/1.1 101", errors.ConnectionLost, "in the middle"),
    ],
)
async def test_what_is_no_acceptance_is_told_and_the_connection_closed(
    serve: Serve, daemon: Daemon, answer: bytes, kind: type[errors.MobysessionError], words: str
) -> None:
    """The error is of the right class, names the endpoint and says why."""
    async with serve(daemon.answer(answer)) as endpoint:
        with pytest.raises(kind) as caught:
            await hijack(endpoint, "/session")
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert str(endpoint) in str(caught.value)


async def test_a_daemon_that_never_answers_is_given_up(serve: Serve, daemon: Daemon) -> None:
    """Accepting the connection is no answer."""
    async with serve(daemon.answer(close=False)) as endpoint:
        with pytest.raises(errors.HandshakeTimeout, match="did not answer POST /session within"):
            await hijack(endpoint, "/session", timeout=0.05)


async def test_a_daemon_that_dribbles_is_given_up(serve: Serve, autojump_clock: trio.testing.MockClock) -> None:
    """A byte now and then does not extend the time limit."""

    async def dribble(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 101 ")
        while True:
            await stream.send_all(b"x")
            await trio.sleep(1)

    async with serve(dribble) as endpoint:
        with pytest.raises(errors.HandshakeTimeout, match=r"did not end its answer .* within 20 seconds"):
            await hijack(endpoint, "/session")


async def test_a_daemon_that_resets_is_told(serve_tcp: Serve) -> None:
    """A reset is a lost connection with the system's own words."""

    async def reset(stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SocketStream)
        await stream.receive_some(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with serve_tcp(reset) as endpoint:
        with pytest.raises(errors.ConnectionLost, match="reset by peer"):
            await hijack(endpoint, "/session")


async def test_a_refusal_that_overtakes_the_request_is_read(daemon: Daemon) -> None:
    """Who closes before the request was sent may have said why."""

    async def broken() -> None:
        raise trio.BrokenResourceError

    ours, theirs = trio.testing.memory_stream_pair()
    ours.send_stream.send_all_hook = broken
    await theirs.send_all(b'HTTP/1.1 503 Busy\r\nContent-Length: 18\r\n\r\n{"message":"busy"}')
    with pytest.raises(errors.UpgradeRefused, match="busy"):
        await hijack(ours, "/session")


async def test_a_stream_that_was_dialled_already_is_taken_over(serve: Serve, daemon: Daemon) -> None:
    """A given stream is used, named after its endpoint, and closed when the hijack fails."""
    async with serve(daemon.answer(b"nonsense!", close=False)) as endpoint:
        stream = await dial(endpoint)
        with pytest.raises(errors.HandshakeError, match=r"docker 0%20\.sock"):
            await hijack(stream, "/session", endpoint=endpoint)
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


async def test_a_request_that_cannot_be_written_is_not_dialled() -> None:
    """The caller's error comes before any connection; a given stream is closed all the same."""
    with pytest.raises(errors.UsageError):
        await hijack(Endpoint.parse("unix:///nowhere"), "/session", [("a b", "x")])
    ours, theirs = trio.testing.memory_stream_pair()
    with pytest.raises(errors.UsageError):
        await hijack(ours, "/session", [("a b", "x")])
    assert await theirs.receive_some() == b""


def wrapped(stream: trio.abc.HalfCloseableStream, leftover: bytes) -> HalfCloseableHijackedStream:
    return HalfCloseableHijackedStream(stream, Upgraded("HTTP/1.1 101", (), leftover))


async def test_the_stream_keeps_trios_contract() -> None:
    """What trio demands of every stream that can be closed in one direction, the hijacked one does."""

    async def make() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        left, right = trio.socket.socketpair()
        return wrapped(trio.SocketStream(left), b""), wrapped(trio.SocketStream(right), b"")

    async def make_clogged() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        left, right = socket.socketpair()
        for sock in (left, right):
            sock.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    sock.send(b"x" * 65536)
        streams = [trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in (left, right)]
        return wrapped(streams[0], b""), wrapped(streams[1], b"")

    await trio.testing.check_half_closeable_stream(make, make_clogged)


async def test_the_leftover_is_read_in_pieces_of_any_size() -> None:
    """The bound of a read counts for the leftover too, and what follows is not mixed up."""
    left, right = trio.testing.memory_stream_pair()
    stream = wrapped(left, b"abcde")
    await right.send_all(b"fgh")
    assert [await stream.receive_some(size) for size in (2, 2, 2, 2, None)] == [b"ab", b"cd", b"e", b"fg", b"h"]
    with pytest.raises(ValueError, match="at least 1"):
        await wrapped(left, b"x").receive_some(0)


async def test_a_cancelled_read_keeps_the_leftover() -> None:
    """Cancelling loses no byte."""
    stream = wrapped(trio.testing.memory_stream_pair()[0], b"abc")
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.receive_some()
    assert await stream.receive_some() == b"abc"


async def test_a_closed_stream_gives_no_leftover() -> None:
    """After closing, reading is an error, whatever was left over; closing twice is none."""
    stream = wrapped(trio.testing.memory_stream_pair()[0], b"abc")
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    await stream.aclose()


async def test_a_stream_that_cannot_be_half_closed_does_not_claim_to() -> None:
    """Over a connection without half-close, the hijacked stream has none either."""
    stream = HijackedStream(trio.testing.memory_stream_pair()[0], Upgraded("", (), b""))
    assert not isinstance(stream, trio.abc.HalfCloseableStream)
    await stream.wait_send_all_might_not_block()

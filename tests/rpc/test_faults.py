"""What a broken line does to a connection, and what not: afterwards no task is left, and the errors are typed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession.errors import ConnectionLost, MobysessionError, RemoteProtocolError, RpcError, StatusCode
from mobysession.rpc.client import open_channel
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from mobysession.testing.memory import MemoryStream, memory_connection
from tests.fuzz.seeds import PREFACE, conversations, frames_of
from tests.rpc.conftest import socket_stream_pair
from tests.rpc.raw_peer import RawPeer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mobysession.rpc.client import Channel
    from mobysession.rpc.server import Server, ServerCall

#: What a daemon said in a whole build with an SSH agent: health, CheckAgent, DiffCopy, resets, a goodbye.
SESSION = conversations()["session-28.5.2-ssh"].said
#: What another answered to the first and the third of our calls on ``/grpc``.
CONTROL = b"".join(frames_of(conversations()["control-20.10.24-missing-dockerfile"].said)[:10])
CONTROL_CALLS = 3
#: Where that is cut: everywhere, but less often within its one large message.
CUTS = [size for size in range(len(CONTROL)) if size < 260 or size % 47 == 0 or size > len(CONTROL) - 30]
_SLOW = "/grpc.health.v1.Health/Check"


class Calls:
    """Hosts every method that the recording calls, and keeps account of them."""

    def __init__(self) -> None:
        self.started = 0
        self.ended: list[tuple[StatusCode, BaseException | None]] = []
        self.registrar = Registrar()
        for method in (
            _SLOW,
            "/moby.filesync.v1.FileSync/DiffCopy",
            "/moby.sshforward.v1.SSH/CheckAgent",
            "/moby.sshforward.v1.SSH/ForwardAgent",
            "/moby.filesync.v1.Auth/GetTokenAuthority",
        ):
            self.registrar.stream(method, self.serve)

    async def serve(self, call: ServerCall) -> None:
        """Read all there is, answer twice as much, and give others a turn in between."""
        while batch := await call.receive_batch():
            await call.send_batch([*batch, b"x" * 100])
            await trio.sleep(0.001)

    def on_started(self, _call: ServerCall) -> None:
        """Count a call."""
        self.started += 1

    def on_ended(self, _call: ServerCall, code: StatusCode, _message: str, error: BaseException | None) -> None:
        """Keep how it ended."""
        self.ended.append((code, error))

    def check(self) -> None:
        """Every call that began has ended, and none of them with a bug of ours."""
        assert len(self.ended) == self.started
        for _code, error in self.ended:
            assert error is None or isinstance(error, MobysessionError)


def tasks() -> int:
    """Return how many tasks there are."""
    return trio.lowlevel.current_statistics().tasks_living


async def swallow(stream: trio.abc.Stream) -> None:
    """Read what the other side says until it ends."""
    try:
        while await stream.receive_some():
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


@asynccontextmanager
async def neighbour() -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Open a connection that has nothing to do with the broken one; yield what makes a call on it."""

    async def echo(call: ServerCall) -> None:
        message = await call.receive()
        await call.send(message or b"")

    registrar = Registrar()
    registrar.stream("/t.S/echo", echo)
    ours, theirs = memory_connection()
    async with open_server(ours, registrar), open_channel(theirs) as channel:

        async def ask() -> None:
            async with channel.open_call("/t.S/echo") as call:
                await call.end(b"hello")
                assert await call.receive() == b"hello"
                assert await call.receive() is None

        await ask()
        await trio.testing.wait_all_tasks_blocked()
        yield ask


async def play(said: bytes, then: Callable[[MemoryStream], Awaitable[None]]) -> tuple[Server, Calls]:
    """Let a server hear ``said``, then let ``then`` happen to the line; return both once all is over."""
    before = tasks()
    calls = Calls()
    ours, theirs = memory_connection()
    with trio.fail_after(60):
        async with (
            trio.open_nursery() as nursery,
            open_server(
                ours, calls.registrar, on_call_started=calls.on_started, on_call_ended=calls.on_ended
            ) as server,
        ):
            nursery.start_soon(swallow, theirs)
            await theirs.send_all(said)
            await then(theirs)
            await server.closed.wait()
            # Only the first of the callers of a handler's scope is left to see it end.
            await trio.testing.wait_all_tasks_blocked()
            await trio.aclose_forcefully(theirs)
    calls.check()
    assert server.calls == {}
    assert tasks() == before
    return server, calls


async def hang_up(stream: MemoryStream) -> None:
    """End the line in order."""
    await stream.aclose()


async def half_close(stream: MemoryStream) -> None:
    """Say no more, and go on reading."""
    await stream.send_eof()


async def reset(stream: MemoryStream) -> None:
    """End the line without order."""
    await stream.reset()


@pytest.mark.parametrize("end", [hang_up, half_close, reset])
async def test_a_session_that_is_cut_after_any_byte(
    end: Callable[[MemoryStream], Awaitable[None]], autojump_clock
) -> None:
    """Wherever the daemon's half breaks off, and however, the calls end, and the failure says that the line is lost."""
    async with neighbour() as ask:
        for size in range(len(SESSION)):
            server, _ = await play(SESSION[:size], end)
            assert isinstance(server.failure, ConnectionLost), size
        await ask()


async def test_a_session_that_stalls_after_any_frame(autojump_clock) -> None:
    """A daemon that says nothing more does not keep the session from ending, in bounded time and in order."""

    async def stall(stream: MemoryStream) -> None:
        await trio.testing.wait_all_tasks_blocked()
        stalled.append(tasks())

    stalled: list[int] = []
    frames = frames_of(SESSION)
    for number in range(len(frames) + 1):
        calls = Calls()
        ours, theirs = memory_connection()
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            async with open_server(
                ours, calls.registrar, on_call_started=calls.on_started, on_call_ended=calls.on_ended
            ) as server:
                nursery.start_soon(swallow, theirs)
                await theirs.send_all(b"".join(frames[:number]))
                await stall(theirs)
            assert server.closed.is_set()
            await theirs.aclose()
        calls.check()
        assert trio.current_time() - started < 5
    assert len(stalled) == len(frames) + 1


@pytest.mark.parametrize("garbage", [b"\0" * 40, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 30, PREFACE])
async def test_garbage_after_any_frame(garbage: bytes, autojump_clock) -> None:
    """Bytes that are no HTTP/2 end the connection with the protocol's error, or as one that broke off in a frame."""
    frames = frames_of(SESSION)
    async with neighbour() as ask:
        for number in range(len(frames)):
            server, _ = await play(b"".join(frames[:number]) + garbage, hang_up)
            assert isinstance(server.failure, RemoteProtocolError | ConnectionLost)
            if number and garbage == b"\xff" * 30:
                assert isinstance(server.failure, RemoteProtocolError), number
        await ask()


async def test_doubled_and_exchanged_chunks(autojump_clock) -> None:
    """Pieces that arrive twice, or in another order, end the connection with a typed error, or change the calls."""
    frames = frames_of(SESSION)
    broken = 0
    for number in range(1, len(frames) - 1):
        doubled = [*frames[: number + 1], frames[number], *frames[number + 1 :]]
        exchanged = [*frames[:number], frames[number + 1], frames[number], *frames[number + 2 :]]
        for pieces in (doubled, exchanged):
            server, _ = await play(b"".join(pieces), hang_up)
            assert isinstance(server.failure, RemoteProtocolError | ConnectionLost)
            broken += isinstance(server.failure, RemoteProtocolError)
    assert broken > 0


async def test_a_line_that_is_cut_while_we_send(autojump_clock) -> None:
    """A line that breaks under any byte of ours ends the calls, and shows as a lost connection."""
    for size in range(0, 400, 3):
        calls = Calls()
        ours, theirs = memory_connection()
        line = Breaking(ours, size)
        with trio.fail_after(60):
            async with (
                trio.open_nursery() as nursery,
                open_server(
                    line, calls.registrar, on_call_started=calls.on_started, on_call_ended=calls.on_ended
                ) as server,
            ):
                nursery.start_soon(swallow, theirs)
                # The daemon's goodbye is left out: it would be the end in any case.
                await theirs.send_all(SESSION[:400])
                await server.closed.wait()
                await trio.aclose_forcefully(theirs)
        calls.check()
        assert isinstance(server.failure, ConnectionLost)


class Breaking(trio.abc.Stream):
    """A stream that takes so many bytes and then breaks."""

    def __init__(self, stream: trio.abc.Stream, size: int) -> None:
        self._stream = stream
        self._left = size

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send what is left to send."""
        await self._stream.send_all(memoryview(data)[: self._left])
        self._left -= len(data)
        if self._left < 0:
            raise trio.BrokenResourceError("broken on purpose")

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for nothing."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read from the stream below, until this one is broken."""
        if self._left < 0:
            raise trio.BrokenResourceError("broken on purpose")
        with trio.move_on_after(1):
            return bytes(await self._stream.receive_some(max_bytes))
        raise trio.BrokenResourceError("broken on purpose")

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()


# -- the client's side -------------------------------------------------------------------------------------------------


async def ask_recorded(channel: Channel, outcomes: list[RpcError | None]) -> None:
    """Make one of the calls that the recording answers."""
    try:
        async with channel.open_call("/moby.buildkit.v1.Control/Info", timeout=20) as call:
            await call.end(b"")
            while await call.receive() is not None:
                pass
        outcomes.append(None)
    except RpcError as error:
        outcomes.append(error)


async def play_to_client(said: bytes, end: Callable[[MemoryStream], Awaitable[None]]) -> list[RpcError | None]:
    """Let a client with four calls hear ``said`` and what ``end`` does; return how the calls ended."""
    before = tasks()
    outcomes: list[RpcError | None] = []
    ours, theirs = memory_connection()
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(swallow, theirs)
            async with open_channel(ours) as channel, trio.open_nursery() as calls:
                for _ in range(CONTROL_CALLS):
                    calls.start_soon(ask_recorded, channel, outcomes)
                    await trio.testing.wait_all_tasks_blocked()
                await theirs.send_all(said)
                await end(theirs)
            await trio.aclose_forcefully(theirs)
    assert tasks() == before
    assert len(outcomes) == CONTROL_CALLS
    return outcomes


@pytest.mark.parametrize("end", [hang_up, half_close, reset])
async def test_answers_that_are_cut_after_any_byte(
    end: Callable[[MemoryStream], Awaitable[None]], autojump_clock
) -> None:
    """Wherever the answers break off, each call ends: OK where its answer was whole, else UNAVAILABLE and the cause."""
    answered = 0
    async with neighbour() as ask:
        for size in CUTS:
            outcomes = await play_to_client(CONTROL[:size], end)
            for error in outcomes:
                assert error is None or error.code is StatusCode.UNAVAILABLE, size
                assert error is None or isinstance(error.__cause__, ConnectionLost)
            # More bytes never make fewer answers.
            assert outcomes.count(None) >= answered
            answered = outcomes.count(None)
        await ask()
    assert answered == 1


async def test_answers_that_stall(autojump_clock) -> None:
    """A server that says nothing more costs a call its deadline, and nobody more than that."""

    async def stall(_stream: MemoryStream) -> None:
        await trio.lowlevel.checkpoint()

    frames = frames_of(CONTROL)
    for number in range(len(frames)):
        started = trio.current_time()
        outcomes = await play_to_client(b"".join(frames[:number]), stall)
        for error in outcomes:
            assert error is None or error.code is StatusCode.DEADLINE_EXCEEDED
        assert trio.current_time() - started < 25


# -- descriptors -------------------------------------------------------------------------------------------------------


async def test_sockets_are_closed_however_they_end(autojump_clock) -> None:
    """On real sockets the same cuts leave no descriptor open; the fixture that looks for them fails this test else."""
    for size in range(0, len(SESSION), 40):
        calls = Calls()
        ours, theirs = socket_stream_pair()
        async with (
            trio.open_nursery() as nursery,
            open_server(
                ours, calls.registrar, on_call_started=calls.on_started, on_call_ended=calls.on_ended
            ) as server,
        ):
            nursery.start_soon(swallow, theirs)
            await theirs.send_all(SESSION[:size])
            await theirs.send_eof()
            await server.closed.wait()
            await trio.aclose_forcefully(theirs)
        assert ours.socket.fileno() == -1
        calls.check()


# -- a window that never opens -----------------------------------------------------------------------------------------


async def test_a_peer_that_never_opens_its_window(autojump_clock) -> None:
    """The handler of such a call waits with a bounded queue; the others on its connection are answered past it."""
    sent: list[int] = []

    async def endless(call: ServerCall) -> None:
        while True:
            await call.send(bytes(100_000))
            sent.append(100_000)

    async def answer(call: ServerCall) -> None:
        await call.send(b"ok")

    registrar = Registrar()
    registrar.stream("/t.S/endless", endless)
    registrar.stream("/t.S/answer", answer)
    ours, theirs = memory_connection()
    before = tasks()
    async with open_server(ours, registrar) as server, trio.open_nursery() as nursery:
        peer = RawPeer(theirs, stream_window=0)
        nursery.start_soon(peer.run)
        for number in (1, 3, 5):
            peer.open_call(number, "/t.S/endless")
        await peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(100)
        assert sum(sent) <= 3 * (limits.SEND_QUEUE + 200_000)
        for number in (7, 9, 11):
            peer.open_call(number, "/t.S/answer")
            peer.h2.increment_flow_control_window(100, number)
            await peer.flush()
            await trio.testing.wait_all_tasks_blocked()
            assert peer.ended(number)
        assert peer.data(1) == 0
        assert not server.closed.is_set()
        nursery.cancel_scope.cancel()
    await theirs.aclose()
    assert tasks() == before


# -- one call of several -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        b"\0\0\x05\0\0\0\0\0\x01\7\0\0\0\0",  # a message with an invalid flag
        b"\0\0\4\3\0\0\0\0\1\0\0\0\2",  # RST_STREAM
        b"\0\0\4\x08\0\0\0\0\1\0\0\0\0",  # a WINDOW_UPDATE of nothing
        b"\0\0\x04\x01\x05\0\0\0\1\x00\x01a\x00",  # trailers with a pseudo field's neighbour
        b"\0\0\5\2\0\0\0\0\1\0\0\0\1\0",  # a stream that depends on itself
    ],
)
async def test_a_call_that_breaks_leaves_the_others_alive(broken: bytes, autojump_clock) -> None:
    """What is wrong with one call ends that one; its neighbour on the same connection is answered."""
    calls = Calls()
    ours, theirs = memory_connection()
    path = _SLOW.encode()
    opened = b"\x83\x86\x04" + bytes((len(path),)) + path + b"\x0f\x10\x10application/grpc"
    headers = len(opened).to_bytes(3, "big") + b"\1\4\0\0\0"
    async with (
        trio.open_nursery() as nursery,
        open_server(ours, calls.registrar, on_call_started=calls.on_started, on_call_ended=calls.on_ended) as server,
    ):
        nursery.start_soon(swallow, theirs)
        await theirs.send_all(PREFACE + b"\0\0\0\4\0\0\0\0\0")
        await theirs.send_all(headers + b"\1" + opened + headers + b"\3" + opened)
        await trio.testing.wait_all_tasks_blocked()
        assert calls.started == 2
        await theirs.send_all(broken)
        await trio.sleep(0.1)
        assert len(calls.ended) == 1
        assert not server.closed.is_set()
        await theirs.send_all(b"\0\0\7\0\1\0\0\0\3" + b"\0\0\0\0\2hi")
        await trio.sleep(0.1)
        assert calls.ended[1] == (StatusCode.OK, None)
        nursery.cancel_scope.cancel()

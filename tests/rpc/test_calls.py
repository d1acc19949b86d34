"""Calls between a channel and a server of ours, over every kind of stream."""

# ruff: noqa: ASYNC105, PT012, SIM117 - handlers not awaited here; a call fails where its block ends; a nursery within

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.settings
import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession._pb import health_pb2
from mobysession.errors import (
    ConnectionLost,
    MobysessionError,
    RemoteProtocolError,
    RpcError,
    SecretError,
    StatusCode,
    UsageError,
)
from mobysession.rpc.client import open_channel
from mobysession.rpc.registrar import Cardinality, Method, Registrar
from mobysession.rpc.server import ServerCall, open_server
from tests.rpc.conftest import PAIRS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Request, Response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
MIB = 1024 * 1024
_STATUSES = [Response.ServingStatus.Name(number) for number in range(3)]


def hosting(**handlers: Callable[[ServerCall], Awaitable[None]]) -> Registrar:
    """Return a registrar with one raw method for each name."""
    registrar = Registrar()
    for name, handler in handlers.items():
        registrar.stream(f"/t.S/{name}", handler)
    return registrar


async def echo(call: ServerCall) -> None:
    """Send every message back."""
    while batch := await call.receive_batch():
        await call.send_batch(batch)


async def forever(call: ServerCall) -> None:
    """Never read and never answer."""
    await trio.sleep_forever()


async def receive_all(call: Any) -> list[bytes]:
    """Return all messages of a call."""
    messages = []
    while (message := await call.receive()) is not None:
        messages.append(message)
    return messages


# -- cardinalities -----------------------------------------------------------------------------------------------------


async def test_unary(open_pair: Any, stream_pair: Any, ended: Any) -> None:
    """One message each way, decoded on both sides, with metadata both ways."""

    async def handle(request: Any, call: ServerCall) -> Any:
        assert call.values("color") == ["red", "blue"]
        assert call.time_remaining() is None
        call.trailing_metadata.append(("a", "b"))
        return Response(status=_STATUSES[len(request.service)])

    registrar = Registrar()
    registrar.unary_unary("/t.S/M", handle, Request)
    metadata = [("color", "red"), ("color", "blue"), ("color-bin", b"x")]
    async with open_pair(registrar, stream_pair) as (channel, _):
        assert (await channel.unary("/t.S/M", Request(service="xy"), Response, metadata=metadata)).status == 2
        assert (await channel.unary("/T.s/m", Request(), Response, metadata=metadata)).status == 0
    assert [how[1] for how in ended] == [StatusCode.OK, StatusCode.OK]


async def test_unary_stream(open_pair: Any, stream_pair: Any) -> None:
    """One message in, several out; the iterator ends with the call."""

    async def handle(request: Any, call: ServerCall) -> None:
        for number in range(3):
            await call.send(Response(status=_STATUSES[number]).SerializeToString())

    registrar = Registrar()
    registrar.unary_stream("/t.S/M", handle, Request)
    async with open_pair(registrar, stream_pair) as (channel, _):
        got = [answer.status async for answer in channel.unary_stream("/t.S/M", Request(), Response)]
    assert got == [0, 1, 2]


async def test_streams(open_pair: Any, stream_pair: Any) -> None:
    """Messages go both ways at the same time, in order, and the call ends OK with its trailers."""
    async with open_pair(hosting(echo=echo), stream_pair) as (channel, _), channel.open_call("/t.S/echo") as call:
        for number in range(3):
            await call.send(b"%d" % number)
            assert await call.receive() == b"%d" % number
        await call.send_batch([b"a", b"", b"b"])
        await call.end(b"c")
        assert await call.wait_initial_metadata() == []
        assert await receive_all(call) == [b"a", b"", b"b", b"c"]
        assert await call.receive_batch() == []
        assert call.trailing_metadata == []


async def test_large_messages_both_ways(open_pair: Any, stream_pair: Any) -> None:
    """Messages beyond every window pass in both directions at once."""
    async with open_pair(hosting(echo=echo), stream_pair) as (channel, server):
        async with channel.open_call("/t.S/echo") as call:
            await call.end(bytes(12 * MIB))
            assert await receive_all(call) == [bytes(12 * MIB)]
        assert (channel.core.open_calls, server.core.open_calls) == (0, 0)


async def test_initial_metadata(open_pair: Any) -> None:
    """A handler may begin its response with metadata before it has anything to say."""
    go = trio.Event()

    async def handle(call: ServerCall) -> None:
        await call.send_initial_metadata([("a", "b")])
        await go.wait()

    async with open_pair(hosting(M=handle)) as (channel, _), channel.open_call("/t.S/M") as call:
        await call.end()
        assert await call.wait_initial_metadata() == [("a", "b")]
        go.set()
        assert await call.receive() is None


@pytest.mark.parametrize(("count", "text"), [(0, "got none"), (2, "got more")])
async def test_wrong_number_of_requests(open_pair: Any, count: int, text: str) -> None:
    """A unary method takes exactly one message."""
    registrar = Registrar()
    registrar.unary_unary("/t.S/M", lambda request, call: trio.sleep_forever(), Request)
    async with open_pair(registrar) as (channel, _):
        with pytest.raises(RpcError, match=text) as caught:
            async with channel.open_call("/t.S/M") as call:
                await call.send_batch([b""] * count)
                await call.end()
                await call.receive()
    assert caught.value.code is StatusCode.INTERNAL


@pytest.mark.parametrize(
    ("answers", "text"), [([], "without an answer"), ([b"", b""], "more than once"), ([b"\xff"], "cannot be decoded")]
)
async def test_wrong_answers(open_pair: Any, answers: list[bytes], text: str) -> None:
    """A unary call takes exactly one answer, which can be decoded."""

    async def handle(call: ServerCall) -> None:
        await call.send_batch(answers)

    async with open_pair(hosting(M=handle)) as (channel, _):
        with pytest.raises(RpcError, match=text) as caught:
            await channel.unary("/t.S/M", Request(), Response)
    assert caught.value.code is StatusCode.INTERNAL


async def test_broken_request(open_pair: Any) -> None:
    """A request that cannot be decoded is INTERNAL, and the handler is not called."""
    registrar = Registrar()
    registrar.unary_unary("/t.S/M", lambda request, call: trio.sleep_forever(), Request)
    async with open_pair(registrar) as (channel, _):
        with pytest.raises(RpcError, match="request cannot be decoded"):
            async with channel.open_call("/t.S/M") as call:
                await call.end(b"\xff")
                await call.receive()


# -- how calls end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RpcError(StatusCode.NOT_FOUND, "no secret x", details=b"\x01"), StatusCode.NOT_FOUND, "no secret x"),
        (SecretError("written for readers"), StatusCode.UNKNOWN, "written for readers"),
        (ValueError("hunter2"), StatusCode.UNKNOWN, "the handler of /t.S/M failed with ValueError"),
        (ExceptionGroup("", [RpcError(StatusCode.ABORTED, "x")]), StatusCode.ABORTED, "x"),
        (ExceptionGroup("", [KeyError("hunter2")]), StatusCode.UNKNOWN, "the handler of /t.S/M failed with KeyError"),
    ],
)
async def test_failing_handlers(
    open_pair: Any, ended: Any, caplog: Any, error: Exception, code: StatusCode, message: str
) -> None:
    """A handler's error is the answer where it was meant to be, and never quotes a stranger, not even in the log."""
    caplog.set_level("DEBUG")

    async def handle(call: ServerCall) -> None:
        raise error

    async with open_pair(hosting(M=handle)) as (channel, _):
        with pytest.raises(RpcError) as caught:
            await channel.unary("/t.S/M", Request(), Response)
    assert (caught.value.code, caught.value.message, caught.value.method) == (code, message, "/t.S/M")
    assert caught.value.details == getattr(error, "details", b"")
    assert "hunter2" not in caplog.text
    assert ended[0][3] is (error.exceptions[0] if isinstance(error, ExceptionGroup) else error)


async def test_trailers_of_an_error(open_pair: Any) -> None:
    """The metadata of an RpcError is sent with it."""

    async def handle(call: ServerCall) -> None:
        call.trailing_metadata.append(("a", "1"))
        raise RpcError(StatusCode.ABORTED, trailers=[("b", "2")])

    async with open_pair(hosting(M=handle)) as (channel, _):
        with pytest.raises(RpcError) as caught:
            await channel.unary("/t.S/M", Request(), Response)
    assert caught.value.trailers == (("a", "1"), ("b", "2"))


async def test_bad_trailing_metadata(open_pair: Any) -> None:
    """Metadata that gRPC does not allow is the handler's fault and costs its call, not the connection."""

    async def handle(call: ServerCall) -> None:
        call.trailing_metadata.append(("Bad Key", "x"))

    async with open_pair(hosting(M=handle, echo=echo)) as (channel, _):
        with pytest.raises(RpcError, match="cannot be a metadata key") as caught:
            await channel.unary("/t.S/M", Request(), Response)
        assert caught.value.code is StatusCode.INTERNAL
        assert await channel.unary("/t.S/echo", Request(), Response) == Response()


async def test_unknown_method(open_pair: Any, ended: Any) -> None:
    """A method that nobody hosts is UNIMPLEMENTED."""
    async with open_pair(Registrar()) as (channel, _):
        with pytest.raises(RpcError, match=r"unknown method /t\.S/M") as caught:
            await channel.unary("/t.S/M", Request(), Response)
    assert caught.value.code is StatusCode.UNIMPLEMENTED
    assert ended[0][:2] == ("/t.S/M", StatusCode.UNIMPLEMENTED)


async def test_cancelled_by_the_peer(open_pair: Any, stream_pair: Any, ended: Any) -> None:
    """Leaving a call cancels its handler, wherever it waits, and the connection goes on."""
    cancelled = trio.Event()

    async def handle(call: ServerCall) -> None:
        try:
            await call.receive()
        finally:
            cancelled.set()

    async with open_pair(hosting(M=handle, echo=echo), stream_pair) as (channel, _):
        async with channel.open_call("/t.S/M") as call:
            await call.send_batch([])
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            await cancelled.wait()
        assert await channel.unary("/t.S/echo", Request(), Response) == Response()
    assert [how[1] for how in ended if how[0] == "/t.S/M"] == [StatusCode.CANCELLED]


async def test_error_beside_a_cancellation(open_pair: Any, ended: Any) -> None:
    """A handler whose tasks are cancelled and fail over it takes nothing down but its own call."""

    async def handle(call: ServerCall) -> None:
        async def cleanup() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("cleanup failed")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cleanup)
            nursery.start_soon(trio.sleep_forever)

    async with open_pair(hosting(M=handle, echo=echo)) as (channel, _):
        async with channel.open_call("/t.S/M"):
            await trio.testing.wait_all_tasks_blocked()
        assert await channel.unary("/t.S/echo", Request(), Response) == Response()
    (cancelled,) = (how for how in ended if how[0] == "/t.S/M")
    assert cancelled[1] is StatusCode.CANCELLED
    assert isinstance(cancelled[3], ValueError)


async def test_deadline_on_both_sides(open_pair: Any, autojump_clock: Any, ended: Any) -> None:
    """A call that takes longer than its timeout ends DEADLINE_EXCEEDED for both sides."""
    async with open_pair(hosting(M=forever)) as (channel, _):
        with pytest.raises(RpcError) as caught:
            await channel.unary("/t.S/M", Request(), Response, timeout=5)
        await trio.testing.wait_all_tasks_blocked()
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
    assert ended[0][1] in (StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED)


async def test_deadline_of_a_handler(open_pair: Any, autojump_clock: Any, ended: Any) -> None:
    """A handler sees the time it has, and is stopped when it is used up, whether the peer cares or not."""
    seen = []

    async def handle(call: ServerCall) -> None:
        seen.append(call.time_remaining())
        await trio.sleep(2)
        seen.append(call.time_remaining())
        await trio.sleep_forever()

    async with open_pair(hosting(M=handle)) as (channel, _):
        channel.core.start_call("/t.S/M", timeout=5)
        channel.writer.wake()
        await trio.sleep(10)
    assert seen == [pytest.approx(5), pytest.approx(3)]
    assert ended[0][1:3] == (StatusCode.DEADLINE_EXCEEDED, "the deadline of the call has passed")


async def test_early_answer_wakes_a_sender(open_pair: Any, stream_pair: Any) -> None:
    """A sender that waits for room learns that the call was answered."""

    async def handle(call: ServerCall) -> None:
        await call.receive()

    async with open_pair(hosting(M=handle), stream_pair) as (channel, _), channel.open_call("/t.S/M") as call:
        with trio.fail_after(10):
            for _ in range(20):
                await call.send(bytes(MIB))
            assert await call.receive() is None


# -- backpressure ------------------------------------------------------------------------------------------------------


async def test_sender_waits_and_wakes(open_pair: Any, stream_pair: Any) -> None:
    """A handler is held up while more than the bound is queued, and goes on when the peer reads."""
    sent = []

    async def handle(call: ServerCall) -> None:
        for number in range(64):
            await call.send(bytes(256 * 1024))
            sent.append(number)

    async with open_pair(hosting(M=handle), stream_pair) as (channel, server), channel.open_call("/t.S/M") as call:
        await call.end()
        # A sender that was held up goes on when half of the bound is free.
        with trio.fail_after(10):
            while len(sent) * 256 * 1024 < limits.STREAM_WINDOW + limits.SEND_QUEUE // 2 - MIB:
                await trio.testing.wait_all_tasks_blocked()
        await _settled(lambda: len(sent))
        assert len(sent) * 256 * 1024 <= limits.STREAM_WINDOW + limits.SEND_QUEUE + MIB
        (one,) = server.calls.values()
        assert server.core.queued(one.stream_id) > limits.SEND_QUEUE // 2
        assert len(await receive_all(call)) == 64


async def test_call_that_is_never_read_stops_only_itself(open_pair: Any, stream_pair: Any) -> None:
    """Handlers that never read fill their own windows; other calls go on beside them."""
    async with open_pair(hosting(M=forever, echo=echo), stream_pair) as (channel, _):
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                async with channel.open_call("/t.S/M") as call:
                    while True:
                        await call.send(bytes(MIB))

            for _ in range(6):
                nursery.start_soon(flood)
            await _settled(lambda: sum(call.bytes_sent for call in channel.calls.values()))
            with trio.fail_after(10):
                for _ in range(20):
                    async with channel.open_call("/t.S/echo") as call:
                        await call.end(bytes(MIB))
                        assert await receive_all(call) == [bytes(MIB)]
            nursery.cancel_scope.cancel()


async def test_small_messages_share_frames_and_turns(open_pair: Any) -> None:
    """A handler that sends many small messages lets others run, and does not use a frame for each."""
    turns = 0
    done = False

    async def handle(call: ServerCall) -> None:
        nonlocal done
        for _ in range(1000):
            await call.send(b"x")
        done = True

    async def count() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with open_pair(hosting(M=handle)) as (channel, _), channel.open_call("/t.S/M") as call:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await call.end()
            batches = 0
            got = 0
            while batch := await call.receive_batch():
                batches += 1
                got += len(batch)
    assert got == 1000
    assert turns >= 20
    assert batches < 200


async def _settled(value: Callable[[], object]) -> None:
    """Wait until ``value`` stays the same while everybody waits."""
    last: object = None
    while last != (last := value()) or last is None:
        for _ in range(5):
            await trio.testing.wait_all_tasks_blocked(0.002)


# -- the end of a connection -------------------------------------------------------------------------------------------


async def test_lost_connection_fails_all_calls(stream_pair: Any) -> None:
    """When the peer hangs up every call fails, typed and as itself, and no new one can be opened."""
    ours, theirs = stream_pair()
    async with open_channel(ours) as channel:
        errors = []

        async def ask(wait: Callable[[Any], Awaitable[object]]) -> None:
            with pytest.raises(RpcError) as caught:
                async with channel.open_call("/t.S/M") as call:
                    await wait(call)
                    await call.receive()
            errors.append(caught.value)

        async with trio.open_nursery() as nursery:
            for wait in (lambda c: c.receive(), lambda c: c.receive_batch(), lambda c: c.wait_initial_metadata()):
                nursery.start_soon(ask, wait)
            nursery.start_soon(ask, lambda c: c.send(bytes(4 * MIB)))
            await trio.testing.wait_all_tasks_blocked(0.01)
            await theirs.aclose()
        await channel.closed.wait()
        assert [error.code for error in errors] == [StatusCode.UNAVAILABLE] * 4
        assert all(isinstance(error.__cause__, ConnectionLost) for error in errors)
        with pytest.raises(RpcError) as caught:
            await channel.unary("/t.S/M", Request(), Response)
        assert caught.value.code is StatusCode.UNAVAILABLE
        with pytest.raises(RpcError):
            await channel.ping()


async def test_lost_connection_cancels_handlers(ended: Any, stream_pair: Any) -> None:
    """When the peer hangs up every handler is cancelled, and the server says why it is over."""
    ours, theirs = stream_pair()
    registrar = hosting(M=forever)
    async with open_server(ours, registrar, on_call_ended=lambda call, *how: ended.append(how)) as server:
        async with open_channel(theirs) as channel:
            channel.core.start_call("/t.S/M")
            channel.writer.wake()
            while not server.calls:
                await trio.testing.wait_all_tasks_blocked()
            await trio.aclose_forcefully(theirs)
        await server.closed.wait()
        assert isinstance(server.failure, ConnectionLost)
        while not ended:
            await trio.testing.wait_all_tasks_blocked()
    assert ended[0][0] is StatusCode.CANCELLED


async def test_broken_http2_is_answered(stream_pair: Any) -> None:
    """A peer that breaks HTTP/2 gets a GOAWAY before the connection is closed."""
    ours, theirs = stream_pair()
    async with open_server(ours, Registrar()) as server, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.send_all, b"GET / HTTP/1.1\r\n\r\nxxxxxxxxxxx")
            got = b""
            while data := await theirs.receive_some():
                got += data
        await server.closed.wait()
    assert isinstance(server.failure, MobysessionError)
    assert b"\7\0\0\0\0\0\0\0\0\0\0\0\0\1Invalid HTTP/2 preamble." in got


async def test_goaway_with_an_error_ends_the_connection(stream_pair: Any) -> None:
    """A peer that says goodbye over an error is not waited for, even if it does not hang up."""
    ours, theirs = stream_pair()
    async with open_channel(ours) as channel, theirs, trio.open_nursery() as nursery:

        async def drain() -> None:
            while await theirs.receive_some():
                pass

        nursery.start_soon(drain)
        await theirs.send_all(b"\0\0\0\4\0\0\0\0\0" + b"\0\0\x0a\7\0\0\0\0\0" + bytes(4) + b"\0\0\0\x0bhi")
        with trio.fail_after(5):
            await channel.closed.wait()
        nursery.cancel_scope.cancel()
    assert isinstance(channel.failure, ConnectionLost)
    assert channel.failure.message == "the other side ended the connection: error 11 hi"


async def test_two_tasks_wait_for_the_same_room(stream_pair: Any) -> None:
    """Where one of two tasks that wait to send on a call is cancelled, the other still hears of the room."""
    size = 2 * (limits.SEND_QUEUE + limits.STREAM_WINDOW)
    sent: list[str] = []
    given_up = trio.Event()

    async def send(call: ServerCall, name: str, scope: trio.CancelScope) -> None:
        with scope:
            await call.send(bytes(size))
            sent.append(name)

    async def handle(call: ServerCall) -> None:
        impatient = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, call, "patient", trio.CancelScope())
            nursery.start_soon(send, call, "impatient", impatient)
            while not call._drained or len(call._drained) < 2:
                await trio.lowlevel.checkpoint()
            impatient.cancel()
            while len(call._drained) > 1:
                await trio.lowlevel.checkpoint()
            given_up.set()

    ours, theirs = stream_pair()
    async with open_server(ours, hosting(M=handle)), open_channel(theirs) as channel:
        with trio.fail_after(10):
            async with channel.open_call("/t.S/M") as call:
                await call.end()
                await given_up.wait()
                assert sum(map(len, await receive_all(call))) == 2 * size
    assert sent == ["patient"]


async def test_queued_answers_are_flushed(stream_pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was queued when the server ends is sent as long as the peer takes it, and then comes the goodbye."""
    monkeypatch.setattr(limits, "GOODBYE_TIMEOUT", 10)
    queued = trio.Event()

    async def handle(call: ServerCall) -> None:
        await call.send_batch([bytes(limits.SEND_QUEUE + limits.STREAM_WINDOW - 100)])

    ours, theirs = stream_pair()
    async with open_channel(theirs) as channel, channel.open_call("/t.S/M") as call:
        async with open_server(ours, hosting(M=handle), on_call_ended=lambda *how: queued.set()) as server:
            await call.end()
            await queued.wait()
            assert server.core.has_queued
        messages = await receive_all(call)
    assert list(map(len, messages)) == [limits.SEND_QUEUE + limits.STREAM_WINDOW - 100]


async def test_end_is_bounded(autojump_clock: Any) -> None:
    """A peer that reads nothing does not hold up the end."""

    async def handle(call: ServerCall) -> None:
        await call.send(bytes(limits.SEND_QUEUE))
        await trio.sleep_forever()

    ours, theirs = trio.testing.lockstep_stream_pair()
    started = trio.current_time()
    async with theirs, open_server(ours, hosting(M=handle)):
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() - started <= limits.GOODBYE_TIMEOUT + limits.COMMAND_EXIT_TIMEOUT


async def test_window_that_stays_shut_is_bounded(autojump_clock: Any, open_pair: Any) -> None:
    """A peer that reads the stream but takes no messages gets a goodbye in time."""
    begun = trio.Event()

    async def handle(call: ServerCall) -> None:
        begun.set()
        with trio.CancelScope(shield=True):
            await call.send(bytes(limits.STREAM_WINDOW + MIB))
        raise RpcError(StatusCode.ABORTED)

    registrar = hosting(M=handle)
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_channel(theirs) as channel, channel.open_call("/t.S/M") as call:
        async with open_server(ours, registrar):
            await call.end()
            await begun.wait()
            await trio.testing.wait_all_tasks_blocked()
            started = trio.current_time()
        assert trio.current_time() - started <= limits.GOODBYE_TIMEOUT
        await channel.closed.wait()


async def test_calls_while_the_server_ends(stream_pair: Any) -> None:
    """A call that arrives while the last handlers clean up is refused; nothing breaks."""
    release, cleaning = trio.Event(), trio.Event()

    async def slow(call: ServerCall) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                cleaning.set()
                await release.wait()

    ours, theirs = stream_pair()
    async with open_channel(theirs) as channel, trio.open_nursery() as nursery:

        async def serve() -> None:
            async with open_server(ours, hosting(slow=slow)) as server:
                while not server.calls:
                    await trio.testing.wait_all_tasks_blocked()

        nursery.start_soon(serve)
        async with channel.open_call("/t.S/slow"):
            await cleaning.wait()
            with pytest.raises(RpcError) as caught:
                await channel.unary("/t.S/slow", Request(), Response)
            assert caught.value.code is StatusCode.UNAVAILABLE
            release.set()


async def test_failure_of_the_body_is_itself(open_pair: Any) -> None:
    """What the body of a block raises arrives as it is, no group around it, with handlers running."""
    with pytest.raises(UsageError, match="mine"):
        async with open_pair(hosting(M=forever)) as (channel, server):
            channel.core.start_call("/t.S/M")
            channel.writer.wake()
            while not server.calls:
                await trio.testing.wait_all_tasks_blocked()
            raise UsageError("mine")


async def test_answer_outlives_the_connection(open_pair: Any, stream_pair: Any) -> None:
    """A call that was answered stays answered when the connection is lost before its messages are taken."""
    ours, theirs = stream_pair()
    async with open_channel(theirs) as channel, channel.open_call("/t.S/echo") as call:
        async with open_server(ours, hosting(echo=echo)):
            await call.end(b"x")
            await call.wait_initial_metadata()
            while channel.core.open_calls != 0:
                await trio.testing.wait_all_tasks_blocked()
        await channel.closed.wait()
        assert await receive_all(call) == [b"x"]


async def test_ping(open_pair: Any, stream_pair: Any) -> None:
    """Pings in any number at once come back, in both directions."""
    async with open_pair(Registrar(), stream_pair) as (channel, server):
        async with trio.open_nursery() as nursery:
            for connection in (channel, server, channel, server):
                nursery.start_soon(connection.ping)
        assert await channel.ping() >= 0
        await server.ready.wait()
        assert server.settings["MAX_FRAME_SIZE"] == limits.MAX_FRAME


async def test_ping_on_a_connection_that_ends(autojump_clock: Any) -> None:
    """A ping that will not come back fails when the connection ends."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_channel(ours) as channel, trio.open_nursery() as nursery:

        async def hang_up() -> None:
            await trio.sleep(1)
            await theirs.aclose()

        nursery.start_soon(hang_up)
        with pytest.raises(RpcError, match="during a ping") as caught:
            await channel.ping()
    assert caught.value.code is StatusCode.UNAVAILABLE


async def test_cancel_at_every_checkpoint(stream_pair: Any) -> None:
    """Wherever a conversation is cancelled, it ends at once, leaves no task, and raises nothing."""

    async def conversation() -> None:
        ours, theirs = stream_pair()
        async with open_server(ours, hosting(echo=echo)), open_channel(theirs) as channel:
            async with channel.open_call("/t.S/echo", metadata=[("a", "b")]) as call:
                await call.send(bytes(100_000))
                await call.receive()
                await call.end()
                await call.receive()
            await channel.ping()

    for steps in range(1, 200):
        with trio.CancelScope() as scope:

            async def cut(scope: trio.CancelScope = scope, steps: int = steps) -> None:
                for _ in range(steps):
                    await trio.lowlevel.cancel_shielded_checkpoint()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cut)
                await conversation()
                nursery.cancel_scope.cancel()
        if not scope.cancelled_caught:
            break
    assert steps > 10
    assert len(trio.lowlevel.current_root_task().child_nurseries[0].child_tasks) <= 2  # type: ignore[union-attr]  # has one


# -- the registrar -----------------------------------------------------------------------------------------------------


def test_registrar() -> None:
    """Methods are advertised in the order of registration and found in any case."""
    registrar = hosting(B=echo, A=forever)
    assert registrar.methods == ("/t.S/B", "/t.S/A")
    found = registrar.find("/T.S/a")
    assert found == Method("/t.S/A", Cardinality.STREAM_STREAM, forever)
    assert registrar.find("/t.S/C") is None


@pytest.mark.parametrize("name", ["", "t.S/M", "/t.S", "/t.S/M/x", "t/S/M"])
def test_malformed_method_names(name: str) -> None:
    """A name that is no method URL is refused."""
    with pytest.raises(UsageError, match="is no gRPC method"):
        Registrar().stream(name, echo)


def test_one_method_twice() -> None:
    """Two services with the same method cannot share a session."""
    with pytest.raises(UsageError, match="served already"):
        hosting(A=echo).stream("/t.S/A", forever)


@pytest.mark.parametrize("kind", ["lockstep", "socket"])
async def test_a_broken_peer_that_reads_nothing_is_left(kind: str, autojump_clock: Any) -> None:
    """The connection ends in bounds when a peer stops reading in the middle of bulk data and then breaks HTTP/2."""
    ours, theirs = PAIRS[kind]()
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    peer.local_settings[h2.settings.SettingCodes.INITIAL_WINDOW_SIZE] = 8 * MIB
    peer.initiate_connection()
    peer.increment_flow_control_window(8 * MIB)
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/t.S/M",
        ":authority": "x",
        "content-type": "application/grpc",
    }
    peer.send_headers(1, list(fields.items()))
    sending = trio.Event()

    async def bulk(call: ServerCall) -> None:
        sending.set()
        await call.send(bytes(6 * MIB))

    async with theirs, open_server(ours, hosting(M=bulk)) as server:
        await theirs.send_all(peer.data_to_send())
        await sending.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await theirs.send_all(b"\0\0\1\0\0\0\0\0\0x")
        with trio.fail_after(2 * limits.GOODBYE_TIMEOUT):
            await server.closed.wait()
        assert isinstance(server.failure, RemoteProtocolError)


async def test_a_lost_connection_is_no_cancellation_by_the_peer(ended: Any, open_pair: Any) -> None:
    """The handler is stopped, and who listens hears why."""
    seen: list[ServerCall] = []

    async def wait(call: ServerCall) -> None:
        seen.append(call)
        await trio.sleep_forever()

    async with open_pair(hosting(M=wait)) as (channel, server), channel.open_call("/t.S/M"):
        while not seen:
            await trio.testing.wait_all_tasks_blocked()
        await trio.aclose_forcefully(channel._stream)
        await server.closed.wait()
        while not ended:
            await trio.testing.wait_all_tasks_blocked()
    assert not seen[0].cancelled_by_peer
    assert ended[0][1:3] == (StatusCode.CANCELLED, "the other side closed the connection")


async def test_a_call_that_is_over_holds_no_messages() -> None:
    """What a handler has not taken is dropped with its call, whoever still knows the call."""
    ended: list[ServerCall] = []
    registrar = Registrar()
    arrived = trio.Event()

    async def never_read(call: ServerCall) -> None:
        while not call.unread:
            await trio.testing.wait_all_tasks_blocked()
        arrived.set()
        await trio.sleep_forever()

    registrar.stream("/a.B/C", never_read)
    ours, theirs = trio.testing.memory_stream_pair()
    async with (
        open_server(ours, registrar, on_call_ended=lambda call, *_how: ended.append(call)),
        open_channel(theirs) as channel,
        channel.open_call("/a.B/C") as call,
    ):
        await call.send(bytes(1000))
        await arrived.wait()
    (over,) = ended
    assert over.unread == 0

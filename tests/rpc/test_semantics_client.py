"""What gRPC owes its server and its caller, with bare HTTP/2 as that server: deadlines, early ends, resets, limits."""

# ruff: noqa: SIM117 - a call within a channel

from __future__ import annotations

import zlib
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import h2.errors
import h2.events
import h2.settings
import pytest
import trio
import trio.testing

from mobysession._pb import health_pb2
from mobysession.errors import RpcError, StatusCode
from mobysession.rpc.client import open_channel
from tests.rpc.bare import OK, RESPONSE, framed, open_bare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from mobysession.rpc.client import Channel
    from tests.rpc.bare import Bare

Request, Response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
M = "/t.S/M"


@asynccontextmanager
async def calling(**options: Any) -> AsyncIterator[tuple[Channel, Bare]]:
    """Yield a channel and the bare server at its other end; no call is left at the end."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_channel(ours, **options) as channel:
        async with open_bare(theirs, client_side=False) as bare:
            await bare.settle()
            yield channel, bare
            await bare.settle()
            assert (channel.calls, channel.core.open_calls, channel.failure) == ({}, 0, None)


async def status_of(asking: Awaitable[object]) -> tuple[StatusCode, str]:
    """Return the status that something ends with."""
    with pytest.raises(RpcError) as caught:
        await asking
    return caught.value.code, caught.value.message


def answer(bare: Bare, *messages: bytes, stream_id: int = 1, end: bool = True, **status: str) -> None:
    """Queue a whole answer, or one without its end."""
    bare.h2.send_headers(stream_id, RESPONSE)
    if messages:
        bare.h2.send_data(stream_id, framed(*messages))
    if end:
        fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in status.items()]
        bare.h2.send_headers(stream_id, fields or OK, end_stream=True)


# -- deadlines ---------------------------------------------------------------------------------------------------------


async def test_deadline(autojump_clock: trio.testing.MockClock) -> None:
    """The deadline is told to the server and enforced here; the server learns of it by a reset."""
    async with calling() as (channel, bare):
        began = trio.current_time()
        asking = channel.unary(M, Request(), Response, timeout=2.5)
        assert await status_of(asking) == (StatusCode.DEADLINE_EXCEEDED, "no answer within 2.5 s")
        assert trio.current_time() - began == pytest.approx(2.5)
        await bare.settle()
        assert (b"grpc-timeout", b"2500000u") in bare.fields(1, h2.events.RequestReceived)
        assert bare.heard(1)[-1] == "StreamReset"
        assert bare.events[-1].error_code == h2.errors.ErrorCodes.CANCEL


@pytest.mark.parametrize("timeout", [0, -1, 1e-9])
async def test_no_time_left(timeout: float, autojump_clock: trio.testing.MockClock) -> None:
    """A call without time fails as one that took too long, not as a mistake."""
    async with calling() as (channel, _bare):
        code, _ = await status_of(channel.unary(M, Request(), Response, timeout=timeout))
        assert code is StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("wait", ["receive", "receive_batch", "wait_initial_metadata", "send"])
async def test_deadline_of_each_wait(wait: str, autojump_clock: trio.testing.MockClock) -> None:
    """Whatever waits for the call is woken at its deadline, and the call stays failed."""
    async with calling() as (channel, bare):
        bare.acknowledges = False
        async with channel.open_call(M, timeout=1) as call:
            waits = {
                "receive": call.receive,
                "receive_batch": call.receive_batch,
                "wait_initial_metadata": call.wait_initial_metadata,
                "send": lambda: call.send(bytes(8 * 1024 * 1024)),
            }
            assert (await status_of(waits[wait]()))[0] is StatusCode.DEADLINE_EXCEEDED
            assert (await status_of(call.receive()))[0] is StatusCode.DEADLINE_EXCEEDED
            assert call.failure is not None
            # Within the block: the server need not wait for its end.
            await bare.settle()
            assert bare.heard(1)[-1] == "StreamReset"


async def test_deadline_leaves_the_block_alone(autojump_clock: trio.testing.MockClock) -> None:
    """A deadline ends the call, not what its caller does besides; what was answered in time is delivered late."""
    async with calling() as (channel, bare):
        async with channel.open_call(M, timeout=1) as call:
            await bare.settle()
            answer(bare, b"in time")
            await bare.settle()
            await trio.sleep(5)
            assert await call.receive() == b"in time"
            await call.end()
            assert await call.receive() is None


async def test_iterator_and_scopes(autojump_clock: trio.testing.MockClock) -> None:
    """The iterator of a call with a deadline may be asked under changing scopes, and be dropped between."""
    async with calling() as (channel, bare):
        async with aclosing(channel.unary_stream(M, Request(), Response, timeout=10)) as answers:
            with trio.move_on_after(1):
                await anext(answers)
        await bare.settle()
        async with aclosing(channel.unary_stream(M, Request(), Response, timeout=10)) as answers:
            async with trio.open_nursery() as nursery:

                async def respond() -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    answer(bare, b"", b"", stream_id=3)
                    await bare.flush()

                nursery.start_soon(respond)
                with trio.fail_after(5):
                    assert await anext(answers) == Response()
            assert await anext(answers) == Response()
            assert [one async for one in answers] == []


async def test_status_of_the_servers_deadline(autojump_clock: trio.testing.MockClock) -> None:
    """DEADLINE_EXCEEDED that the server says is the server's, with its words."""
    async with calling() as (channel, bare):
        async with channel.open_call(M, timeout=60) as call:
            await call.end()
            await bare.settle()
            answer(bare, grpc_status="4", grpc_message="too slow")
            await bare.settle()
            assert await status_of(call.receive()) == (StatusCode.DEADLINE_EXCEEDED, "too slow")


# -- the shapes of an answer -------------------------------------------------------------------------------------------


async def test_trailers_only() -> None:
    """An answer that is nothing but its end has no initial metadata, and its fields are trailing ones."""
    async with calling() as (channel, bare):
        async with channel.open_call(M) as call:
            await call.end()
            await bare.settle()
            status = [(b"grpc-status", b"5"), (b"grpc-message", b"n%C3%B6"), (b"x-bin", b"/w"), (b"a", b"1")]
            bare.h2.send_headers(1, [*RESPONSE, *status], end_stream=True)
            await bare.settle()
            assert await call.wait_initial_metadata() == []
            with pytest.raises(RpcError) as caught:
                await call.receive()
            assert (caught.value.code, caught.value.message) == (StatusCode.NOT_FOUND, "nö")
            assert call.trailing_metadata == [("x-bin", b"\xff"), ("a", "1")]


async def test_trailers_only_and_ok() -> None:
    """A stream may end OK without a word; a unary call may not."""
    async with calling() as (channel, bare):
        async with channel.open_call(M) as call:
            await call.end()
            await bare.settle()
            bare.h2.send_headers(1, [*RESPONSE, *OK], end_stream=True)
            await bare.settle()
            assert await call.receive() is None
        async with trio.open_nursery() as nursery:

            async def respond() -> None:
                await trio.testing.wait_all_tasks_blocked()
                bare.h2.send_headers(3, [*RESPONSE, *OK], end_stream=True)
                await bare.flush()

            nursery.start_soon(respond)
            assert (await status_of(channel.unary(M, Request(), Response)))[0] is StatusCode.INTERNAL


async def test_initial_metadata_at_once() -> None:
    """The answer's initial metadata is there before its first message, repeated and binary keys included."""
    async with calling() as (channel, bare):
        async with channel.open_call(M) as call:
            await bare.settle()
            fields = [(b"a", b"1"), (b"a", b"2"), (b"x-bin", b"AAE="), (b"x-bin", b"/w,Ag")]
            bare.h2.send_headers(1, [*RESPONSE, *fields])
            await bare.flush()
            expected = [("a", "1"), ("a", "2"), ("x-bin", b"\0\1"), ("x-bin", b"\xff"), ("x-bin", b"\2")]
            assert await call.wait_initial_metadata() == expected


async def test_messages_before_an_error() -> None:
    """What was answered before the error is delivered before it."""
    async with calling() as (channel, bare):
        async with channel.open_call(M) as call:
            await call.end()
            await bare.settle()
            answer(bare, b"one", b"two", grpc_status="15")
            await bare.settle()
            assert [await call.receive(), await call.receive()] == [b"one", b"two"]
            assert (await status_of(call.receive()))[0] is StatusCode.DATA_LOSS


# -- early answers, resets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [StatusCode.OK, StatusCode.RESOURCE_EXHAUSTED])
async def test_early_answer_and_no_error(code: StatusCode) -> None:
    """A server that answers before the request has ended, and then resets with NO_ERROR, has given its status."""
    async with calling() as (channel, bare):
        async with channel.open_call(M) as call:
            await call.send(b"first")
            await bare.settle()
            answer(bare, b"enough", grpc_status=str(int(code)))
            bare.h2.reset_stream(1, h2.errors.ErrorCodes.NO_ERROR)
            await bare.settle()
            assert await call.receive() == b"enough"
            if code is StatusCode.OK:
                await call.send(b"goes nowhere")
                await call.end()
                assert await call.receive() is None
            else:
                assert (await status_of(call.receive()))[0] is code
                assert (await status_of(call.send(b"nobody hears")))[0] is code


@pytest.mark.parametrize("error_code", [h2.errors.ErrorCodes.CANCEL, h2.errors.ErrorCodes.INTERNAL_ERROR])
async def test_reset_behind_the_trailers(error_code: h2.errors.ErrorCodes) -> None:
    """A reset in the same bytes as the trailers comes too late: the status counts."""
    async with calling() as (channel, bare):
        async with channel.open_call(M) as call:
            await bare.settle()
            answer(bare, b"done")
            bare.h2.reset_stream(1, error_code)
            await bare.settle()
            assert [await call.receive(), await call.receive()] == [b"done", None]


@pytest.mark.parametrize(
    ("error_code", "code"),
    [
        (h2.errors.ErrorCodes.NO_ERROR, StatusCode.INTERNAL),
        (h2.errors.ErrorCodes.PROTOCOL_ERROR, StatusCode.INTERNAL),
        (h2.errors.ErrorCodes.REFUSED_STREAM, StatusCode.UNAVAILABLE),
        (h2.errors.ErrorCodes.CANCEL, StatusCode.CANCELLED),
        (h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, StatusCode.RESOURCE_EXHAUSTED),
        (h2.errors.ErrorCodes.INADEQUATE_SECURITY, StatusCode.PERMISSION_DENIED),
    ],
)
async def test_reset_instead_of_a_status(error_code: h2.errors.ErrorCodes, code: StatusCode) -> None:
    """A reset stands for the status that gRPC gives it, behind the messages that came before."""
    async with calling() as (channel, bare):
        async with channel.open_call(M) as call:
            await call.end()
            await bare.settle()
            answer(bare, b"one", end=False)
            bare.h2.reset_stream(1, error_code)
            await bare.settle()
            assert await call.receive() == b"one"
            assert (await status_of(call.receive()))[0] is code


async def test_leaving_as_the_answer_arrives() -> None:
    """A call that is left while its answer is under way is cancelled once, and the connection lives."""
    async with calling() as (channel, bare):
        async with channel.open_call(M):
            await bare.settle()
        # The server has not heard of it yet.
        answer(bare, b"too late")
        await bare.settle()
        async with channel.open_call(M) as call:
            await call.end()
            await bare.settle()
            answer(bare, b"in time", stream_id=3)
            await bare.settle()
            assert [await call.receive(), await call.receive()] == [b"in time", None]


async def test_deadline_as_the_answer_arrives(autojump_clock: trio.testing.MockClock) -> None:
    """An answer that crosses the reset of a deadline is dropped; the call has one end."""
    async with calling() as (channel, bare):
        assert (await status_of(channel.unary(M, Request(), Response, timeout=1)))[0] is StatusCode.DEADLINE_EXCEEDED
        # Built before the reset was read, as far as the server knows.
        await bare.stream.send_all(b"\0\0\5\0\0\0\0\0\1" + framed(b""))
        await bare.settle()


# -- compression, limits -----------------------------------------------------------------------------------------------


async def test_compressed_request() -> None:
    """A compressed call says so in its headers, and each message whether it is."""
    async with calling() as (channel, bare):
        async with channel.open_call(M, compress=True) as call:
            await call.send(bytes(1000))
            await call.send_batch((b"plain",), compress=False)
            await bare.settle()
            fields = bare.fields(1, h2.events.RequestReceived)
            assert (b"grpc-encoding", b"gzip") in fields
            assert (b"grpc-accept-encoding", b"identity, gzip") in fields
            packed = zlib.compress(bytes(1000), wbits=31)
            assert bare.data(1) == framed(packed, compressed=True) + framed(b"plain")


async def test_unknown_encoding_of_an_answer() -> None:
    """A compressed message in an encoding that we did not offer is INTERNAL."""
    async with calling() as (channel, bare):
        async with channel.open_call(M) as call:
            await call.end()
            await bare.settle()
            bare.h2.send_headers(1, [*RESPONSE, (b"grpc-encoding", b"snappy")])
            bare.h2.send_data(1, framed(b"?", compressed=True))
            await bare.settle()
            assert (await status_of(call.receive()))[0] is StatusCode.INTERNAL


@pytest.mark.parametrize("compressed", [False, True])
async def test_answer_over_the_limit(compressed: bool) -> None:
    """An answer over the channel's limit is RESOURCE_EXHAUSTED, naming the limit, and the server is told to stop."""
    async with calling(max_message=1000) as (channel, bare):
        async with channel.open_call(M) as call:
            await call.end()
            await bare.settle()
            body = zlib.compress(bytes(1001), wbits=31) if compressed else bytes(1001)
            bare.h2.send_headers(1, [*RESPONSE, (b"grpc-encoding", b"gzip")])
            bare.h2.send_data(1, framed(bytes(1000)) + framed(body, compressed=compressed))
            await bare.settle()
            code, text = await status_of(_drain(call))
            assert code is StatusCode.RESOURCE_EXHAUSTED
            assert "1000" in text
            assert bare.heard(1)[-1] == "StreamReset"


async def _drain(call: Any) -> None:
    while await call.receive() is not None:
        pass

"""What gRPC owes its client, with bare HTTP/2 as that client: statuses, early ends, deadlines, cancellation, limits."""

# ruff: noqa: PT012, SIM117 - a call fails where its block ends; a server within

from __future__ import annotations

import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import h2.errors
import h2.events
import h2.settings
import pytest
import trio
import trio.testing

from mobysession._pb import health_pb2
from mobysession.errors import RpcError, StatusCode
from mobysession.rpc.client import open_channel
from mobysession.rpc.grpcio import GrpcioServicer
from mobysession.rpc.listener import serve_listener
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from tests.rpc.bare import OK, RESPONSE, framed, open_bare, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from mobysession.rpc.server import ServerCall
    from tests.rpc.bare import Bare

Request, Response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
M = "/t.S/M"


class Ended(list[tuple[StatusCode, str, "BaseException | None", bool]]):
    """How calls ended, as the session is told."""

    def note(self, call: ServerCall, code: StatusCode, message: str, error: BaseException | None) -> None:
        self.append((code, message, error, call.cancelled_by_peer))


@asynccontextmanager
async def serving(
    handler: Callable[[ServerCall], Awaitable[None]], **options: Any
) -> AsyncIterator[tuple[Bare, Ended]]:
    """Serve ``handler`` as a method to a bare client; yield that and what the session hears of ended calls."""
    registrar = Registrar()
    registrar.stream(M, handler)
    async with hosting(registrar, **options) as (bare, ended):
        yield bare, ended


@asynccontextmanager
async def hosting(registrar: Registrar, **options: Any) -> AsyncIterator[tuple[Bare, Ended]]:
    ended = Ended()
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_server(ours, registrar, on_call_ended=ended.note, **options) as server:
        async with open_bare(theirs, client_side=True) as bare:
            yield bare, ended
            assert (server.calls, server.core.open_calls) == ({}, 0)


def ask(bare: Bare, *extra: tuple[bytes, bytes], stream_id: int = 1, body: bytes = b"", end: bool = True) -> None:
    """Queue a call."""
    bare.h2.send_headers(stream_id, request(M, *extra))
    bare.h2.send_data(stream_id, body, end_stream=end)


def status(bare: Bare, stream_id: int = 1) -> bytes:
    """Return the status of a call, from its trailers or its only headers."""
    kinds = bare.heard(stream_id)
    kind = h2.events.TrailersReceived if "TrailersReceived" in kinds else h2.events.ResponseReceived
    return dict(bare.fields(stream_id, kind))[b"grpc-status"]


# -- shapes of an answer -----------------------------------------------------------------------------------------------


async def test_trailers_only() -> None:
    """A call that ends before its first message is one block of headers, which has the status and the metadata."""

    async def refuse(call: ServerCall) -> None:
        call.trailing_metadata.append(("why", "because"))
        raise RpcError(StatusCode.PERMISSION_DENIED, "nö 100%", details=b"\x08\x07")

    async with serving(refuse) as (bare, _):
        ask(bare)
        await bare.settle()
        assert bare.heard(1) == ["ResponseReceived", "StreamEnded"]
        assert bare.fields(1, h2.events.ResponseReceived) == [
            *RESPONSE,
            (b"grpc-status", b"7"),
            (b"grpc-message", b"n%C3%B6 100%25"),
            (b"grpc-status-details-bin", b"CAc"),
            (b"why", b"because"),
        ]


async def test_initial_metadata_at_once() -> None:
    """Initial metadata is on the wire while the handler still waits and the request is open; the status follows."""
    go = trio.Event()

    async def begin(call: ServerCall) -> None:
        await call.send_initial_metadata([("a", "1"), ("a", "2"), ("b-bin", b"\xff")])
        await go.wait()

    async with serving(begin) as (bare, _):
        ask(bare, end=False)
        await bare.settle()
        expected = [*RESPONSE, (b"a", b"1"), (b"a", b"2"), (b"b-bin", b"/w")]
        assert bare.heard(1) == ["ResponseReceived"]
        assert bare.fields(1, h2.events.ResponseReceived) == expected
        go.set()
        await bare.settle()
        assert bare.heard(1) == ["ResponseReceived", "TrailersReceived", "StreamEnded", "StreamReset"]
        assert bare.fields(1, h2.events.TrailersReceived) == OK


async def test_metadata_of_a_request() -> None:
    """Repeated keys keep their order; binary values may be padded or not, and joined by commas."""
    seen: list[Any] = []

    async def note(call: ServerCall) -> None:
        seen.extend(call.metadata)

    async with serving(note) as (bare, _):
        ask(bare, (b"a", b"1"), (b"x-bin", b"AAE=,/w"), (b"a", b"2"), (b"x-bin", b"Ag"), (b"a", b""))
        await bare.settle()
        assert status(bare) == b"0"
    assert seen == [("a", "1"), ("x-bin", b"\0\1"), ("x-bin", b"\xff"), ("a", "2"), ("x-bin", b"\2"), ("a", "")]


# -- early answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", [False, True])
async def test_early_answer(failing: bool) -> None:
    """A handler that ends before its request has: answer, status, then RST_STREAM NO_ERROR; late DATA harms nobody."""

    async def answer(call: ServerCall) -> None:
        await call.send(b"enough")
        if failing:
            raise RpcError(StatusCode.OUT_OF_RANGE, "too far")

    async with serving(answer) as (bare, ended):
        ask(bare, body=framed(b"first"), end=False)
        await bare.settle()
        assert bare.heard(1) == ["ResponseReceived", "DataReceived", "TrailersReceived", "StreamEnded", "StreamReset"]
        assert bare.data(1) == framed(b"enough")
        assert bare.events[-1].error_code == h2.errors.ErrorCodes.NO_ERROR
        assert status(bare) == (b"11" if failing else b"0")
        # What was under way when the reset was sent (RFC 9113 section 5.1).
        await bare.stream.send_all(b"\0\0\5\0\0\0\0\0\1" + b"late!")
        ask(bare, stream_id=3)
        await bare.settle()
        assert status(bare, 3) == status(bare)
    assert [how[0] for how in ended] == [StatusCode.OUT_OF_RANGE if failing else StatusCode.OK] * 2


async def test_unknown_method_ends_an_open_request() -> None:
    """A client that streams to a method that nobody has is told at once."""
    async with hosting(Registrar()) as (bare, _):
        ask(bare, body=framed(b"first"), end=False)
        await bare.settle()
        assert bare.heard(1) == ["ResponseReceived", "StreamEnded", "StreamReset"]
        assert status(bare) == b"12"


# -- deadlines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
async def test_deadline(begun: bool, autojump_clock: trio.testing.MockClock) -> None:
    """At its deadline a call ends DEADLINE_EXCEEDED on the wire, and its handler is stopped."""
    stopped: list[Any] = []

    async def sleep(call: ServerCall) -> None:
        if begun:
            await call.send(b"begun")
        try:
            await trio.sleep_forever()
        finally:
            stopped.append((trio.current_time(), call.time_remaining()))

    async with serving(sleep) as (bare, ended):
        ask(bare, (b"grpc-timeout", b"2500m"))
        await bare.flush()
        began = trio.current_time()
        await trio.sleep(3)
        assert status(bare) == b"4"
    assert stopped == [(pytest.approx(began + 2.5), 0.0)]
    assert ended[0][0] is StatusCode.DEADLINE_EXCEEDED
    assert not ended[0][3]


async def test_answer_before_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    """What a handler has answered when the deadline passes stays answered, also while the client reads slowly."""

    async def answer(call: ServerCall) -> None:
        await call.send(bytes(200_000))

    async with serving(answer) as (bare, ended):
        bare.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        await bare.settle()
        ask(bare, (b"grpc-timeout", b"1S"))
        await bare.flush()
        await trio.sleep(5)
        assert ended[0][0] is StatusCode.OK
        bare.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 300_000})
        await bare.settle()
        assert len(bare.data(1)) == 200_005
        assert status(bare) == b"0"


@pytest.mark.parametrize("timeout", [b"1", b"1X", b"123456789S", b"-1S", b"S", b"1.5S"])
async def test_malformed_timeout(timeout: bytes) -> None:
    """A timeout that gRPC does not allow ends the call with INTERNAL, and no handler is started."""
    started = []

    async def note(call: ServerCall) -> None:
        started.append(call)

    async with serving(note) as (bare, _):
        ask(bare, (b"grpc-timeout", timeout))
        await bare.settle()
        assert status(bare) == b"13"
    assert started == []


# -- cancellation ------------------------------------------------------------------------------------------------------


async def test_cancelled_as_it_begins() -> None:
    """A call that is opened and cancelled in the same bytes leaves nothing behind, and the connection lives."""
    reached = []

    async def handle(call: ServerCall) -> None:
        await call.receive()
        reached.append(call)

    async with serving(handle) as (bare, ended):
        ask(bare, body=framed(b"x"))
        bare.h2.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
        ask(bare, stream_id=3)
        await bare.settle()
        assert bare.heard(1) == []
        assert status(bare, 3) == b"0"
    assert sorted(how[0] for how in ended) == [StatusCode.OK, StatusCode.CANCELLED]


async def test_cancelled_as_the_handler_ends() -> None:
    """A cancellation that crosses the answer changes nothing: the handler has ended, nothing is sent twice."""
    go = trio.Event()

    async def handle(call: ServerCall) -> None:
        await go.wait()
        await call.send(b"done")

    async with serving(handle) as (bare, ended):
        ask(bare)
        await bare.settle()
        bare.h2.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
        go.set()
        await bare.settle()
        assert bare.heard(1) == []
        ask(bare, stream_id=3)
        await bare.settle()
        assert status(bare, 3) == b"0"
    assert len(ended) == 2


async def test_cancelled_while_its_answer_waits() -> None:
    """A call whose answer waits for the client's window is forgotten when the client cancels it."""

    async def handle(call: ServerCall) -> None:
        await call.send(bytes(200_000))

    async with serving(handle) as (bare, ended):
        bare.acknowledges = False
        bare.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
        await bare.settle()
        ask(bare)
        await bare.settle()
        assert ended[0][0] is StatusCode.OK
        bare.h2.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
        await bare.settle()
        assert bare.heard(1) == ["ResponseReceived", "DataReceived"]


async def test_handler_that_cleans_up_when_cancelled() -> None:
    """What a handler says while it is being cancelled goes nowhere, and raises for it as the call's own failure."""
    caught = []

    async def handle(call: ServerCall) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                with pytest.raises(RpcError) as failure:
                    await call.send(b"too late")
                caught.append(failure.value.code)

    async with serving(handle) as (bare, ended):
        ask(bare)
        await bare.settle()
        bare.h2.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
        await bare.settle()
        assert bare.heard(1) == []
    assert caught == [StatusCode.CANCELLED]
    assert ended == [(StatusCode.CANCELLED, "the other side cancelled the call", None, True)]


# -- how many messages -------------------------------------------------------------------------------------------------


def unary_methods(echo: Any) -> dict[str, Registrar]:
    """Return registrars that host a unary method at `M`, in every style; none of them is ever called."""
    _, service = echo
    base: Any = service.EchoServicer

    class Plain(base):  # type: ignore[misc]  # made at run time
        def One(self, request: Any, context: Any) -> Any:
            raise AssertionError

        Down = One

    class Async(base):  # type: ignore[misc]  # made at run time
        async def One(self, request: Any, context: Any) -> Any:
            raise AssertionError

        Down = One

    async def never(*args: Any) -> Any:
        raise AssertionError

    registrars = {name: Registrar() for name in ("unary", "stream", "plain", "async")}
    registrars["unary"].unary_unary("/tests.echo.Echo/One", never, Request)
    registrars["stream"].unary_stream("/tests.echo.Echo/Down", never, Request)
    GrpcioServicer(Plain(), service.add_EchoServicer_to_server).register(registrars["plain"])
    GrpcioServicer(Async(), service.add_EchoServicer_to_server).register(registrars["async"])
    return registrars


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize(
    ("style", "method"), [("unary", "One"), ("stream", "Down"), ("plain", "One"), ("async", "One"), ("plain", "Down")]
)
async def test_wrong_number_of_messages(style: str, method: str, count: int, echo: Any) -> None:
    """A unary request with no message, or two, is INTERNAL in every style of hosting, as grpc-go has it."""
    async with hosting(unary_methods(echo)[style]) as (bare, ended):
        bare.h2.send_headers(1, request(f"/tests.echo.Echo/{method}"))
        bare.h2.send_data(1, framed(*[b""] * count), end_stream=True)
        await bare.settle()
        assert status(bare) == b"13"
    assert ended[0][1].startswith(f"/tests.echo.Echo/{method} takes one message and got")


# -- limits ------------------------------------------------------------------------------------------------------------


async def echo_all(call: ServerCall) -> None:
    while (message := await call.receive()) is not None:
        await call.send(message)


async def test_message_over_the_limit() -> None:
    """A message over the server's limit ends its call, naming size and limit, and no other; nobody cancelled it."""
    async with serving(echo_all, max_message=1000) as (bare, ended):
        ask(bare, body=framed(bytes(1000)))
        ask(bare, body=framed(b"first", bytes(1001)), stream_id=3)
        await bare.settle()
        assert status(bare) == b"0"
        assert status(bare, 3) == b"8"
        assert ended[-1][1] == "received message larger than max (1001 vs. 1000)"
        assert (ended[-1][0], ended[-1][3]) == (StatusCode.RESOURCE_EXHAUSTED, False)


async def test_inflated_message_over_the_limit() -> None:
    """A compressed message is measured as it is and as it inflates."""
    packed = zlib.compress(bytes(1001), wbits=31)
    async with serving(echo_all, max_message=1000) as (bare, ended):
        ask(bare, (b"grpc-encoding", b"gzip"), body=framed(packed, compressed=True))
        await bare.settle()
        assert status(bare) == b"8"
    assert ended[-1][1] == "message inflates to more than 1000 bytes"


async def test_limit_of_a_listener(tmp_path: Path) -> None:
    """`serve_listener` takes the limit too; grpcio's client sees it as RESOURCE_EXHAUSTED with both numbers."""
    registrar = Registrar()
    registrar.stream(M, echo_all)

    def ask_grpcio() -> None:
        with grpc.insecure_channel(f"unix:{tmp_path / 's'}") as channel:
            method: Any = channel.unary_unary(M)
            assert method(bytes(1000)) == bytes(1000)
            with pytest.raises(grpc.RpcError) as caught:
                method(bytes(1001))
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "1001 vs. 1000" in error.details()

    async with trio.open_nursery() as nursery:
        await nursery.start(_serve_limited, f"unix://{tmp_path / 's'}", registrar)
        await trio.to_thread.run_sync(ask_grpcio)
        nursery.cancel_scope.cancel()


async def _serve_limited(address: str, registrar: Registrar, *, task_status: Any) -> None:
    await serve_listener(address, registrar, max_message=1000, task_status=task_status)


async def test_each_limit_is_its_own() -> None:
    """What a server accepts and what a client accepts are told apart, and a larger limit than the default works."""
    ours, theirs = trio.testing.memory_stream_pair()
    registrar = Registrar()
    registrar.stream(M, echo_all)
    size = 17 * 1024 * 1024
    async with (
        open_server(ours, registrar, max_message=size) as server,
        open_channel(theirs, max_message=size - 1) as channel,
    ):
        with pytest.raises(RpcError, match=f"{size} vs. {size - 1}") as caught:
            async with channel.open_call(M) as call:
                await call.end(bytes(size))
                await call.receive()
        assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED
        async with channel.open_call(M) as call:
            await call.end(bytes(size - 1))
            assert await call.receive() == bytes(size - 1)
        assert server.failure is None

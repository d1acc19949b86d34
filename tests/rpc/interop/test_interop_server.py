"""gRPC's interoperability cases, asked by grpcio's own client of our server, in every style of hosting.

The cases are those of grpc/grpc doc/interop-test-descriptions.md. What that document has the server check about a
request's compression is checked here on the recorded bytes of the connection.
"""

from __future__ import annotations

import functools
import queue
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
import trio

from mobysession.rpc.listener import serve_listener
from tests.rpc.interop.service import ECHO_INITIAL, ECHO_TRAILING, SERVICE, STYLES, hosting
from tests.rpc.interop.tap import Tap, TapListener, compressed_flags

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mobysession.errors import StatusCode
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall

REQUEST_SIZES = (27182, 8, 1828, 45904)
ANSWER_SIZES = (31415, 9, 2653, 58979)
SPECIAL_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP \U0001f608\t\n"
METADATA = ((ECHO_INITIAL, "test_initial_metadata_value"), (ECHO_TRAILING, b"\xab\xab\xab"))


class Calls:
    """What the server has to do, and how it ended."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, StatusCode]] = []
        self._running = 0
        self.idle = trio.Event()
        self.idle.set()

    def begin(self, call: ServerCall) -> None:
        self._running += 1
        self.idle = trio.Event()

    def end(self, call: ServerCall, code: StatusCode, message: str, error: BaseException | None) -> None:
        self.ended.append((call.method, code))
        self._running -= 1
        if not self._running:
            self.idle.set()


class Peer(NamedTuple):
    """What a case works with, in its thread."""

    pb: Any
    stub: Any
    channel: grpc.Channel
    service: Any


class Requests:
    """Requests that are given out one by one, as a bidirectional call needs them."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def put(self, request: Any) -> None:
        self._queue.put(request)

    def close(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Requests:
        return self

    def __next__(self) -> Any:
        request = self._queue.get()
        if request is None:
            raise StopIteration
        return request


@asynccontextmanager
async def grpcio_peer(
    registrar: Registrar, interop: Any
) -> AsyncIterator[tuple[Callable[[Callable[[Peer], None]], Any], TapListener, Calls]]:
    """Serve ``registrar`` on a TCP port; yield what runs a case with grpcio's client, the taps and the calls."""
    pb, service = interop
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    taps, calls = TapListener(listener), Calls()
    serve = functools.partial(serve_listener, taps, registrar, on_call_started=calls.begin, on_call_ended=calls.end)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        peer = Peer(pb, service.TestServiceStub(channel), channel, service)

        async def run(case: Callable[[Peer], None]) -> None:
            await trio.to_thread.run_sync(case, peer)

        try:
            with trio.fail_after(20):
                yield run, taps, calls
        finally:
            channel.close()
        nursery.cancel_scope.cancel()


def fails(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return the error that ``function`` ends in."""
    with pytest.raises(grpc.RpcError) as caught:
        function(*args, **kwargs)
    return caught.value


def payload(pb: Any, size: int) -> Any:
    return pb.Payload(body=bytes(size))


def output_request(pb: Any, size: int, payload_size: int) -> Any:
    return pb.StreamingOutputCallRequest(
        response_parameters=[pb.ResponseParameters(size=size)], payload=payload(pb, payload_size)
    )


# -- the cases ---------------------------------------------------------------------------------------------------------


def empty_unary(peer: Peer) -> None:
    assert peer.stub.EmptyCall(peer.pb.Empty()) == peer.pb.Empty()


def large_unary(peer: Peer) -> None:
    answer = peer.stub.UnaryCall(peer.pb.SimpleRequest(response_size=314159, payload=payload(peer.pb, 271828)))
    assert answer.payload.body == bytes(314159)


def client_streaming(peer: Peer) -> None:
    requests = (peer.pb.StreamingInputCallRequest(payload=payload(peer.pb, size)) for size in REQUEST_SIZES)
    assert peer.stub.StreamingInputCall(requests).aggregated_payload_size == sum(REQUEST_SIZES)


def server_streaming(peer: Peer) -> None:
    wanted = [peer.pb.ResponseParameters(size=size) for size in ANSWER_SIZES]
    answers = peer.stub.StreamingOutputCall(peer.pb.StreamingOutputCallRequest(response_parameters=wanted))
    assert [len(answer.payload.body) for answer in answers] == list(ANSWER_SIZES)


def ping_pong(peer: Peer) -> None:
    requests = Requests()
    answers = peer.stub.FullDuplexCall(requests)
    for size, payload_size in zip(ANSWER_SIZES, REQUEST_SIZES, strict=True):
        requests.put(output_request(peer.pb, size, payload_size))
        assert len(next(answers).payload.body) == size
    requests.close()
    assert list(answers) == []


def empty_stream(peer: Peer) -> None:
    assert list(peer.stub.FullDuplexCall(iter(()))) == []


def cancel_after_begin(peer: Peer) -> None:
    requests = Requests()
    call = peer.stub.StreamingInputCall.future(requests)
    call.cancel()
    assert call.code() is grpc.StatusCode.CANCELLED
    assert call.cancelled()
    requests.close()


def cancel_after_first_response(peer: Peer) -> None:
    requests = Requests()
    answers = peer.stub.FullDuplexCall(requests)
    requests.put(output_request(peer.pb, ANSWER_SIZES[0], REQUEST_SIZES[0]))
    assert len(next(answers).payload.body) == ANSWER_SIZES[0]
    answers.cancel()
    assert fails(next, answers).code() is grpc.StatusCode.CANCELLED
    requests.close()


def timeout_on_sleeping_server(peer: Peer) -> None:
    requests = Requests()
    answers = peer.stub.FullDuplexCall(requests, timeout=0.001)
    requests.put(peer.pb.StreamingOutputCallRequest(payload=payload(peer.pb, 27182)))
    assert fails(next, answers).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    requests.close()


def custom_metadata(peer: Peer) -> None:
    _, call = peer.stub.UnaryCall.with_call(
        peer.pb.SimpleRequest(response_size=314159, payload=payload(peer.pb, 271828)), metadata=METADATA
    )
    answers = peer.stub.FullDuplexCall(iter([output_request(peer.pb, 314159, 271828)]), metadata=METADATA)
    assert len(list(answers)) == 1
    for one in (call, answers):
        assert METADATA[0] in list(one.initial_metadata())
        assert METADATA[1] in list(one.trailing_metadata())


def status_code_and_message(peer: Peer) -> None:
    status = peer.pb.EchoStatus(code=2, message="test status message")
    unary = fails(peer.stub.UnaryCall, peer.pb.SimpleRequest(response_status=status))
    answers = peer.stub.FullDuplexCall(iter([peer.pb.StreamingOutputCallRequest(response_status=status)]))
    duplex = fails(next, answers)
    assert (unary.code(), unary.details()) == (grpc.StatusCode.UNKNOWN, "test status message")
    assert (duplex.code(), duplex.details()) == (grpc.StatusCode.UNKNOWN, "test status message")


def special_status_message(peer: Peer) -> None:
    status = peer.pb.EchoStatus(code=2, message=SPECIAL_MESSAGE)
    error = fails(peer.stub.UnaryCall, peer.pb.SimpleRequest(response_status=status))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, SPECIAL_MESSAGE)


def unimplemented_method(peer: Peer) -> None:
    assert fails(peer.stub.UnimplementedCall, peer.pb.Empty()).code() is grpc.StatusCode.UNIMPLEMENTED


def unimplemented_service(peer: Peer) -> None:
    stub = peer.service.UnimplementedServiceStub(peer.channel)
    assert fails(stub.UnimplementedCall, peer.pb.Empty()).code() is grpc.StatusCode.UNIMPLEMENTED


CASES = (
    *(empty_unary, large_unary, client_streaming, server_streaming, ping_pong, empty_stream, cancel_after_begin),
    *(cancel_after_first_response, timeout_on_sleeping_server, custom_metadata, status_code_and_message),
    *(special_status_message, unimplemented_method, unimplemented_service),
)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_case(case: Callable[[Peer], None], style: str, interop: Any) -> None:
    """grpcio's client sees what the case demands, and every handler has ended when it is over."""
    async with grpcio_peer(hosting(style, *interop), interop) as (run, _, calls):
        await run(case)
        await calls.idle.wait()


async def test_all_cases_on_one_connection(interop: Any) -> None:
    """The cases run at the same time, on one connection to a servicer of both styles, and do not disturb each other."""
    async with grpcio_peer(hosting("mixed", *interop), interop) as (run, taps, _):
        async with trio.open_nursery() as nursery:
            for case in CASES:
                nursery.start_soon(run, case)
        assert len(taps.taps) == 1


def _compressible(pb: Any) -> Any:
    return pb.StreamingInputCallRequest(payload=payload(pb, 27182), expect_compressed=pb.BoolValue(value=True))


def _incompressible(pb: Any) -> Any:
    # grpcio leaves alone what does not get smaller.
    body = random.Random(1).randbytes(45904)
    return pb.StreamingInputCallRequest(payload=pb.Payload(body=body), expect_compressed=pb.BoolValue(value=False))


def client_compressed_unary(peer: Peer) -> None:
    request = peer.pb.SimpleRequest(response_size=314159, payload=payload(peer.pb, 271828))
    for compression in (grpc.Compression.Gzip, grpc.Compression.NoCompression):
        assert len(peer.stub.UnaryCall(request, compression=compression).payload.body) == 314159


def client_compressed_streaming(peer: Peer) -> None:
    requests = iter([_compressible(peer.pb), _incompressible(peer.pb)])
    answer = peer.stub.StreamingInputCall(requests, compression=grpc.Compression.Gzip)
    assert answer.aggregated_payload_size == 73086


def server_compressed_unary(peer: Peer) -> None:
    for compressed in (True, False):
        request = peer.pb.SimpleRequest(
            response_size=314159,
            payload=payload(peer.pb, 271828),
            response_compressed=peer.pb.BoolValue(value=compressed),
        )
        assert peer.stub.UnaryCall(request).payload.body == bytes(314159)


def server_compressed_streaming(peer: Peer) -> None:
    wanted = [
        peer.pb.ResponseParameters(size=31415, compressed=peer.pb.BoolValue(value=True)),
        peer.pb.ResponseParameters(size=92653, compressed=peer.pb.BoolValue(value=False)),
    ]
    answers = peer.stub.StreamingOutputCall(peer.pb.StreamingOutputCallRequest(response_parameters=wanted))
    assert [answer.payload.body for answer in answers] == [bytes(31415), bytes(92653)]


def _received(tap: Tap) -> list[bool]:
    return compressed_flags(tap.received)


def _sent(tap: Tap) -> list[bool]:
    return compressed_flags(tap.sent)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("case", "flags"),
    [
        (client_compressed_unary, _received),
        (client_compressed_streaming, _received),
        (server_compressed_unary, _sent),
        (server_compressed_streaming, _sent),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
async def test_compressed_case(
    case: Callable[[Peer], None], flags: Callable[[Tap], list[bool]], style: str, interop: Any
) -> None:
    """Compressed and plain messages are understood in one call and over one connection, and sent as was asked."""
    async with grpcio_peer(hosting(style, *interop), interop) as (run, taps, _):
        await run(case)
        (tap,) = taps.taps
        assert flags(tap) == [True, False]


async def test_style_is_of_no_consequence(interop: Any) -> None:
    """All styles advertise the same methods; only servicers have one for the call that nobody implements."""
    names = {style: set(hosting(style, *interop).methods) for style in STYLES}
    assert names["plain"] == names["async"] == names["mixed"] == names["raw"] | {SERVICE + "UnimplementedCall"}

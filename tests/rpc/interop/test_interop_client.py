"""gRPC's interoperability cases, asked by our client of grpcio's own servers, the plain one and that of grpc.aio.

The cases are those of grpc/grpc doc/interop-test-descriptions.md; what was compressed is read off the recorded bytes.
"""

# ruff: noqa: PT012 - a call fails where its block ends

from __future__ import annotations

import functools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio

from mobysession.errors import RpcError, StatusCode
from mobysession.rpc.client import open_channel
from tests.rpc.genuine import SERVERS
from tests.rpc.interop.service import ECHO_INITIAL, ECHO_TRAILING, SERVICE, SERVICERS
from tests.rpc.interop.tap import Tap, compressed_flags

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from mobysession.rpc.client import Channel, ClientCall

REQUEST_SIZES = (27182, 8, 1828, 45904)
ANSWER_SIZES = (31415, 9, 2653, 58979)
SPECIAL_MESSAGE = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP \U0001f608\t\n"
METADATA: list[tuple[str, str | bytes]] = [
    (ECHO_INITIAL, "test_initial_metadata_value"),
    (ECHO_TRAILING, b"\xab\xab\xab"),
]


class Peer(NamedTuple):
    """What a case works with."""

    channel: Channel
    pb: Any
    tap: Tap


@pytest.fixture(scope="module", params=sorted(SERVERS))
def address(request: pytest.FixtureRequest, interop: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run each server in turn; give the path of its socket."""
    pb, service = interop
    servicer = SERVICERS[request.param](pb, service)
    path = tmp_path_factory.mktemp("interop") / "s.sock"
    with SERVERS[request.param](path, functools.partial(service.add_TestServiceServicer_to_server, servicer)):
        yield path


@asynccontextmanager
async def our_peer(address: Path, interop: Any) -> AsyncIterator[Peer]:
    """Connect our client; at the end of the block nothing of its calls is left."""
    tap = Tap(await trio.open_unix_socket(address))
    with trio.fail_after(20):
        async with open_channel(tap) as channel:
            yield Peer(channel, interop[0], tap)
            assert (channel.calls, channel.core.open_calls) == ({}, 0)


async def receive_all(call: ClientCall, response: Any) -> list[Any]:
    """Return all answers of a call, decoded."""
    answers = []
    while (message := await call.receive()) is not None:
        answers.append(response.FromString(message))
    return answers


def payload(pb: Any, size: int) -> Any:
    return pb.Payload(body=bytes(size))


def output_request(pb: Any, size: int, payload_size: int) -> bytes:
    wanted = [pb.ResponseParameters(size=size)]
    request = pb.StreamingOutputCallRequest(response_parameters=wanted, payload=payload(pb, payload_size))
    return bytes(request.SerializeToString())


async def status_of(asking: Awaitable[object]) -> tuple[StatusCode, str]:
    """Return the status that a call ends with."""
    with pytest.raises(RpcError) as caught:
        await asking
    return caught.value.code, caught.value.message


# -- the cases ---------------------------------------------------------------------------------------------------------


async def empty_unary(peer: Peer) -> None:
    assert await peer.channel.unary(SERVICE + "EmptyCall", peer.pb.Empty(), peer.pb.Empty) == peer.pb.Empty()


async def large_unary(peer: Peer) -> None:
    request = peer.pb.SimpleRequest(response_size=314159, payload=payload(peer.pb, 271828))
    answer = await peer.channel.unary(SERVICE + "UnaryCall", request, peer.pb.SimpleResponse)
    assert answer.payload.body == bytes(314159)


async def client_streaming(peer: Peer) -> None:
    async with peer.channel.open_call(SERVICE + "StreamingInputCall") as call:
        for size in REQUEST_SIZES:
            await call.send(peer.pb.StreamingInputCallRequest(payload=payload(peer.pb, size)).SerializeToString())
        await call.end()
        (answer,) = await receive_all(call, peer.pb.StreamingInputCallResponse)
    assert answer.aggregated_payload_size == sum(REQUEST_SIZES)


async def server_streaming(peer: Peer) -> None:
    wanted = [peer.pb.ResponseParameters(size=size) for size in ANSWER_SIZES]
    request = peer.pb.StreamingOutputCallRequest(response_parameters=wanted)
    answers = peer.channel.unary_stream(SERVICE + "StreamingOutputCall", request, peer.pb.StreamingOutputCallResponse)
    assert [len(answer.payload.body) async for answer in answers] == list(ANSWER_SIZES)


async def ping_pong(peer: Peer) -> None:
    response = peer.pb.StreamingOutputCallResponse
    async with peer.channel.open_call(SERVICE + "FullDuplexCall") as call:
        for size, payload_size in zip(ANSWER_SIZES, REQUEST_SIZES, strict=True):
            await call.send(output_request(peer.pb, size, payload_size))
            assert len(response.FromString(await call.receive()).payload.body) == size
        await call.end()
        assert await call.receive() is None


async def empty_stream(peer: Peer) -> None:
    async with peer.channel.open_call(SERVICE + "FullDuplexCall") as call:
        await call.end()
        assert await call.receive() is None


async def cancel_after_begin(peer: Peer) -> None:
    async with peer.channel.open_call(SERVICE + "StreamingInputCall"):
        pass


async def cancel_after_first_response(peer: Peer) -> None:
    async with peer.channel.open_call(SERVICE + "FullDuplexCall") as call:
        await call.send(output_request(peer.pb, ANSWER_SIZES[0], REQUEST_SIZES[0]))
        assert await call.receive() is not None
    # The connection is none the worse for it.
    await empty_unary(peer)


async def timeout_on_sleeping_server(peer: Peer) -> None:
    request = peer.pb.StreamingOutputCallRequest(payload=payload(peer.pb, 27182)).SerializeToString()
    async with peer.channel.open_call(SERVICE + "FullDuplexCall", timeout=0.001) as call:
        with pytest.raises(RpcError) as caught:
            await call.send(request)
            await call.receive()
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED


async def custom_metadata(peer: Peer) -> None:
    request = peer.pb.SimpleRequest(response_size=314159, payload=payload(peer.pb, 271828)).SerializeToString()
    for method, message in (("UnaryCall", request), ("FullDuplexCall", output_request(peer.pb, 314159, 271828))):
        async with peer.channel.open_call(SERVICE + method, metadata=METADATA) as call:
            await call.end(message)
            assert METADATA[0] in await call.wait_initial_metadata()
            assert len(await receive_all(call, peer.pb.SimpleResponse)) == 1
            assert METADATA[1] in call.trailing_metadata


async def status_code_and_message(peer: Peer) -> None:
    status = peer.pb.EchoStatus(code=2, message="test status message")
    asking = peer.channel.unary(
        SERVICE + "UnaryCall", peer.pb.SimpleRequest(response_status=status), peer.pb.SimpleResponse
    )
    assert await status_of(asking) == (StatusCode.UNKNOWN, "test status message")
    async with peer.channel.open_call(SERVICE + "FullDuplexCall") as call:
        await call.send(peer.pb.StreamingOutputCallRequest(response_status=status).SerializeToString())
        assert await status_of(call.receive()) == (StatusCode.UNKNOWN, "test status message")


async def special_status_message(peer: Peer) -> None:
    status = peer.pb.EchoStatus(code=2, message=SPECIAL_MESSAGE)
    asking = peer.channel.unary(
        SERVICE + "UnaryCall", peer.pb.SimpleRequest(response_status=status), peer.pb.SimpleResponse
    )
    assert await status_of(asking) == (StatusCode.UNKNOWN, SPECIAL_MESSAGE)


async def unimplemented_method(peer: Peer) -> None:
    asking = peer.channel.unary(SERVICE + "UnimplementedCall", peer.pb.Empty(), peer.pb.Empty)
    assert (await status_of(asking))[0] is StatusCode.UNIMPLEMENTED


async def unimplemented_service(peer: Peer) -> None:
    method = "/grpc.testing.UnimplementedService/UnimplementedCall"
    assert (await status_of(peer.channel.unary(method, peer.pb.Empty(), peer.pb.Empty)))[0] is StatusCode.UNIMPLEMENTED


async def client_compressed_unary(peer: Peer) -> None:
    request = peer.pb.SimpleRequest(response_size=314159, payload=payload(peer.pb, 271828))
    for compress in (True, False):
        asking = peer.channel.unary(SERVICE + "UnaryCall", request, peer.pb.SimpleResponse, compress=compress)
        assert len((await asking).payload.body) == 314159
    assert compressed_flags(peer.tap.sent) == [True, False]


async def client_compressed_streaming(peer: Peer) -> None:
    async with peer.channel.open_call(SERVICE + "StreamingInputCall", compress=True) as call:
        for size, compress in ((27182, True), (45904, False)):
            message = peer.pb.StreamingInputCallRequest(payload=payload(peer.pb, size)).SerializeToString()
            await call.send_batch((message,), compress=compress)
        await call.end()
        (answer,) = await receive_all(call, peer.pb.StreamingInputCallResponse)
    assert answer.aggregated_payload_size == 73086
    assert compressed_flags(peer.tap.sent) == [True, False]


async def server_compressed_unary(peer: Peer) -> None:
    for compressed in (True, False):
        request = peer.pb.SimpleRequest(
            response_size=314159,
            payload=payload(peer.pb, 271828),
            response_compressed=peer.pb.BoolValue(value=compressed),
        )
        answer = await peer.channel.unary(SERVICE + "UnaryCall", request, peer.pb.SimpleResponse)
        assert answer.payload.body == bytes(314159)
    assert compressed_flags(peer.tap.received) == [True, False]


async def server_compressed_streaming(peer: Peer) -> None:
    wanted = [
        peer.pb.ResponseParameters(size=31415, compressed=peer.pb.BoolValue(value=True)),
        peer.pb.ResponseParameters(size=92653, compressed=peer.pb.BoolValue(value=False)),
    ]
    request = peer.pb.StreamingOutputCallRequest(response_parameters=wanted)
    answers = peer.channel.unary_stream(SERVICE + "StreamingOutputCall", request, peer.pb.StreamingOutputCallResponse)
    assert [answer.payload.body async for answer in answers] == [bytes(31415), bytes(92653)]
    assert compressed_flags(peer.tap.received) == [True, False]


CASES = (
    *(empty_unary, large_unary, client_streaming, server_streaming, ping_pong, empty_stream, cancel_after_begin),
    *(cancel_after_first_response, timeout_on_sleeping_server, custom_metadata, status_code_and_message),
    *(special_status_message, unimplemented_method, unimplemented_service),
)
COMPRESSED = (
    *(client_compressed_unary, client_compressed_streaming, server_compressed_unary, server_compressed_streaming),
)


@pytest.mark.parametrize("case", [*CASES, *COMPRESSED], ids=lambda case: case.__name__)
async def test_case(case: Callable[[Peer], Awaitable[None]], address: Path, interop: Any) -> None:
    """Our client gets from grpcio's servers what the case demands."""
    async with our_peer(address, interop) as peer:
        await case(peer)


async def test_all_cases_on_one_connection(address: Path, interop: Any) -> None:
    """The cases run at the same time on one connection and do not disturb each other."""
    async with our_peer(address, interop) as peer, trio.open_nursery() as nursery:
        for case in CASES:
            nursery.start_soon(case, peer)

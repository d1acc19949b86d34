"""gRPC's interoperability test service (grpc/grpc doc/interop-test-descriptions.md), written in each style we host.

What a call is answered depends on its request alone; no style sleeps, or waits for anything but its peer, so the
asynchronous servicer runs on asyncio (in grpcio's own server) as on trio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from mobysession.errors import RpcError, StatusCode
from mobysession.rpc.grpcio import GrpcioServicer
from mobysession.rpc.registrar import Cardinality, Registrar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from mobysession.rpc.server import ServerCall

SERVICE = "/grpc.testing.TestService/"
ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def plain_servicer(pb: Any, service: Any) -> Any:
    """Return the service as plain functions."""
    base: Any = service.TestServiceServicer

    class TestService(base):  # type: ignore[misc]  # made at run time
        def EmptyCall(self, request: Any, context: Any) -> Any:
            return pb.Empty()

        def UnaryCall(self, request: Any, context: Any) -> Any:
            initial = _echo(context)
            _compress(context, request.response_compressed.value)
            if initial:
                context.send_initial_metadata(initial)
            if request.response_status.code:
                context.set_code(_CODES[request.response_status.code])
                context.set_details(request.response_status.message)
            if not request.response_compressed.value:
                context.disable_next_message_compression()
            return pb.SimpleResponse(payload=pb.Payload(body=bytes(request.response_size)))

        def StreamingOutputCall(self, request: Any, context: Any) -> Any:
            _compress(context, any(one.compressed.value for one in request.response_parameters))
            yield from self._answers(request, context)

        def StreamingInputCall(self, requests: Any, context: Any) -> Any:
            return pb.StreamingInputCallResponse(aggregated_payload_size=sum(len(one.payload.body) for one in requests))

        def FullDuplexCall(self, requests: Any, context: Any) -> Any:
            initial = _echo(context)
            if initial:
                context.send_initial_metadata(initial)
            for request in requests:
                if request.response_status.code:
                    context.abort(_CODES[request.response_status.code], request.response_status.message)
                yield from self._answers(request, context)

        def _answers(self, request: Any, context: Any) -> Any:
            for one in request.response_parameters:
                if not one.compressed.value:
                    context.disable_next_message_compression()
                yield pb.StreamingOutputCallResponse(payload=pb.Payload(body=bytes(one.size)))

    return TestService()


def async_servicer(pb: Any, service: Any) -> Any:
    """Return the service as coroutines, with both of grpc.aio's ways to answer a stream."""
    base: Any = service.TestServiceServicer

    class TestService(base):  # type: ignore[misc]  # made at run time
        async def EmptyCall(self, request: Any, context: Any) -> Any:
            return pb.Empty()

        async def UnaryCall(self, request: Any, context: Any) -> Any:
            initial = _echo(context)
            _compress(context, request.response_compressed.value)
            if initial or request.response_compressed.value:
                # grpc.aio (1.85) forgets the compression of a unary answer whose metadata it sends by itself.
                await context.send_initial_metadata(initial)
            if request.response_status.code:
                await context.abort(_CODES[request.response_status.code], request.response_status.message)
            if not request.response_compressed.value:
                context.disable_next_message_compression()
            return pb.SimpleResponse(payload=pb.Payload(body=bytes(request.response_size)))

        async def StreamingOutputCall(self, request: Any, context: Any) -> Any:
            _compress(context, any(one.compressed.value for one in request.response_parameters))
            for one in request.response_parameters:
                if not one.compressed.value:
                    context.disable_next_message_compression()
                yield pb.StreamingOutputCallResponse(payload=pb.Payload(body=bytes(one.size)))

        async def StreamingInputCall(self, requests: Any, context: Any) -> Any:
            size = 0
            async for one in requests:
                size += len(one.payload.body)
            return pb.StreamingInputCallResponse(aggregated_payload_size=size)

        async def FullDuplexCall(self, _requests: Any, context: Any) -> None:
            initial = _echo(context)
            if initial:
                await context.send_initial_metadata(initial)
            while (request := await context.read()) is not grpc.aio.EOF:
                if request.response_status.code:
                    await context.abort(_CODES[request.response_status.code], request.response_status.message)
                for one in request.response_parameters:
                    await context.write(pb.StreamingOutputCallResponse(payload=pb.Payload(body=bytes(one.size))))

    return TestService()


def mixed_servicer(pb: Any, service: Any) -> Any:
    """Return a servicer whose methods are plain and asynchronous in turns."""
    plain, asynchronous = plain_servicer(pb, service), async_servicer(pb, service)
    plain.UnaryCall = asynchronous.UnaryCall
    plain.StreamingInputCall = asynchronous.StreamingInputCall
    plain.StreamingOutputCall = asynchronous.StreamingOutputCall
    return plain


class RawService:
    """The service as handlers of raw messages, each its own codec."""

    def __init__(self, pb: Any) -> None:
        self._pb = pb

    def register(self, registrar: Registrar) -> None:
        """Add the methods, each in the way that fits it."""
        pb = self._pb
        registrar.unary_unary(SERVICE + "EmptyCall", self._empty, pb.Empty)
        registrar.unary_unary(SERVICE + "UnaryCall", self._unary, pb.SimpleRequest)
        registrar.unary_stream(SERVICE + "StreamingOutputCall", self._output, pb.StreamingOutputCallRequest)
        registrar.stream(SERVICE + "StreamingInputCall", self._input, Cardinality.STREAM_UNARY)
        registrar.stream(SERVICE + "FullDuplexCall", self._duplex)

    async def _empty(self, request: Any, call: ServerCall) -> Any:
        return self._pb.Empty()

    async def _unary(self, request: Any, call: ServerCall) -> Any:
        await self._begin(call)
        if request.response_compressed.value:
            call.compress_answers()
        self._check(request)
        return self._pb.SimpleResponse(payload=self._pb.Payload(body=bytes(request.response_size)))

    async def _output(self, request: Any, call: ServerCall) -> None:
        if any(one.compressed.value for one in request.response_parameters):
            call.compress_answers()
        await self._answer(request, call)

    async def _input(self, call: ServerCall) -> None:
        size = 0
        while (message := await call.receive()) is not None:
            size += len(self._pb.StreamingInputCallRequest.FromString(message).payload.body)
        await call.send(self._pb.StreamingInputCallResponse(aggregated_payload_size=size).SerializeToString())

    async def _duplex(self, call: ServerCall) -> None:
        await self._begin(call)
        while (message := await call.receive()) is not None:
            request = self._pb.StreamingOutputCallRequest.FromString(message)
            self._check(request)
            await self._answer(request, call)

    async def _begin(self, call: ServerCall) -> None:
        trailing = [value for key, value in call.metadata if key == ECHO_TRAILING]
        call.trailing_metadata.extend((ECHO_TRAILING, value) for value in trailing)
        initial: list[tuple[str, str | bytes]] = [(ECHO_INITIAL, value) for value in call.values(ECHO_INITIAL)]
        if initial:
            await call.send_initial_metadata(initial)

    async def _answer(self, request: Any, call: ServerCall) -> None:
        for one in request.response_parameters:
            answer = self._pb.StreamingOutputCallResponse(payload=self._pb.Payload(body=bytes(one.size)))
            await call.send_batch((answer.SerializeToString(),), compress=one.compressed.value)

    def _check(self, request: Any) -> None:
        if request.response_status.code:
            raise RpcError(StatusCode(request.response_status.code), request.response_status.message)


#: The grpcio servicers by style, which grpcio's own servers can host as well.
SERVICERS: dict[str, Callable[[Any, Any], Any]] = {
    "plain": plain_servicer,
    "async": async_servicer,
    "mixed": mixed_servicer,
}
STYLES = ("raw", *SERVICERS)


def hosting(style: str, pb: ModuleType, service: ModuleType) -> Registrar:
    """Return a registrar with the service in one style."""
    registrar = Registrar()
    if style == "raw":
        RawService(pb).register(registrar)
    else:
        servicer = SERVICERS[style](pb, service)
        GrpcioServicer(servicer, service.add_TestServiceServicer_to_server).register(registrar)
    return registrar


def _echo(context: Any) -> tuple[tuple[str, str | bytes], ...]:
    """Set the trailing metadata that the request asks for, and return the initial one."""
    trailing = tuple((key, value) for key, value in context.invocation_metadata() if key == ECHO_TRAILING)
    if trailing:
        context.set_trailing_metadata(trailing)
    return tuple((key, value) for key, value in context.invocation_metadata() if key == ECHO_INITIAL)


def _compress(context: Any, wanted: bool) -> None:
    if wanted:
        context.set_compression(grpc.Compression.Gzip)

"""Servicers written against grpcio's generated code, hosted on one of our connections.

A grpcio server only listens on ports; it cannot adopt a connection. The generated ``add_XServicer_to_server`` however
needs nothing but an object with the two methods of `_Collector`, and gives it the names, shapes, codecs and functions
of the service. Plain functions run in worker threads, ``async def`` on trio: what it awaits is trio's, not asyncio's.
"""

from __future__ import annotations

import functools
import inspect
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import trio

from mobysession import limits
from mobysession.errors import RpcError, StatusCode, UsageError
from mobysession.rpc.grpcio_context import AioServicerContext
from mobysession.rpc.grpcio_threads import Worker
from mobysession.rpc.registrar import Cardinality, receive_one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall

__all__ = ["GrpcioServicer"]

_Method: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class GrpcioServicer:
    """An attachable made of a grpcio servicer.

    Args:
        servicer: an object with the service's methods, plain functions and ``async def`` in any mixture.
        add_servicer: the generated ``add_XServicer_to_server``, of any generation.
    """

    def __init__(self, servicer: object, add_servicer: Callable[..., None]) -> None:
        self._servicer = servicer
        self._add_servicer = add_servicer

    def register(self, registrar: Registrar) -> None:
        """Add the servicer's methods to ``registrar``; its plain functions share `limits.SERVICER_THREADS` threads.

        Raises:
            UsageError: ``add_servicer`` added nothing that can be advertised.
        """
        collector = _Collector(self._servicer)
        self._add_servicer(self._servicer, collector)
        if not collector.methods:
            raise UsageError(
                f"{type(self._servicer).__name__} brings no gRPC methods that a session could advertise",
                hint="Pass the add_...Servicer_to_server function that was generated for it.",
            )
        limiter = trio.CapacityLimiter(limits.SERVICER_THREADS)
        for name, method in collector.methods.items():
            behavior = getattr(method, _ATTRIBUTES[method.request_streaming, method.response_streaming])
            serve = _serve_async if _is_async(behavior) else functools.partial(_serve_plain, limiter=limiter)
            registrar.stream(
                name,
                functools.partial(serve, method=method, behavior=behavior),
                Cardinality[_ATTRIBUTES[method.request_streaming, method.response_streaming].upper()],
            )


_ATTRIBUTES = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}


class _Question:
    """A ``grpc.HandlerCallDetails``, to ask a generic handler for one method."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata: tuple[tuple[str, str | bytes], ...] = ()


class _Collector:
    """The part of a ``grpc.Server`` that generated code talks to."""

    def __init__(self, servicer: object) -> None:
        self._servicer = servicer
        self.methods: dict[str, _Method] = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Take handlers that answer for a method's name: all that code before grpcio 1.65 offers.

        They cannot be listed, only asked; generated code names the functions as the methods.
        """
        for handler in generic_rpc_handlers:
            if not isinstance(handler, grpc.ServiceRpcHandler):
                raise UsageError(
                    f"{type(handler).__name__} does not name its service",
                    hint="A session tells the daemon each method by name; use generated code.",
                )
            for name in dir(self._servicer):
                path = f"/{handler.service_name()}/{name}"
                method = handler.service(_Question(path))
                if method is not None:
                    self.methods[path] = method

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, _Method]) -> None:
        """Take the methods of a service by name."""
        for name, method in method_handlers.items():
            self.methods[f"/{service_name}/{name}"] = method


def _is_async(behavior: Any) -> bool:
    candidates = (behavior, getattr(behavior, "func", None), getattr(behavior, "__call__", None))  # noqa: B004 - looked at
    return any(inspect.iscoroutinefunction(item) or inspect.isasyncgenfunction(item) for item in candidates)


async def _serve_plain(
    call: ServerCall, *, method: _Method, behavior: Callable[..., Any], limiter: trio.CapacityLimiter
) -> None:
    await Worker(call, method, behavior, limiter).serve()


async def _serve_async(call: ServerCall, *, method: _Method, behavior: Callable[..., Any]) -> None:
    failure: Exception | None = None
    finished = False
    with trio.CancelScope() as scope:
        context = AioServicerContext(call, method, scope.cancel)
        try:
            await _run_async(call, context, method, behavior)
            finished = True
        except Exception as error:
            failure, finished = error, True
        finally:
            context.finish(cancelled=not finished)
    if context.cancel_requested:
        raise RpcError(StatusCode.CANCELLED, "the servicer cancelled the call", method=call.method)
    context.conclude(failure)


async def _run_async(
    call: ServerCall, context: AioServicerContext, method: _Method, behavior: Callable[..., Any]
) -> None:
    if method.request_streaming:
        request: Any = _AsyncRequests(call, context)
    else:
        request = context.decode(await receive_one(call, bytes))
    result = behavior(request, context)
    if hasattr(result, "__aiter__"):
        async with aclosing(result) as answers:
            async for answer in answers:
                await context.write(answer)
        return
    answer = await result
    if not method.response_streaming and not context.failed:
        await context.write(answer)


class _AsyncRequests:
    """The iterator over the requests of a call; no generator, because a servicer may drop it half used."""

    def __init__(self, call: ServerCall, context: AioServicerContext) -> None:
        self._call = call
        self._context = context

    def __aiter__(self) -> _AsyncRequests:
        return self

    async def __anext__(self) -> Any:
        message = await self._call.receive()
        if message is None:
            raise StopAsyncIteration
        return self._context.decode(message)

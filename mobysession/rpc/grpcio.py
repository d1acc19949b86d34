"""Servicers written against grpcio's generated code, hosted on one of our connections.

A grpcio server only listens on ports; it cannot adopt a connection. The generated ``add_XServicer_to_server`` however
needs nothing but an object with the two methods of `_Collector`, and gives it the names, shapes, codecs and functions
of the service. Plain functions run in worker threads, ``async def`` on trio: what it awaits is trio's, not asyncio's.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import trio

from mobysession import limits
from mobysession.errors import RpcError, StatusCode, UsageError
from mobysession.rpc.grpcio_aio import serve_async
from mobysession.rpc.grpcio_context import invocation_metadata
from mobysession.rpc.grpcio_interceptors import HandlerCallDetails, Pipeline
from mobysession.rpc.grpcio_threads import Worker
from mobysession.rpc.registrar import Cardinality, Codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from google.protobuf.message import Message

    from mobysession.rpc.registrar import CodecChoice, Registrar
    from mobysession.rpc.server import ServerCall

__all__ = ["GrpcioServicer"]

_Method: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class GrpcioServicer:
    """An attachable made of a grpcio servicer.

    Args:
        servicer: an object with the service's methods, plain functions and ``async def`` in any mixture.
        add_servicer: the generated ``add_XServicer_to_server``, of any generation.
        interceptors: of ``grpc.ServerInterceptor``, which run in threads, or of ``grpc.aio.ServerInterceptor``, which
            run on trio; the first is asked first. They see the calls of this servicer, not those of others.
        codecs: other ways to read and write the messages of some methods, by "/package.Service/Method"; a function
            instead of a `Codec` chooses one for each call, by the request's metadata.
    """

    def __init__(
        self,
        servicer: object,
        add_servicer: Callable[..., None],
        *,
        interceptors: Sequence[Any] = (),
        codecs: Mapping[str, CodecChoice] | None = None,
    ) -> None:
        self._servicer = servicer
        self._add_servicer = add_servicer
        self._interceptors = tuple(interceptors)
        self._codecs = dict(codecs or {})

    def register(self, registrar: Registrar) -> None:
        """Add the servicer's methods to ``registrar``; its plain functions share `limits.SERVICER_THREADS` threads.

        Raises:
            UsageError: ``add_servicer`` added nothing that can be advertised, a codec is for none of its methods,
                something is no interceptor, or there are both kinds of them.
        """
        methods = self._collect()
        hosted = _Hosted(methods, self._codecs, self._interceptors)
        for name, method in methods.items():
            cardinality = Cardinality[_shape(method).upper()]
            registrar.stream(name, functools.partial(hosted.serve, name), cardinality, _request_type(method))

    def _collect(self) -> dict[str, _Method]:
        collector = _Collector(self._servicer)
        self._add_servicer(self._servicer, collector)
        if not collector.methods:
            raise UsageError(
                f"{type(self._servicer).__name__} brings no gRPC methods that a session could advertise",
                hint="Pass the add_...Servicer_to_server function that was generated for it.",
            )
        for name in self._codecs:
            if name not in collector.methods:
                raise UsageError(
                    f"there is a codec for {name}, which {type(self._servicer).__name__} does not serve",
                    hint=f"It serves {', '.join(collector.methods)}.",
                )
        return collector.methods


class _Hosted:
    """The methods of a servicer on one registrar, and what stands before them."""

    def __init__(
        self,
        methods: dict[str, _Method],
        codecs: dict[str, CodecChoice],
        interceptors: Sequence[Any],
    ) -> None:
        self._methods = methods
        self._codecs = codecs
        self._limiter = trio.CapacityLimiter(limits.SERVICER_THREADS)
        self._pipeline = Pipeline(interceptors, self._lookup, self._limiter)

    async def serve(self, name: str, call: ServerCall) -> None:
        """Serve one call, by the handler that the interceptors leave it."""
        details = HandlerCallDetails(name, invocation_metadata(call))
        method = await self._pipeline.find(details)
        if method is None:
            raise RpcError(StatusCode.UNIMPLEMENTED, f"unknown method {name}", method=name)
        behavior = getattr(method, _shape(method))
        if _is_async(behavior):
            await serve_async(call, method, behavior)
        else:
            await Worker(call, method, behavior, self._limiter).serve()

    def _lookup(self, details: HandlerCallDetails) -> _Method | None:
        method = self._methods.get(details.method)
        choice = self._codecs.get(details.method)
        if method is None or choice is None:
            return method
        return _with_codec(method, choice if isinstance(choice, Codec) else choice(details.invocation_metadata))


_SHAPES = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}


def _shape(method: _Method) -> str:
    return _SHAPES[bool(method.request_streaming), bool(method.response_streaming)]


def _with_codec(method: _Method, codec: Codec) -> _Method:
    shape = _shape(method)
    remake = getattr(grpc, f"{shape}_rpc_method_handler")
    remade: _Method = remake(getattr(method, shape), codec.decode, codec.encode)
    return remade


def _request_type(method: _Method) -> type[Message] | None:
    """Return the message class whose ``FromString`` decodes the requests, as generated code has it."""
    owner = getattr(method.request_deserializer, "__self__", None)
    return owner if isinstance(owner, type) and hasattr(owner, "DESCRIPTOR") else None


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
                method = handler.service(HandlerCallDetails(path))  # type: ignore[arg-type]  # grpcio's own is a named tuple too
                if method is not None:
                    self.methods[path] = method

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, _Method]) -> None:
        """Take the methods of a service by name."""
        for name, method in method_handlers.items():
            self.methods[f"/{service_name}/{name}"] = method


def _is_async(behavior: Any) -> bool:
    candidates = (behavior, getattr(behavior, "func", None), getattr(behavior, "__call__", None))  # noqa: B004 - looked at
    return any(inspect.iscoroutinefunction(item) or inspect.isasyncgenfunction(item) for item in candidates)

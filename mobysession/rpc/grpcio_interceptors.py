"""grpcio's server interceptors: code that sees a call before its handler is chosen, and may choose another one.

The first of the list is asked first. Each may ask the next by calling its ``continuation``, behind the last of which
stand the servicer's own methods; what an interceptor returns is what its caller gets. Plain interceptors run in a
thread, those of ``grpc.aio`` on trio. Values that they put into context variables are seen by the interceptors behind
them and by the handler.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import grpc

__all__ = ["HandlerCallDetails", "Pipeline"]


class HandlerCallDetails(NamedTuple):
    """A ``grpc.HandlerCallDetails``: what is known of a call before it has a handler."""

    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...] = ()


class Pipeline:
    """The interceptors of one servicer, before its methods.

    Args:
        interceptors: of ``grpc.ServerInterceptor`` or of ``grpc.aio.ServerInterceptor``, in the order in which they are
            asked; may be empty.
        lookup: what stands behind the last one; None from it means that there is no such method.
        limiter: for the threads of plain interceptors.

    Raises:
        UsageError: something that is no interceptor, or both kinds in one list.
    """

    def __init__(
        self,
        interceptors: Sequence[Any],
        lookup: Callable[[HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        limiter: trio.CapacityLimiter,
    ) -> None:
        self._interceptors = tuple(interceptors)
        self._lookup = lookup
        self._limiter = limiter
        self._asynchronous = _are_async(self._interceptors)

    async def find(self, details: HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler that serves a call, as the interceptors have it; None where they have none.

        Cancel: a plain interceptor's thread is left behind.
        """
        if not self._interceptors:
            return self._lookup(details)
        if self._asynchronous:
            return await self._ask_async(0, details)
        # trio's threads have a copy of the task's variables; what is set there must come back for the handler.
        context = contextvars.copy_context()
        handler = await trio.to_thread.run_sync(
            context.run, self._ask, 0, details, abandon_on_cancel=True, limiter=self._limiter
        )
        _adopt(context)
        return handler

    def _ask(self, index: int, details: HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        if index == len(self._interceptors):
            return self._lookup(details)
        proceed = functools.partial(self._ask, index + 1)
        handler: grpc.RpcMethodHandler[Any, Any] | None = self._interceptors[index].intercept_service(proceed, details)
        return handler

    async def _ask_async(self, index: int, details: HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        if index == len(self._interceptors):
            return self._lookup(details)
        proceed = functools.partial(self._ask_async, index + 1)
        handler: grpc.RpcMethodHandler[Any, Any] | None = await self._interceptors[index].intercept_service(
            proceed, details
        )
        return handler


def _are_async(interceptors: Sequence[Any]) -> bool:
    styles = set()
    for interceptor in interceptors:
        function = getattr(interceptor, "intercept_service", None)
        if not callable(function):
            raise UsageError(
                f"{type(interceptor).__name__} is no interceptor: it has no intercept_service",
                hint="Pass objects, not classes, of grpc.ServerInterceptor or grpc.aio.ServerInterceptor.",
            )
        styles.add(inspect.iscoroutinefunction(function))
    if len(styles) > 1:
        raise UsageError(
            "plain interceptors and those of grpc.aio cannot stand in one list: a plain one cannot await the next",
            hint="Host two servicers, each with its kind; they share a session.",
        )
    return styles == {True}


def _adopt(context: contextvars.Context) -> None:
    """Set here what was set in ``context``."""
    for variable, value in context.items():
        if variable.get(_UNSET) is not value:
            variable.set(value)


_UNSET = object()

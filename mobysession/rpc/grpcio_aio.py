"""One call of an ``async def`` function of a grpcio servicer, on trio: what it awaits is trio's, not asyncio's."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import trio

from mobysession.errors import RpcError, StatusCode
from mobysession.rpc.grpcio_context import AnswerAborted, CallContext, run_callback
from mobysession.rpc.outcome import is_failure
from mobysession.rpc.registrar import receive_one

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession.rpc.server import ServerCall

__all__ = ["AioServicerContext", "serve_async"]


class AioServicerContext(CallContext, grpc.aio.ServicerContext[Any, Any]):
    """``grpc.aio.ServicerContext`` for ``async def``, on trio."""

    def __init__(self, call: ServerCall, method: grpc.RpcMethodHandler[Any, Any], cancel: Callable[[], None]) -> None:
        super().__init__(call, method)
        self._cancel = cancel
        self._done_callbacks: list[Callable[[Any], None]] = []
        self._done = False
        self._cancelled = False
        self._aborted: AnswerAborted | None = None

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with ``code``, by raising; what is not given here stays as it was set before.

        Nothing can be read or sent afterwards: a servicer that suppresses the exception meets it again.
        """
        if self._aborted is not None:
            raise grpc.aio.UsageError("the call was aborted already")
        try:
            self._abort(code, details or self._text or "", trailing_metadata)
        except AnswerAborted as aborted:
            self._aborted = aborted
            raise

    async def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with a ``grpc.Status``, by raising."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Begin the response.

        Raises:
            grpc.aio.UsageError: it has begun.
        """
        self._check_not_aborted()
        try:
            await self.begin(initial_metadata)
        except ValueError as error:
            raise grpc.aio.UsageError(str(error)) from error

    def set_compression(self, compression: Any) -> None:
        """See `CallContext.set_compression`.

        Raises:
            RuntimeError: the response has begun, and with it its encoding.
        """
        if self._begun:
            raise RuntimeError("compression is chosen before the response begins")
        super().set_compression(compression)

    async def read(self) -> Any:
        """Return the next request; ``grpc.aio.EOF`` behind the last one."""
        self._check_not_aborted()
        message = await self._call.receive()
        return grpc.aio.EOF if message is None else self.decode(message)

    async def write(self, message: Any) -> None:
        """Send one answer; waits while the peer reads too slowly."""
        self._check_not_aborted()
        await self.send(self.encode(message))

    def add_done_callback(self, callback: Any) -> None:
        """Call ``callback`` with this context when the call is over; at once when it is over already."""
        if self._done:
            callback(self)
        else:
            self._done_callbacks.append(callback)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call ``callback`` when the call is over; False when it is over already."""
        if self._done:
            return False
        self._done_callbacks.append(lambda _context: callback())
        return True

    def is_active(self) -> bool:
        """Tell whether the peer still waits."""
        return not self._done

    def done(self) -> bool:
        """Tell whether the call is over."""
        return self._done

    def cancelled(self) -> bool:
        """Tell whether the call ended before its function did."""
        return self._cancelled

    def cancel(self) -> bool:
        """End the call with CANCELLED, at the function's next wait."""
        self.cancel_requested = True
        self._cancel()
        return not self._done

    def _check_not_aborted(self) -> None:
        if self._aborted is not None:
            raise self._aborted

    def finish(self, *, cancelled: bool) -> None:
        """Take the news that the call is over and tell who asked for it."""
        self._done, self._cancelled = True, cancelled
        callbacks, self._done_callbacks = self._done_callbacks, []
        for callback in callbacks:
            run_callback(self._call.method, callback, self)


async def serve_async(call: ServerCall, method: grpc.RpcMethodHandler[Any, Any], behavior: Callable[..., Any]) -> None:
    """Run an asynchronous function of a servicer to the end of its call.

    Raises:
        Exception: the status, as `mobysession.rpc.server` understands it.

    Cancel: the function is cancelled at its next wait; then its context's callbacks run.
    """
    failure: BaseException | None = None
    finished = False
    with trio.CancelScope() as scope:
        context = AioServicerContext(call, method, scope.cancel)
        try:
            await _run_async(call, context, method, behavior)
            finished = True
        except BaseException as error:
            if not is_failure(error):
                raise
            failure, finished = error, True
        finally:
            context.finish(cancelled=not finished)
    if context.cancel_requested:
        raise RpcError(StatusCode.CANCELLED, "the servicer cancelled the call", method=call.method)
    context.conclude(failure)


async def _run_async(
    call: ServerCall, context: AioServicerContext, method: grpc.RpcMethodHandler[Any, Any], behavior: Callable[..., Any]
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

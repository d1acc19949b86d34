"""One call of a plain function: the worker thread it runs in, and what the loop does for that thread.

The thread asks the loop to wait for it (`Worker.run`): for the next request, for room to send. When the call is over,
for whatever reason, every such wait raises `CallOver` at once, and the thread gets a short time to come back. A thread
cannot be stopped from outside; one that does not come back is left behind and the call ends without it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import trio

from mobysession import limits
from mobysession.concurrency import open_nursery
from mobysession.errors import RpcError, StatusCode
from mobysession.rpc.grpcio_answers import Answers
from mobysession.rpc.grpcio_context import CallOver, run_callback
from mobysession.rpc.grpcio_plain import ServicerContext
from mobysession.rpc.registrar import receive_one

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    import grpc

    from mobysession.rpc.server import ServerCall

__all__ = ["Worker"]

_log = logging.getLogger("mobysession.rpc")

_OVER = "the call is over"


class _Job:
    """Something that the loop does for a thread, and the thread's way to wait for it."""

    def __init__(self, function: Callable[..., Any], args: tuple[object, ...]) -> None:
        self.function = function
        self.args = args
        self._outcome: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def succeed(self, value: object) -> None:
        self._outcome.put((value, None))

    def fail(self, error: BaseException) -> None:
        self._outcome.put((None, error))

    def wait(self) -> Any:
        value, error = self._outcome.get()
        if error is not None:
            raise error
        return value


class Requests:
    """The iterator over the requests of a call; several threads may share it."""

    def __init__(self, worker: Worker, call: ServerCall, decode: Callable[[bytes], Any]) -> None:
        self._worker = worker
        self._call = call
        self._decode = decode
        self._lock = threading.Lock()
        self._pending: deque[bytes] = deque()

    def __iter__(self) -> Requests:
        return self

    def __next__(self) -> Any:
        with self._lock:
            if not self._pending:
                self._pending.extend(self._worker.run(self._call.receive_batch))
            if not self._pending:
                raise StopIteration
            message = self._pending.popleft()
        return self._decode(message)

    next = __next__


class Worker:
    """The thread of one call.

    Args:
        call: the call to serve.
        method: how grpcio's generated code describes the method.
        behavior: the servicer's function.
        limiter: how many threads there may be.
    """

    def __init__(
        self,
        call: ServerCall,
        method: grpc.RpcMethodHandler[Any, Any],
        behavior: Callable[..., Any],
        limiter: trio.CapacityLimiter,
    ) -> None:
        #: False once the call is over for the servicer.
        self.alive = True
        self._call = call
        self._method = method
        self._behavior = behavior
        self._limiter = limiter
        self._context = ServicerContext(call, method, self)
        self._token = trio.lowlevel.current_trio_token()
        self._started = False
        self._failure: BaseException | None = None
        self._nursery: trio.Nursery
        self._answers = Answers(self._send_batch)
        self._patience = trio.CancelScope(shield=True)

    async def serve(self) -> None:
        """Run the function to the end of the call.

        Raises:
            Exception: the status, as `mobysession.rpc.server` understands it.

        Cancel: the context says so, its callbacks run, and the thread has `limits.SERVICER_PATIENCE` seconds to return.
        """
        request = b""
        if not self._method.request_streaming:
            request = await receive_one(self._call, bytes)
        async with open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._watch)
            if self._method.response_streaming:
                nursery.start_soon(self._answers.run)
            with self._patience:
                answer = await trio.to_thread.run_sync(
                    self._work, request, abandon_on_cancel=True, limiter=self._limiter
                )
                if answer is not None:
                    await self._send_last(answer)
            nursery.cancel_scope.cancel()
        # A call that was cancelled while its thread came back all the same is a cancelled call.
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._patience.cancelled_caught and not self._context.cancel_requested:
            raise RpcError(StatusCode.CANCELLED, _OVER, method=self._call.method)
        if self._context.cancel_requested:
            raise RpcError(StatusCode.CANCELLED, "the servicer cancelled the call", method=self._call.method)
        self._context.conclude(self._failure)

    # -- for the thread ------------------------------------------------------------------------------------------------

    def run(self, function: Callable[..., Awaitable[Any]], *args: object) -> Any:
        """Await ``function(*args)`` in the loop and return what it returns, from any other thread.

        Raises:
            CallOver: the call is over, or ended meanwhile.
        """
        return self._submit(_Job(function, args), self._begin)

    def run_sync(self, function: Callable[..., Any], *args: object) -> Any:
        """Call ``function(*args)`` in the loop; otherwise as `run`."""
        return self._submit(_Job(function, args), self._call_now)

    def cancel(self) -> bool:
        """End the call from the servicer's side; False when it is over already."""
        alive = self.alive
        try:
            self._token.run_sync_soon(self._cancel_now)
        except trio.RunFinishedError:
            return False
        return alive

    def _submit(self, job: _Job, start: Callable[[_Job], None]) -> Any:
        if not self.alive:
            raise CallOver(_OVER)
        try:
            self._token.run_sync_soon(start, job)
        except trio.RunFinishedError:
            raise CallOver(_OVER) from None
        return job.wait()

    def _work(self, request: bytes) -> bytes | None:
        self._started = True
        if not self.alive:
            return None
        context = self._context
        try:
            subject = (
                Requests(self, self._call, context.decode)
                if self._method.request_streaming
                else context.decode(request)
            )
            answer = self._behavior(subject, context)
            if self._method.response_streaming:
                self._send_each(answer)
            elif not context.failed:
                return context.encode(answer)
        except BaseException as error:
            self._failure = error
        return None

    def _send_each(self, answers: Iterable[Any]) -> None:
        try:
            for answer in answers:
                if answer is None:
                    # As in grpcio: the end of the answers.
                    break
                encoded = self._context.encode(answer)
                self._answers.put(encoded, compress=self._context.begin_answer())
        finally:
            try:
                close = getattr(answers, "close", None)
                if close is not None:
                    close()
            finally:
                # Also what was answered before a failure.
                self._answers.flush()

    # -- for the loop --------------------------------------------------------------------------------------------------

    def _begin(self, job: _Job) -> None:
        if self.alive:
            self._nursery.start_soon(self._run, job)
        else:
            job.fail(CallOver(_OVER))

    async def _run(self, job: _Job) -> None:
        try:
            job.succeed(await job.function(*job.args))
        except RpcError as error:
            # Our error says that the peer is gone; grpcio's servicers know that as a grpc.RpcError.
            over = CallOver(_OVER)
            over.__cause__ = error
            job.fail(over)
        except Exception as error:
            job.fail(error)
        except BaseException:
            job.fail(CallOver(_OVER))
            raise

    def _call_now(self, job: _Job) -> None:
        try:
            job.succeed(job.function(*job.args))
        except Exception as error:
            job.fail(error)

    def _cancel_now(self) -> None:
        if self.alive:
            self._nursery.cancel_scope.cancel()

    async def _send_last(self, answer: bytes) -> None:
        self._patience.shield = False
        await self._context.send(answer)

    async def _send_batch(self, answers: Sequence[bytes], compress: bool) -> None:
        await self._call.send_batch(answers, compress=compress)

    async def _watch(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.alive = False
            if self._started:
                self._patience.deadline = trio.current_time() + limits.SERVICER_PATIENCE
            else:
                self._patience.cancel()
            await self._run_callbacks()

    async def _run_callbacks(self) -> None:
        callbacks = self._context.take_callbacks()
        if not callbacks:
            return
        with trio.move_on_after(limits.SERVICER_PATIENCE, shield=True):
            # A limiter of its own: the others' threads may be waiting for just these callbacks.
            await trio.to_thread.run_sync(
                self._run_each, callbacks, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
            )

    def _run_each(self, callbacks: list[Callable[[], None]]) -> None:
        for callback in callbacks:
            run_callback(self._call.method, callback)

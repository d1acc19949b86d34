"""The tasks that read a connection and run its calls, in turns.

A task of its own for every call would be started, and the reader resumed, for each of them: turns of the event loop
that cost more than a small call itself. So a task that has read calls runs them on the spot, one after the other, and
then reads again, as long as none of their handlers waits for anything. The moment that one does, another task takes
over what the first leaves undone, the calls that came in the same read and the reading, so that a handler that waits
stops nobody but itself. There are never more tasks than calls that wait, plus a few that rest.
"""

from __future__ import annotations

import types
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import trio

from mobysession.rpc.outcome import Abandoned, is_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from mobysession.rpc.registrar import Method
    from mobysession.rpc.server import Server, ServerCall

__all__ = ["Workers"]

#: Tasks that stay when there is nothing for them to do.
_RESTING = 8
#: Tasks that are asked at once to take over; each asks for more if there is more than it can do.
_RELIEF = 8
#: Calls that one task runs in a row before the event loop gets its turn.
_SHARED_TURN = 32


class Workers:
    """The tasks of one server, all in ``nursery``."""

    def __init__(self, server: Server, nursery: trio.Nursery) -> None:
        self.server = server
        #: Calls that were read and have not begun.
        self.waiting: deque[tuple[ServerCall, Method]] = deque()
        #: Where tasks rest that have nothing to do.
        self.resting = trio.lowlevel.ParkingLot()
        #: Tasks that were asked to take over and have not run since.
        self.coming = 0
        #: The tasks there are. Without one, or once they are being cancelled, somebody else has to read.
        self.count = 0
        self.closed = False
        self._nursery = nursery

    @property
    def reads(self) -> bool:
        """True while the reading is the business of these tasks."""
        return self.count > 0 and not self.closed

    def take_over(self) -> None:
        """See to it that the calls that wait, and the reading, are taken care of by somebody who waits for nothing."""
        needed = min(_RELIEF, len(self.waiting) + (not self.server.reading) - self.coming)
        while needed > 0 and not self.closed:
            needed -= 1
            self.coming += 1
            if self.resting:
                self.resting.unpark()
            else:
                self.count += 1
                self._nursery.start_soon(_Worker(self).run)

    def abandon(self) -> None:
        """End the calls that will not begin any more."""
        while self.waiting:
            self.server.conclude(self.waiting.popleft()[0], abandoned=True)


class _Worker:
    """One of the tasks."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._server = workers.server
        #: What runs, or was interrupted by an exception.
        self._call: ServerCall | None = None

    async def run(self) -> None:
        """Work as long as there is something to do."""
        workers, server = self._workers, self._server
        workers.coming -= 1
        try:
            while await self._work():
                pass
        except BaseException:
            workers.closed = True
            raise
        finally:
            workers.count -= 1
            server.writer.release()
            if self._call is not None:
                server.conclude(self._call, abandoned=True)
            server.look_after_reading()

    async def _work(self) -> bool:
        """Work within one cancel scope; False when nothing is left to do, True when another scope is needed."""
        failure: BaseException | None = None
        # Entered once for many calls. What cancels one of them uses it up.
        scope = trio.CancelScope()
        try:
            with scope:
                if not await self._serve_and_read(scope):
                    return False
        except BaseException as error:
            # Out here, because the scope takes the cancellations out of a group and lets the rest pass.
            if self._call is None or not is_failure(error):
                raise
            failure = error
        if self._call is not None:
            call, self._call = self._call, None
            self._server.conclude(call, failure, cancelled=scope.cancelled_caught)
        return True

    async def _serve_and_read(self, scope: trio.CancelScope) -> bool:
        """Return False to end, True when ``scope`` cannot serve another call."""
        server, workers = self._server, self._workers
        while True:
            if not await self._serve(scope):
                return True
            if workers.waiting:
                await trio.lowlevel.checkpoint()
            elif not server.reading and not server.read_over:
                await server.read_in_turn()
            elif len(workers.resting) < _RESTING and not server.read_over:
                await workers.resting.park()
                workers.coming -= 1
            else:
                return False

    async def _serve(self, scope: trio.CancelScope) -> bool:
        """Run the calls that wait, as many as one turn has, and send what there is; False when ``scope`` is used up."""
        server, workers = self._server, self._workers
        waiting = workers.waiting
        server.writer.hold()
        for _ in range(_SHARED_TURN):
            if not waiting:
                break
            call, method = waiting.popleft()
            if call.failure is not None:
                server.conclude(call, cancelled=True)
                continue
            self._call = call
            call.begin(scope)
            await _run(method.handler(call), self._blocked)
            # Nothing is awaited from here on: a cancellation that came in the last moment is for nobody.
            self._call = None
            server.conclude(call)
            if scope.cancel_called:
                return False
        server.writer.send_now()
        server.writer.release()
        return True

    def _blocked(self) -> None:
        """Leave everything but the call to others: its handler waits for something."""
        self._server.writer.release()
        self._workers.take_over()


@types.coroutine
def _run(handler: Awaitable[None], blocked: Callable[[], None]) -> Generator[Any, Any, None]:
    """Run ``handler`` to its end within the task, in a context of its own; call ``blocked`` when it first waits."""
    step = copy_context().run
    coroutine: Any = handler if isinstance(handler, types.CoroutineType) else _awaiting(handler)
    try:
        asked = step(coroutine.send, None)
        blocked()
        while True:
            try:
                answer = yield asked
            except GeneratorExit:
                with suppress(Exception):
                    step(coroutine.close)
                # Not the handler's own: whoever takes this for the end of a call would go on in a loop that is gone.
                raise Abandoned from None
            except BaseException as error:  # whatever it is, it is the handler's
                asked = step(coroutine.throw, error)
            else:
                asked = step(coroutine.send, answer)
    except StopIteration:
        return


async def _awaiting(awaitable: Awaitable[None]) -> None:
    await awaitable

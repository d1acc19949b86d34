"""The thread in which trio runs for asyncio code, and the way there and back."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from mobysession.concurrency import CALLERS_LOOP
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = ["Worker", "on_trio", "refuse_elsewhere", "wait_for", "working"]

T = TypeVar("T")

_lock = threading.Lock()
_current: Worker | None = None


async def on_trio(other: str, function: Callable[[], Awaitable[T]]) -> T:
    """Run ``function`` on trio; ``other`` is what trio code calls instead."""
    refuse_elsewhere(other)
    with working() as worker:
        return await worker.run(function)


def refuse_elsewhere(other: str) -> None:
    """Refuse a call from a trio task, which has a way of its own; asyncio itself refuses one from outside of a loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError(
            "mobysession.aio is used inside a running asyncio loop", hint=f"Use {other} in trio."
        ) from None


@contextmanager
def working() -> Iterator[Worker]:
    """Give the worker, which is started for the first who needs it and stopped after the last."""
    global _current
    with _lock:
        if _current is None:
            _current = Worker()
        worker = _current
        worker.users += 1
    try:
        yield worker
    finally:
        with _lock:
            worker.users -= 1
            last = worker.users == 0
            if last:
                _current = None
        if last:
            worker.stop()


class Worker:
    """A thread that runs trio until it is told to stop. All its methods are called from other threads."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._stop = trio.Event()
        self.token: trio.lowlevel.TrioToken
        self.users = 0
        # Its own context, for it outlives the task that happened to start it.
        context = contextvars.Context()
        self._thread = threading.Thread(
            target=context.run, args=(trio.run, self._live), name="mobysession aio", daemon=True
        )
        self._thread.start()
        self._started.wait()

    async def _live(self) -> None:
        self.token = trio.lowlevel.current_trio_token()
        self._started.set()
        await self._stop.wait()

    def stop(self) -> None:
        """Let the thread end, and wait for it; nothing runs in it any more."""
        self.token.run_sync_soon(self._stop.set)
        self._thread.join()

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run ``function`` on trio, in the context of this task, and return what it returns.

        Cancel: ``function`` is cancelled, and has ended when CancelledError is raised.
        """
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        scope = trio.CancelScope()
        context = contextvars.copy_context()
        context.run(CALLERS_LOOP.set, partial(_in_loop, loop))

        async def task() -> None:
            settle: Callable[[], object] = ended.cancel
            try:
                with scope:
                    settle = partial(ended.set_result, await function())
            except BaseException as error:
                settle = partial(ended.set_exception, error)
            with suppress(RuntimeError):  # a loop that was closed meanwhile waits for nothing
                loop.call_soon_threadsafe(settle)

        def start() -> None:
            trio.lowlevel.spawn_system_task(task, name=function, context=context)

        self.token.run_sync_soon(start)
        return await wait_for(ended, partial(self.token.run_sync_soon, scope.cancel))


async def wait_for(ended: asyncio.Future[T], cancel: Callable[[], object]) -> T:
    """Wait until ``ended``, also when this task is cancelled: then ``cancel`` is called first."""
    cancelled: asyncio.CancelledError | None = None
    while not ended.done():
        try:
            await asyncio.wait((ended,))
        except asyncio.CancelledError as error:
            cancelled = error
            cancel()
    if cancelled is not None:
        # Taken out, lest asyncio calls it an exception that nobody retrieved.
        if not ended.cancelled():
            ended.exception()
        raise cancelled
    return ended.result()


async def _in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], Awaitable[Any]]) -> Any:
    """Run ``function`` in ``loop``, from trio.

    Cancel: the task of ``function`` is cancelled, and has ended when Cancelled is raised.
    """
    token = trio.lowlevel.current_trio_token()
    done = trio.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def run() -> Any:
        return await function()

    def start() -> None:
        task = loop.create_task(run())
        tasks.append(task)
        task.add_done_callback(lambda _: token.run_sync_soon(done.set))

    loop.call_soon_threadsafe(start)
    try:
        await done.wait()
    except trio.Cancelled:
        loop.call_soon_threadsafe(lambda: tasks[0].cancel())
        with trio.CancelScope(shield=True):
            await done.wait()
        if not tasks[0].cancelled():
            tasks[0].exception()
        raise
    try:
        return tasks[0].result()
    except asyncio.CancelledError:
        # Not to be let into trio, which knows no such thing.
        raise RuntimeError("the function was cancelled in its own loop") from None

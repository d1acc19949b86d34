"""The front door for asyncio code: the same names and options, awaited in a loop of asyncio's.

What is called runs on trio in one worker thread, which lives as long as there is something for it to do and is shared
by all who call meanwhile. Three things are carried across, in both directions where they can go in both:

- Cancellation: a task that is cancelled cancels the build on the engine, and is told once that is done.
- Context variables: a callback sees those of the task that called.
- Functions of the caller's: an ``async def`` that provides a secret, credentials or a decision is run in the caller's
  own loop, where it may await what belongs there; a plain function runs in a thread, as it does elsewhere.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import trio

from mobysession.build.build import build as _build
from mobysession.concurrency import CALLERS_LOOP
from mobysession.errors import RpcError, SessionError, SessionLost, UsageError
from mobysession.rpc.keepalive import SESSION_KEEPALIVE
from mobysession.session.session import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from mobysession.build.nodes import Nodes
    from mobysession.build.options import BuildOptions
    from mobysession.build.result import BuildResult
    from mobysession.buildkit.status import BuildStatus
    from mobysession.filesync.sources import SourceLike
    from mobysession.llb import Definition, State
    from mobysession.progress.view import View
    from mobysession.rpc.inspection import Inspection
    from mobysession.rpc.keepalive import Keepalive
    from mobysession.rpc.registrar import Attachable
    from mobysession.session.access import Access
    from mobysession.session.attach import Dialer
    from mobysession.session.managed.config import SessionConfig
    from mobysession.session.managed.runs import Request
    from mobysession.session.tracing import Tracing
    from mobysession.transport.endpoint import Endpoint

__all__ = [
    "AsyncioBuild",
    "AsyncioSession",
    "bake",
    "build",
    "build_many",
    "build_on",
    "open_build",
    "open_session",
    "run_once",
]

T = TypeVar("T")

_lock = threading.Lock()
_current: _Worker | None = None


async def build(
    context: SourceLike | State | Definition = ".",
    *,
    endpoint: Endpoint | None = None,
    progress: str | View | None = None,
    on_status: Callable[[BuildStatus], None] | None = None,
    **options: Any,
) -> BuildResult:
    """Build an image; see `mobysession.build.build`, whose arguments, result and errors are the same.

    ``on_status`` is called in the worker thread, where the status model lives: what the loop is to see of it, it hands
    on with ``loop.call_soon_threadsafe``.

    Cancel: the build is cancelled on the engine before CancelledError is raised.
    """

    async def run() -> BuildResult:
        return await _build(context, endpoint=endpoint, progress=progress, on_status=on_status, **options)

    _refuse_elsewhere("mobysession.build.build(...)")
    with _working() as worker:
        return await worker.run(run)


async def build_many(builds: Sequence[BuildOptions | Mapping[str, Any]], **options: Any) -> list[Any]:
    """Build several images; see `mobysession.build.many.build_many`, whose arguments, results and errors are the same.

    Cancel: all builds are cancelled on the engine before CancelledError is raised.
    """
    from mobysession.build.many import build_many as _build_many

    _refuse_elsewhere("mobysession.build.build_many(...)")
    with _working() as worker:
        return await worker.run(partial(_build_many, builds, **options))


async def build_on(nodes: Nodes, context: SourceLike | State | Definition = ".", **options: Any) -> BuildResult:
    """Build on several engines; see `mobysession.build.nodes.build_on`: arguments, result and errors are the same.

    Cancel: the builds on all of them are cancelled before CancelledError is raised.
    """
    from mobysession.build.nodes import build_on as _build_on

    _refuse_elsewhere("mobysession.build.build_on(...)")
    with _working() as worker:
        return await worker.run(partial(_build_on, nodes, context, **options))


async def bake(targets: str | Sequence[str] = (), **options: Any) -> dict[str, BuildResult]:
    """Build the targets of bake files; see `mobysession.bake.bake`, whose arguments, result and errors are the same.

    ``on_status`` and cancellation are as with `build`.
    """
    from mobysession.bake.bake import bake as _bake

    _refuse_elsewhere("mobysession.bake.bake(...)")
    with _working() as worker:
        return await worker.run(partial(_bake, targets, **options))


async def run_once(
    request: Request,
    services: Iterable[Attachable] | None = None,
    *,
    config: SessionConfig | None = None,
    **options: Any,
) -> Any:
    """Run one request in a managed session of its own, and return its result; see `SessionManager.run_once`.

    Args:
        request: a build, see `mobysession.build.as_request`, or an async function of the session, which runs on trio.
        services, options: as for `mobysession.SessionManager.create`.
        config: the defaults; None: what the environment says, see `mobysession.SessionConfig.from_env`.

    Errors are those of the request and of the session. Cancel: as with `build`.
    """
    _refuse_elsewhere("mobysession.SessionManager.run_once(...)")
    from mobysession.session.managed.config import SessionConfig as Config
    from mobysession.session.managed.manager import SessionManager

    manager = SessionManager(config if config is not None else Config.from_env())

    async def run() -> Any:
        return await manager.run_once(request, services, **options)

    with _working() as worker:
        return await worker.run(run)


class AsyncioBuild:
    """A build that runs, seen from asyncio: something to iterate over. Made by `open_build`; for one task at a time."""

    def __init__(self, worker: _Worker) -> None:
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._status: BuildStatus | None = None
        #: Set by the worker thread where there is news, taken back by this loop.
        self._has_news = False
        self._told_failure = False
        self._task: asyncio.Task[BuildResult] | None = None

    def __aiter__(self) -> AsyncIterator[BuildStatus]:
        return self

    async def __anext__(self) -> BuildStatus:
        """Wait for news and return the status, a copy at each turn; errors as of `build`."""
        task = self._started()
        while not self._has_news:
            if task.done():
                await self.wait()
                raise StopAsyncIteration
            await self._wake.wait()
            self._wake.clear()
        self._has_news = False
        return await self._worker.run(self._copy)

    async def wait(self) -> BuildResult:
        """Wait for the end and return the result; errors as of `build`. Cancel: the build goes on."""
        await asyncio.wait((self._started(),))
        self._told_failure = True
        return self._started().result()

    def _start(self, build: Callable[[Callable[[BuildStatus], None]], Awaitable[BuildResult]]) -> None:
        self._task = self._loop.create_task(self._worker.run(partial(build, self._tell)))
        self._task.add_done_callback(lambda _: self._wake.set())

    def _started(self) -> asyncio.Task[BuildResult]:
        assert self._task is not None  # it was started where it was made
        return self._task

    async def _leave(self) -> None:
        """Wait for the end; raise a failure that nobody was told of. Cancel: the build is cancelled first."""
        task = self._started()
        try:
            await _wait(task, task.cancel)
        except Exception:
            if not self._told_failure:
                raise

    async def _cancel(self) -> None:
        task = self._started()
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await _wait(task, task.cancel)

    def _tell(self, status: BuildStatus) -> None:
        """Take the news, in the worker thread."""
        self._status = status
        if not self._has_news:
            self._has_news = True
            with suppress(RuntimeError):  # a loop that was closed meanwhile waits for nothing
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _copy(self) -> BuildStatus:
        assert self._status is not None  # that was the news
        return self._status.snapshot()


@asynccontextmanager
async def open_build(
    context: SourceLike | State | Definition = ".",
    *,
    endpoint: Endpoint | None = None,
    progress: str | View | None = None,
    **options: Any,
) -> AsyncIterator[AsyncioBuild]:
    """Build while the ``async with`` block runs; see `mobysession.build.open_build`.

    Cancel: the build is cancelled on the engine before CancelledError is raised.
    """
    _refuse_elsewhere("mobysession.build.open_build(...)")
    from mobysession.build.build import build_with, make_options

    made = make_options(context, options)

    async def run(tell: Callable[[BuildStatus], None]) -> BuildResult:
        return await build_with(made, endpoint=endpoint, progress=progress, on_status=tell)

    with _working() as worker:
        running = AsyncioBuild(worker)
        running._start(run)
        try:
            yield running
        except BaseException:
            await running._cancel()
            raise
        await running._leave()


class AsyncioSession:
    """An attached session, seen from asyncio. Made by `open_session`."""

    def __init__(self, session: Session, worker: _Worker) -> None:
        self._session = session
        self._worker = worker

    @property
    def id(self) -> str:
        """The session's ID, to be named in a build request."""
        return self._session.id

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that are hosted, as they are advertised."""
        return self._session.methods

    @property
    def settings(self) -> dict[str, int]:
        """The daemon's HTTP/2 settings by name."""
        return self._session.settings

    async def ping(self) -> float:
        """Return the round trip to the daemon in seconds.

        Raises:
            SessionLost: the session has ended.
        """
        return await self._ask(self._session.ping)

    async def inspect(self) -> Inspection:
        """Return how the session's connection is; see `mobysession.session.Session.inspect`.

        Raises:
            SessionLost: the session has ended.
        """

        async def inspect() -> Inspection:
            return self._session.inspect()

        return await self._ask(inspect)

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._worker.run(question)
        except (trio.RunFinishedError, RpcError, SessionError) as error:
            raise SessionLost(f"session {self.id} has ended") from error


@asynccontextmanager
async def open_session(
    target: Endpoint | Dialer | None = None,
    *services: Attachable,
    attach: str = "auto",
    session_id: str | None = None,
    name: str = "",
    shared_key: str = "",
    keepalive: Keepalive | None = SESSION_KEEPALIVE,
    access: Access | None = None,
    tracing: Tracing | Literal[False] | None = None,
) -> AsyncIterator[AsyncioSession]:
    """Open a session for the length of the ``async with`` block; arguments and errors as `mobysession.open_session`.

    Where the session is lost, the block is cancelled and SessionLost raised in its place.

    Cancel: callbacks that run are cancelled, and the connection is closed.
    """
    _refuse_elsewhere("mobysession.open_session(...)")
    session = Session(
        target,
        attach=attach,
        session_id=session_id,
        name=name,
        shared_key=shared_key,
        keepalive=keepalive,
        access=access,
        tracing=tracing,
    )
    session.allow(*services)
    with _working() as worker:
        holder = _Holder(session, worker)
        await holder.open()
        try:
            yield AsyncioSession(session, worker)
        except BaseException as error:
            await holder.close(error)
            raise
        await holder.close(None)


class _Holder:
    """A task that holds a session open on trio while its owner, another task of the same loop, runs a block.

    It interrupts the owner when the session is lost, in the way in which ``asyncio.timeout`` does it.
    """

    def __init__(self, session: Session, worker: _Worker) -> None:
        self._session = session
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        self._end = trio.Event()
        owner = asyncio.current_task()
        assert owner is not None  # a coroutine that awaits is in a task
        self._owner = owner
        self._cancelling = owner.cancelling()
        self._open = True
        self._interrupted = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Return once the session is attached; raise why it is not."""
        self._task = self._loop.create_task(self._worker.run(self._hold))
        self._task.add_done_callback(self._ended)
        try:
            await self._ready
        except asyncio.CancelledError:
            self._open = False
            self._task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await _wait(self._task, self._task.cancel)
            raise

    async def _hold(self) -> None:
        async with self._session.attach():
            self._loop.call_soon_threadsafe(self._set_ready)
            await self._end.wait()

    def _set_ready(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if not self._ready.done():
            self._ready.set_exception(error or SessionLost(f"session {self._session.id} was cancelled"))
        elif error is not None and self._open:
            self._interrupted = True
            self._owner.cancel()

    async def close(self, error: BaseException | None) -> None:
        """End the session after a block that ended with ``error``.

        What the session was lost with is raised where the block ended well, or was only interrupted for it.
        """
        assert self._task is not None  # it was opened
        self._open = False
        if self._interrupted:
            by_others = self._owner.uncancel() > self._cancelling
            if not by_others and (error is None or isinstance(error, asyncio.CancelledError)):
                self._task.result()
            return
        with suppress(trio.RunFinishedError):
            self._worker.token.run_sync_soon(self._end.set)
        try:
            await _wait(self._task, self._task.cancel)
        except Exception:
            if error is None:
                raise


def _refuse_elsewhere(other: str) -> None:
    """Refuse a call from a trio task, which has a way of its own; asyncio itself refuses one from outside of a loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError(
            "mobysession.aio is used inside a running asyncio loop", hint=f"Use {other} in trio."
        ) from None


@contextmanager
def _working() -> Iterator[_Worker]:
    """Give the worker, which is started for the first who needs it and stopped after the last."""
    global _current
    with _lock:
        if _current is None:
            _current = _Worker()
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


class _Worker:
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
        return await _wait(ended, partial(self.token.run_sync_soon, scope.cancel))


async def _wait(ended: asyncio.Future[T], cancel: Callable[[], object]) -> T:
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

"""Builds, awaited in a loop of asyncio's."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from mobysession.aio.worker import on_trio, refuse_elsewhere, wait_for, working
from mobysession.build.build import build as _build
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
    from typing import Unpack

    from mobysession.aio.worker import Worker
    from mobysession.bake.keywords import BakeKeywords
    from mobysession.build.keywords import BuildKeywords, ManyKeywords
    from mobysession.build.many import OnStatus
    from mobysession.build.nodes import Nodes
    from mobysession.build.options import BuildOptions
    from mobysession.build.result import BuildResult
    from mobysession.buildkit.status import BuildStatus
    from mobysession.errors import MobysessionError
    from mobysession.filesync.sources import SourceLike
    from mobysession.llb import Definition, State
    from mobysession.progress.view import View
    from mobysession.rpc.registrar import Attachable
    from mobysession.session.managed.config import SessionConfig
    from mobysession.session.managed.runs import Request
    from mobysession.transport.endpoint import Endpoint

__all__ = ["AsyncioBuild", "bake", "build", "build_many", "build_on", "open_build", "run_once"]


async def build(
    context: SourceLike | State | Definition = ".",
    *,
    endpoint: Endpoint | None = None,
    progress: str | View | None = None,
    on_status: Callable[[BuildStatus], None] | None = None,
    **options: Unpack[BuildKeywords],
) -> BuildResult:
    """Build an image; see `mobysession.build.build`, whose arguments, result and errors are the same.

    ``on_status`` is called in the worker thread, where the status model lives: what the loop is to see of it, it hands
    on with ``loop.call_soon_threadsafe``.

    Cancel: the build is cancelled on the engine before CancelledError is raised.
    """
    run = partial(_build, context, endpoint=endpoint, progress=progress, on_status=on_status, **options)
    return await on_trio("mobysession.build.build(...)", run)


@overload
async def build_many(
    builds: Sequence[BuildOptions | Mapping[str, Any]],
    *,
    return_errors: Literal[False] = ...,
    **options: Unpack[ManyKeywords],
) -> list[BuildResult]: ...


@overload
async def build_many(
    builds: Sequence[BuildOptions | Mapping[str, Any]], *, return_errors: bool, **options: Unpack[ManyKeywords]
) -> list[BuildResult | MobysessionError]: ...


async def build_many(
    builds: Sequence[BuildOptions | Mapping[str, Any]], *, return_errors: bool = False, **options: Unpack[ManyKeywords]
) -> list[BuildResult] | list[BuildResult | MobysessionError]:
    """Build several images; see `mobysession.build.many.build_many`, whose arguments, results and errors are the same.

    Cancel: all builds are cancelled on the engine before CancelledError is raised.
    """
    from mobysession.build.many import build_many as _build_many

    return await on_trio(
        "mobysession.build.build_many(...)", partial(_build_many, builds, return_errors=return_errors, **options)
    )


async def build_on(
    nodes: Nodes,
    context: SourceLike | State | Definition = ".",
    *,
    progress: str | View | None = None,
    on_status: OnStatus | None = None,
    **options: Unpack[BuildKeywords],
) -> BuildResult:
    """Build on several engines; see `mobysession.build.nodes.build_on`: arguments, result and errors are the same.

    Cancel: the builds on all of them are cancelled before CancelledError is raised.
    """
    from mobysession.build.nodes import build_on as _build_on

    return await on_trio(
        "mobysession.build.build_on(...)",
        partial(_build_on, nodes, context, progress=progress, on_status=on_status, **options),
    )


async def bake(targets: str | Sequence[str] = (), **options: Unpack[BakeKeywords]) -> dict[str, BuildResult]:
    """Build the targets of bake files; see `mobysession.bake.bake`, whose arguments, result and errors are the same.

    ``on_status`` and cancellation are as with `build`.
    """
    from mobysession.bake.bake import bake as _bake

    return await on_trio("mobysession.bake.bake(...)", partial(_bake, targets, **options))


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

    async def run() -> Any:
        from mobysession.session.managed.config import SessionConfig as Config
        from mobysession.session.managed.manager import SessionManager

        manager = SessionManager(config if config is not None else Config.from_env())
        return await manager.run_once(request, services, **options)

    return await on_trio("mobysession.SessionManager.run_once(...)", run)


class AsyncioBuild:
    """A build that runs, seen from asyncio: something to iterate over. Made by `open_build`; for one task at a time."""

    def __init__(self, worker: Worker) -> None:
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
                if not task.cancelled():
                    await self.wait()
                raise StopAsyncIteration
            await self._wake.wait()
            self._wake.clear()
        self._has_news = False
        # Once the build has ended nobody changes it any more, and the worker may have gone.
        return await (self._copy() if task.done() else self._worker.run(self._copy))

    async def wait(self) -> BuildResult:
        """Wait for the end and return the result; errors as of `build`. Cancel: the build goes on."""
        task = self._started()
        await asyncio.wait((task,))
        if task.cancelled():
            # Its CancelledError would be taken for one of whoever waits.
            raise UsageError("the build was cancelled, and has no result")
        self._told_failure = True
        return task.result()

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
            await wait_for(task, task.cancel)
        except Exception:
            if not self._told_failure:
                raise

    async def _cancel(self) -> None:
        task = self._started()
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await wait_for(task, task.cancel)

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
    **options: Unpack[BuildKeywords],
) -> AsyncIterator[AsyncioBuild]:
    """Build while the ``async with`` block runs; see `mobysession.build.open_build`.

    Cancel: the build is cancelled on the engine before CancelledError is raised.
    """
    refuse_elsewhere("mobysession.build.open_build(...)")
    from mobysession.build.build import build_with, make_options

    made = make_options(context, options)

    async def run(tell: Callable[[BuildStatus], None]) -> BuildResult:
        return await build_with(made, endpoint=endpoint, progress=progress, on_status=tell)

    with working() as worker:
        running = AsyncioBuild(worker)
        running._start(run)
        try:
            yield running
        except BaseException:
            await running._cancel()
            raise
        await running._leave()

"""A build that runs beside the code that watches it.

::

    async with open_build(".", tags=["demo"]) as running:
        async for status in running:
            print(status.totals)
    print((await running.wait()).image_id)

Whoever watches slowly misses moments and no facts: each turn gives the status as it is by then. The build goes on at
the engine's pace.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from mobysession.build.build import build_with, make_options
from mobysession.concurrency import open_nursery
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Unpack

    from mobysession.build.keywords import BuildKeywords
    from mobysession.build.options import BuildOptions
    from mobysession.build.result import BuildResult
    from mobysession.buildkit.status import BuildStatus
    from mobysession.filesync.sources import SourceLike
    from mobysession.llb import Definition, State
    from mobysession.progress.view import View
    from mobysession.transport.endpoint import Endpoint

__all__ = ["RunningBuild", "open_build"]


class RunningBuild:
    """A build that runs, as something to iterate over. Made by `open_build`; for one task at a time."""

    def __init__(self) -> None:
        self._status: BuildStatus | None = None
        #: How often there was news, and how much of that was given out.
        self._news = self._given = 0
        self._wake = trio.Event()
        self._ended = trio.Event()
        self._result: BuildResult | None = None
        self._failure: Exception | None = None
        self._told_failure = False

    def __aiter__(self) -> AsyncIterator[BuildStatus]:
        return self

    async def __anext__(self) -> BuildStatus:
        """Wait for news and return the status, which is the same object at each turn and goes on changing.

        Raises:
            StopAsyncIteration: the build is done.
            MobysessionError: it failed; as `mobysession.build.build`.
        """
        await trio.lowlevel.checkpoint()
        while self._given == self._news and not self._ended.is_set():
            await self._wake.wait()
        status = self._given_out()
        if status is None:
            raise StopAsyncIteration
        return status

    async def wait(self) -> BuildResult:
        """Wait for the end and return the result; errors as `mobysession.build.build`. Cancel: the build goes on."""
        await self._ended.wait()
        return self._settled()

    async def _next_copy(self) -> BuildStatus | None:
        """Return what `__anext__` does, as it is now and for another thread; None at the end."""
        try:
            return (await self.__anext__()).snapshot()
        except StopAsyncIteration:
            return None

    def _last_copy(self) -> BuildStatus | None:
        """Return what `_next_copy` does, where the build has ended and with it the loop."""
        status = self._given_out()
        return status.snapshot() if status is not None else None

    def _given_out(self) -> BuildStatus | None:
        """Return the news; without any raise what the build failed with, or return None."""
        if self._given == self._news:
            self._raise_failure()
            return None
        self._given = self._news
        return self._status

    async def _leave(self) -> None:
        """Wait for the end; raise a failure that nobody was told of."""
        await self._ended.wait()
        if not self._told_failure:
            self._raise_failure()

    def _settled(self) -> BuildResult:
        self._raise_failure()
        if self._result is None:
            raise UsageError("the build was cancelled, and has no result")
        return self._result

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._told_failure = True
            raise self._failure

    def _tell(self, status: BuildStatus) -> None:
        self._status = status
        self._news += 1
        self._rouse()

    def _rouse(self) -> None:
        self._wake.set()
        self._wake = trio.Event()

    async def _run(self, options: BuildOptions, endpoint: Endpoint | None, progress: str | View | None) -> None:
        try:
            self._result = await build_with(options, endpoint=endpoint, progress=progress, on_status=self._tell)
        except Exception as error:
            # For whoever watches, and not for the nursery, which would cancel them instead.
            self._failure = error
        finally:
            self._ended.set()
            self._rouse()


@asynccontextmanager
async def open_build(
    context: SourceLike | State | Definition = ".",
    *,
    endpoint: Endpoint | None = None,
    progress: str | View | None = None,
    **options: Unpack[BuildKeywords],
) -> AsyncIterator[RunningBuild]:
    """Build while the block runs; arguments as of `mobysession.build.build`.

    The end of the block waits for the build. What it failed with is raised by the iteration or by ``wait``, or else
    there. An exception that leaves the block cancels the build on the engine.

    Raises:
        UsageError: the options make no sense.

    Cancel: the engine cancels the build; nothing of it runs on.
    """
    made = make_options(context, options)
    running = RunningBuild()
    async with open_nursery() as nursery:
        nursery.start_soon(running._run, made, endpoint, progress)
        yield running
        await running._leave()

"""Builds that are watched while they run, at each of the three front doors."""

from __future__ import annotations

import asyncio
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession import aio, sync
from mobysession.build import open_build
from mobysession.errors import BuildFailed, UsageError
from mobysession.testing import BlockingFakeDaemon, FakeDaemon, FakeSolve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mobysession.buildkit.status import BuildStatus


class Steps:
    """A script of the daemon that tells a step and goes on when it is told to."""

    def __init__(self, *, error: str = "") -> None:
        self.error = error
        self.cancelled = threading.Event()
        self._go = threading.Event()

    def go_on(self) -> None:
        """Let the step end."""
        self._go.set()

    async def __call__(self, solve: FakeSolve) -> dict[str, str]:
        """Play the build."""
        try:
            async with solve.vertex("[1/2] RUN one"):
                await trio.to_thread.run_sync(self._go.wait, abandon_on_cancel=True)
            async with solve.vertex("[2/2] RUN two") as step:
                if self.error:
                    solve.fail(self.error, vertex=step)
        except trio.Cancelled:
            self.cancelled.set()
            self._go.set()  # for the thread that waits for it
            raise
        return {"containerimage.digest": "sha256:" + "a" * 64}


async def test_a_build_is_watched(context: Path) -> None:
    """News comes while it runs, the iteration ends with it, and the result is there, also after the block."""
    script, seen = Steps(), []
    async with FakeDaemon.listen(script=script) as daemon:
        async with open_build(context, endpoint=daemon.endpoint, tags=["demo"]) as running:
            async for status in running:
                seen.append([step.name for step in status.steps])
                script.go_on()
            result = await running.wait()
        assert await running.wait() is result
    assert seen[0] == ["[1/2] RUN one"]
    assert seen[-1] == ["[1/2] RUN one", "[2/2] RUN two"]
    assert result.tags == ("demo",)


async def test_a_failure_is_raised_where_it_is_waited_for(context: Path) -> None:
    """By the iteration, by ``wait``, or at the end of the block, and not twice."""
    script = Steps(error="exit code: 1")
    script.go_on()
    async with FakeDaemon.listen(script=script) as daemon:
        async with open_build(context, endpoint=daemon.endpoint) as running:
            with pytest.raises(BuildFailed):
                async for _ in running:
                    pass
            with pytest.raises(BuildFailed):
                await running.wait()
        with pytest.raises(BuildFailed):
            async with open_build(context, endpoint=daemon.endpoint):
                pass


async def test_what_leaves_the_block_cancels_the_build(context: Path) -> None:
    """On the engine, before it is raised; there is no result then."""
    script = Steps()
    async with FakeDaemon.listen(script=script) as daemon:
        with pytest.raises(KeyError):  # noqa: PT012 - it is the block that is left
            async with open_build(context, endpoint=daemon.endpoint) as running:
                await anext(running)
                raise KeyError
        with pytest.raises(UsageError, match="cancelled"):
            await running.wait()
        await trio.to_thread.run_sync(script.cancelled.wait, 5)
    assert script.cancelled.is_set()


async def test_wrong_options_are_refused_on_entry() -> None:
    """Before anything runs."""
    slip: dict[str, Any] = {"tag": "a"}
    with pytest.raises(UsageError, match="no option 'tag'"):
        async with open_build(".", **slip):
            raise AssertionError


def test_blocking_code_watches_copies(context: Path) -> None:
    """Each turn gives a status that stays as it was; the result is there after the block too."""
    script = Steps()
    with BlockingFakeDaemon(script=script) as daemon:
        with sync.open_build(context, endpoint=daemon.endpoint, tags=["demo"]) as running:
            first = next(running)
            before = first.totals
            script.go_on()
            rest = list(running)
            assert first.totals == before
            assert rest[-1].totals.completed == 2
            assert rest[-1].vertex(rest[-1].steps[0].digest) is rest[-1].steps[0]
        assert running.wait().tags == ("demo",)
        assert list(running) == []


def gather(news: Iterator[BuildStatus]) -> list[int | str]:
    """Return how many steps were completed at each turn, and what the build ended with."""
    seen: list[int | str] = []
    try:
        for status in news:
            seen.append(status.totals.completed)  # noqa: PERF401 - a comprehension that fails keeps nothing
    except BuildFailed:
        seen.append("failed")
    return seen


@pytest.mark.parametrize(("error", "seen"), [("", [2]), ("exit code: 1", [2, "failed"])])
def test_news_after_a_blocking_block_is_the_last(context: Path, error: str, seen: list[int | str]) -> None:
    """It was not given out before; then comes what the build ended with, and no error of a loop that has ended."""
    script = Steps(error=error)
    script.go_on()
    with BlockingFakeDaemon(script=script) as daemon:
        with (
            pytest.raises(BuildFailed) if error else nullcontext(),
            sync.open_build(context, endpoint=daemon.endpoint) as running,
        ):
            pass
        assert gather(running) == seen


@pytest.mark.parametrize(("error", "seen"), [("", [2]), ("exit code: 1", [2, "failed"])])
def test_news_after_a_block_of_asyncio_is_the_last(context: Path, error: str, seen: list[int | str]) -> None:
    """As after one of blocking code."""
    script = Steps(error=error)
    script.go_on()

    async def main(**options: Any) -> list[int | str]:
        found: list[int | str] = []
        with pytest.raises(BuildFailed) if error else nullcontext():
            async with aio.open_build(context, **options) as running:
                pass
        try:
            async for status in running:
                found.append(status.totals.completed)  # noqa: PERF401 - a comprehension that fails in the middle keeps nothing
        except BuildFailed:
            found.append("failed")
        return found

    with BlockingFakeDaemon(script=script) as daemon:
        assert asyncio.run(main(endpoint=daemon.endpoint)) == seen


def test_blocking_code_is_told_of_a_failure(context: Path) -> None:
    """By the iteration, or at the end of the block."""
    script = Steps(error="exit code: 1")
    script.go_on()
    with BlockingFakeDaemon(script=script) as daemon:
        with sync.open_build(context, endpoint=daemon.endpoint) as running, pytest.raises(BuildFailed):
            list(running)
        with pytest.raises(BuildFailed):
            running.wait()
        with pytest.raises(BuildFailed), sync.open_build(context, endpoint=daemon.endpoint):
            pass


def test_what_leaves_a_blocking_block_cancels_the_build(context: Path) -> None:
    """As Ctrl-C does."""
    script = Steps()
    with BlockingFakeDaemon(script=script) as daemon:
        with (  # noqa: PT012 - it is the block that is left
            pytest.raises(KeyboardInterrupt),
            sync.open_build(context, endpoint=daemon.endpoint) as running,
        ):
            next(running)
            raise KeyboardInterrupt
        assert script.cancelled.wait(5)


def test_asyncio_watches_copies(context: Path) -> None:
    """As blocking code does, while the loop is free."""
    script, seen = Steps(), []

    async def main(**options: Any) -> None:
        async with aio.open_build(context, tags=["demo"], **options) as running:
            async for status in running:
                seen.append(status)
                script.go_on()
            result = await running.wait()
        assert (await running.wait()) is result
        assert result.tags == ("demo",)

    with BlockingFakeDaemon(script=script) as daemon:
        asyncio.run(main(endpoint=daemon.endpoint))
    assert len({id(status) for status in seen}) == len(seen) > 1
    assert seen[0].totals.completed < seen[-1].totals.completed == 2


def test_asyncio_is_told_of_a_failure(context: Path) -> None:
    """By the iteration, or at the end of the block."""
    script = Steps(error="exit code: 1")
    script.go_on()

    async def main(**options: Any) -> None:
        async with aio.open_build(context, **options) as running:
            with pytest.raises(BuildFailed):
                async for _ in running:
                    pass
        with pytest.raises(BuildFailed):
            async with aio.open_build(context, **options):
                pass

    with BlockingFakeDaemon(script=script) as daemon:
        asyncio.run(main(endpoint=daemon.endpoint))


def test_what_leaves_a_block_of_asyncio_cancels_the_build(context: Path) -> None:
    """An exception, and the cancellation of the task, wherever it waits."""

    async def main(script: Steps, **options: Any) -> None:
        async with aio.open_build(context, **options) as running:
            await anext(running)
            raise KeyError

    async def cancelled(script: Steps, **options: Any) -> None:
        async def watch() -> None:
            async with aio.open_build(context, **options) as running:
                async for _ in running:
                    begun.set()

        begun = asyncio.Event()
        task = asyncio.create_task(watch())
        await begun.wait()
        task.cancel()
        await task

    for function, error in ((main, KeyError), (cancelled, asyncio.CancelledError)):
        script = Steps()
        with BlockingFakeDaemon(script=script) as daemon:
            with pytest.raises(error):
                asyncio.run(function(script, endpoint=daemon.endpoint))
            assert script.cancelled.wait(5)


def test_a_cancelled_build_has_news_and_no_result(context: Path) -> None:
    """For blocking code and asyncio, as for trio: the iteration ends, and who waits gets an error of this package."""

    async def main(**options: Any) -> None:
        with pytest.raises(KeyError):  # noqa: PT012 - it is the block that is left
            async with aio.open_build(context, **options) as running:
                await anext(running)
                raise KeyError
        assert all(status.steps for status in [status async for status in running])
        with pytest.raises(UsageError, match="cancelled"):
            await running.wait()

    with BlockingFakeDaemon(script=Steps()) as daemon:
        asyncio.run(main(endpoint=daemon.endpoint))
        daemon.daemon.script = Steps()
        with (  # noqa: PT012 - the block of the build has to be left inside
            pytest.raises(KeyError),
            sync.open_build(context, endpoint=daemon.endpoint) as running,
        ):
            next(running)
            raise KeyError
        assert all(status.steps for status in running)
        with pytest.raises(UsageError, match="cancelled"):
            running.wait()


def test_both_watchers_have_the_same_face() -> None:
    """What is learned at one front door is right at the other."""
    faces = [
        {name for name in dir(kind) if not name.startswith("_")} for kind in (aio.AsyncioBuild, sync.BlockingBuild)
    ]
    assert faces == [{"wait"}, {"wait"}]

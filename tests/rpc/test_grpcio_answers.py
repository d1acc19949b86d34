"""The queue between a generator's thread and the loop."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession.errors import RpcError, StatusCode
from mobysession.rpc.grpcio_answers import Answers
from mobysession.rpc.grpcio_context import CallOver

if TYPE_CHECKING:
    from collections.abc import Sequence


async def test_order_and_compression() -> None:
    """Answers are sent in order, those of one kind together, and flushing waits for the last."""
    sent: list[tuple[list[bytes], bool]] = []

    async def send(answers: Sequence[bytes], compress: bool) -> None:
        await trio.lowlevel.checkpoint()
        sent.append((list(answers), compress))

    answers = Answers(send)

    def work() -> int:
        for number in range(1000):
            answers.put(b"%d" % number, compress=number % 10 < 5)
        answers.flush()
        return sum(len(batch) for batch, _ in sent)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answers.run)
        assert await trio.to_thread.run_sync(work) == 1000
        nursery.cancel_scope.cancel()
    flat = [(answer, compress) for batch, compress in sent for answer in batch]
    assert flat == [(b"%d" % number, number % 10 < 5) for number in range(1000)]


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (1, limits.SERVICER_AHEAD_MESSAGES),
        (limits.SERVICER_AHEAD // 2, 2),
        (limits.SERVICER_AHEAD + 1, 1),
    ],
)
async def test_bounds(size: int, count: int) -> None:
    """A thread may be ahead by so many answers, or bytes, and by one answer of any size; then it waits for the loop."""
    go = trio.Event()

    async def send(answers: Sequence[bytes], compress: bool) -> None:
        await go.wait()

    answers = Answers(send)
    put = functools.partial(answers.put, compress=False)
    finished = threading.Event()

    def work() -> None:
        put(bytes(size))
        finished.set()

    with trio.fail_after(20):
        for _ in range(count):
            assert not answers._is_full(size)
            await trio.to_thread.run_sync(put, bytes(size))
        assert answers._is_full(size)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, work)
            await trio.testing.wait_all_tasks_blocked()
            assert not finished.is_set()
            nursery.start_soon(answers.run)
            go.set()
            await trio.to_thread.run_sync(finished.wait)
            await trio.to_thread.run_sync(answers.flush)
            nursery.cancel_scope.cancel()


async def test_the_end_of_the_call() -> None:
    """When the call is over, or its connection fails, the thread learns of it wherever it waits, and ever after."""

    async def send(answers: Sequence[bytes], compress: bool) -> None:
        raise RpcError(StatusCode.CANCELLED, "gone")

    failing, cancelled = Answers(send), Answers(send)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing.run)
            failing.put(b"x", compress=False)
            with pytest.raises(CallOver) as caught:
                await trio.to_thread.run_sync(failing.flush)
            assert isinstance(caught.value.__cause__, RpcError)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancelled.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    with pytest.raises(CallOver):
        cancelled.put(b"x", compress=False)

"""Nurseries that raise a single cause as itself."""

# ruff: noqa: PT012 - a nursery raises where its block ends

from __future__ import annotations

import pytest
import trio
import trio.testing

from mobysession.concurrency import open_nursery, single_cause
from mobysession.errors import UsageError


async def fail(error: BaseException) -> None:
    """Raise ``error`` in a task."""
    raise error


async def test_single_failure_is_itself() -> None:
    """One failing task raises its own exception, with its cause, and no group."""
    cause = OSError("cause")
    error = ValueError("x")
    error.__cause__ = cause
    with pytest.raises(ValueError, match=r"^x$") as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(fail, error)
            await trio.sleep_forever()
    assert caught.value is error
    assert caught.value.__cause__ is cause


async def test_body_failure_is_itself() -> None:
    """What the block raises reaches its caller as it is."""
    with pytest.raises(ValueError, match="body"):
        async with open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise ValueError("body")


async def test_nested_groups() -> None:
    """Groups within groups are looked through; the others are noted on the first."""
    with pytest.raises(ValueError, match="first") as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(
                fail, ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError("first")]), OSError("second")])
            )
    assert caught.value.__notes__ == ["also failed: OSError: second"]


def test_interrupts_win() -> None:
    """A KeyboardInterrupt among failures is the one that counts."""
    interrupt = KeyboardInterrupt()
    assert single_cause(BaseExceptionGroup("", [ValueError("x"), interrupt])) is interrupt


async def test_cancellation_passes() -> None:
    """Cancellation from outside is no failure and raises nothing."""
    with trio.CancelScope() as scope:
        async with open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
    assert scope.cancelled_caught


async def test_failure_during_cancellation() -> None:
    """A failure beside cancelled tasks is raised as itself."""

    async def cleanup() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleanup")

    with pytest.raises(ValueError, match="cleanup"), trio.CancelScope() as scope:
        async with open_nursery() as nursery:
            nursery.start_soon(cleanup)
            nursery.start_soon(trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()


async def test_only_cancellations() -> None:
    """A group that holds only cancellations has no single cause."""
    held: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            held.append(BaseExceptionGroup("", [cancelled]))
            raise
    assert single_cause(held[0]) is None  # type: ignore[arg-type]  # a group, as made above


def test_our_own_errors_come_first() -> None:
    """Of several failures ours, which is written for the caller, is raised, and the stranger's is noted on it."""
    ours = UsageError("mine")
    assert single_cause(BaseExceptionGroup("", [ValueError("x"), ours])) is ours
    assert ours.__notes__ == ["also failed: ValueError: x"]

"""Nurseries whose failures reach the caller as what they are, and where the functions of a caller are awaited."""

from __future__ import annotations

from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import trio

from mobysession.errors import MobysessionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import Any

__all__ = ["ALSO_FAILED", "CALLERS_LOOP", "open_nursery", "single_cause"]

#: What the notes begin with that tell of further failures.
ALSO_FAILED: Final = "also failed: "

#: Runs an asynchronous function of the caller's where the caller awaits: set by a front door whose callers do so in
#: another loop than this one.
CALLERS_LOOP: ContextVar[Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]] = ContextVar("CALLERS_LOOP")


@asynccontextmanager
async def open_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery that raises a single cause as itself, never wrapped in an exception group.

    Of several failures one is raised and the others are noted on it: a KeyboardInterrupt or SystemExit where there is
    one, else the first of our own errors, which are written for the caller, else the first.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        cause = single_cause(group)
        if cause is None:
            raise
        # The group is only trio's wrapping; the cause keeps its own traceback and its own __cause__.
        raise cause from cause.__cause__


def single_cause(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return the failure to raise in place of ``group``; None when it holds only cancellations."""
    leaves = [leaf for leaf in _leaves(group) if not isinstance(leaf, trio.Cancelled)]
    if not leaves:
        return None
    leaves.sort(key=_rank)
    first, *rest = leaves
    for other in rest:
        first.add_note(f"{ALSO_FAILED}{type(other).__name__}: {other}")
    return first


def _rank(leaf: BaseException) -> int:
    if not isinstance(leaf, Exception):
        return 0
    return 1 if isinstance(leaf, MobysessionError) else 2


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in _leaves(inner)]

"""What an event costs with nobody, one and a hundred who listen: as functions, and as subscribers that take it."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from mobysession.session.managed.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["measure_events"]

_EVENTS = 2000


def measure_events(rounds: int) -> dict[str, float]:
    """Return microseconds for each event, the best of some rounds."""
    return trio.run(_measure, rounds)


async def _measure(rounds: int) -> dict[str, float]:
    found = {"a call of an empty function": _best(rounds, lambda: _repeat(_nothing))}
    for count in (0, 1, 100):
        feed = Feed("bench")
        for _ in range(count):
            feed.on("bench", _ignore)
        found[f"{count} listeners"] = _best(rounds, partial(_repeat, partial(feed.publish, "bench")))
    for count in (1, 100):
        found[f"{count} subscribers, taken"] = await _subscribed(rounds, count)
    return found


def _best(rounds: int, measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(rounds))


def _repeat(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(_EVENTS):
        call()
    return (time.perf_counter() - began) / _EVENTS * 1e6


async def _subscribed(rounds: int, count: int) -> float:
    feed, best = Feed("bench"), float("inf")
    subscriptions = [feed.subscribe() for _ in range(count)]
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(_EVENTS // 4):
            feed.publish("bench")
            for subscription in subscriptions:
                await anext(subscription)
        best = min(best, (time.perf_counter() - began) / (_EVENTS // 4) * 1e6)
    return best


def _nothing() -> None:
    return None


def _ignore(event: object) -> None:
    return None

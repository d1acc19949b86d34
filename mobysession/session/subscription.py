"""One who listens, bounded: whoever is too slow misses items, is told how many, and holds up nobody."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import trio

from mobysession import limits

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Subscription"]

Item = TypeVar("Item")


class Subscription(Generic[Item]):
    """An async iterator of what is put into it until it ends; leave it with ``close`` or ``async with``.

    Args:
        missed: makes the item that stands for a number of missed ones.
        capacity: items that may wait; what comes over that is missed.
        on_close: is called once, with the subscription, when it is closed by whoever iterates.
    """

    def __init__(
        self,
        missed: Callable[[int], Item],
        *,
        capacity: int = limits.EVENTS_BEHIND,
        on_close: Callable[[Subscription[Item]], None] | None = None,
    ) -> None:
        self._missed = missed
        self._capacity = capacity
        self._on_close = on_close
        self._items: deque[Item] = deque()
        self._count_missed = 0
        self._ended = False
        self._waiting = trio.lowlevel.ParkingLot()

    def put(self, item: Item) -> None:
        """Add an item; never waits."""
        if self._ended:
            return
        if len(self._items) < self._capacity:
            if self._count_missed:
                self._tell_missed()
            self._items.append(item)
            self._waiting.unpark_all()
        else:
            self._count_missed += 1

    def end(self) -> None:
        """Let the iterator end behind what waits."""
        if self._ended:
            return
        self._ended = True
        if self._count_missed:
            self._tell_missed()
        self._waiting.unpark_all()

    def finish(self, last: Item) -> None:
        """Let the iterator end with ``last``, the item that was put last, also where it was missed."""
        if self._count_missed:
            self._count_missed -= 1
            if self._count_missed:
                self._tell_missed()
            self._items.append(last)
        self.detach()

    def close(self) -> None:
        """Stop listening; what waits is dropped."""
        self.end()
        self._items.clear()
        self.detach()

    def detach(self) -> None:
        """Take no more items; what waits can still be had."""
        self.end()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close(self)

    def _tell_missed(self) -> None:
        # Where the gap is, not at the end.
        self._items.append(self._missed(self._count_missed))
        self._count_missed = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        """Return the next item. Cancel: none is lost."""
        if self._items:
            await trio.lowlevel.checkpoint()
        while not self._items:
            if self._ended:
                self.close()
                raise StopAsyncIteration
            if self._count_missed:
                self._tell_missed()
                break
            await self._waiting.park()
        if not self._items:  # closed during the checkpoint
            raise StopAsyncIteration
        return self._items.popleft()

    async def aclose(self) -> None:
        """Stop listening, as ``close``."""
        self.close()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

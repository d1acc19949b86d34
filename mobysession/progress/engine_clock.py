"""What time it is at the engine, whose clock may be another than ours."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mobysession.progress.text import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mobysession.buildkit.status import Changes

__all__ = ["EngineClock"]


class EngineClock:
    """The engine's clock, as far as it can be learned: nothing that the engine tells has yet to happen.

    Args:
        clock: ours, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ahead: int | None = None

    def learn(self, changes: Changes) -> None:
        """Take the moments of which one message told."""
        latest = max(_moments(changes), default=None)
        if latest is not None:
            ahead = latest - int(self._clock() * SECOND)
            self._ahead = ahead if self._ahead is None else max(self._ahead, ahead)

    @property
    def ahead(self) -> int:
        """How far the engine's clock is ahead of ours, in ns; 0 as long as nothing is known."""
        return self._ahead or 0

    def now(self) -> int:
        """Return ns since the epoch on the engine's clock."""
        return int(self._clock() * SECOND) + self.ahead


def _moments(changes: Changes) -> Iterator[int]:
    for vertex in changes.vertices.values():
        yield from (moment for moment in (vertex.started, vertex.completed) if moment is not None)
    for _, status in changes.statuses:
        yield status.timestamp
    for _, line in changes.logs:
        yield line.time

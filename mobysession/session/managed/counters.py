"""What the sessions of a manager did, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobysession.events import CallEnded

__all__ = ["PROCESS", "Counters", "Tally"]


@dataclass(frozen=True, kw_only=True)
class Counters:
    """The numbers at one moment.

    Attributes:
        active: sessions that were made and have not ended; children count.
        opened: that the daemon has confirmed, so far; one that was attached anew counts once.
        failed: that could not be opened or were lost, so far.
        seconds: that those which have ended lived, together.
        runs: that have ended.
        callbacks: calls of the daemon's that have ended, by method.
        bytes_received: of messages of those calls; ``bytes_sent``: of our answers.
    """

    active: int = 0
    opened: int = 0
    failed: int = 0
    seconds: float = 0.0
    runs: int = 0
    callbacks: Mapping[str, int] = field(default_factory=dict)
    bytes_received: int = 0
    bytes_sent: int = 0


class Tally:
    """Counts; one for each session, above it one for its manager, and above all the process's."""

    def __init__(self, above: Tally | None = None) -> None:
        self.active = self.opened = self.failed = self.runs = self.bytes_received = self.bytes_sent = 0
        self.seconds = 0.0
        self.callbacks: Counter[str] = Counter()
        self._above = above

    def add(self, **numbers: float) -> None:
        """Add to numbers, here and above."""
        for name, number in numbers.items():
            setattr(self, name, getattr(self, name) + number)
        if self._above is not None:
            self._above.add(**numbers)

    def call_ended(self, call: CallEnded) -> None:
        """Count a call of the daemon's."""
        self.callbacks[call.method] += 1
        self.bytes_received += call.received
        self.bytes_sent += call.sent
        if self._above is not None:
            self._above.call_ended(call)

    def counters(self) -> Counters:
        """Return the numbers."""
        return Counters(
            active=self.active,
            opened=self.opened,
            failed=self.failed,
            seconds=self.seconds,
            runs=self.runs,
            callbacks=dict(self.callbacks),
            bytes_received=self.bytes_received,
            bytes_sent=self.bytes_sent,
        )


#: What all sessions of this process did.
PROCESS: Final = Tally()

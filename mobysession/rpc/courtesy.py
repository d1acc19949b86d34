"""Bulk waits a moment where a request has just arrived: its answer may be a few turns of the loop away.

A health check that arrives while eight uploads saturate a fast connection is answered after two or three turns, and in
each of them the writer could hand a block of bulk to the socket, behind which the answer would then stand. So bulk
leaves the next turns to the handlers. It does that once for each block of its own, so that a flood of small requests
slows it down and never stops it.

Bulk that has waited may go the next time, even where a request has come meanwhile; for it may be gone when it is looked
for and be back a moment later, and must not be made to wait again for that. It loses what it has earned only when it is
gone for several looks in a row.
"""

from __future__ import annotations

from mobysession import limits

__all__ = ["Courtesy"]


class Courtesy:
    """Decides before each write of a connection whether bulk takes part in it."""

    __slots__ = ("_arrived", "_missed", "_turns", "_went")

    def __init__(self) -> None:
        #: Turns that bulk still waits.
        self._turns = 0
        #: A request came since bulk began to wait last.
        self._arrived = False
        #: Bulk went since then.
        self._went = True
        #: Looks in a row at which there was no bulk.
        self._missed = 0

    def request_arrived(self) -> None:
        """Take the news of a request, or of its end."""
        self._arrived = True

    @property
    def owed(self) -> bool:
        """True while bulk has to let turns pass."""
        return self._turns > 0 or (self._arrived and self._went)

    def bulk_may_go(self, waits: bool) -> bool:
        """Say whether bulk, if any ``waits``, takes part in the next write; where it may not, a turn has to pass."""
        if not waits:
            self.nothing_waits()
            return True
        self._missed = 0
        if self._arrived and self._went:
            self._turns = limits.ANSWER_TURNS
            self._arrived = self._went = False
        if self._turns:
            self._turns -= 1
            return False
        self._went = True
        return True

    def nothing_waits(self) -> None:
        """Take the news that there is no bulk at the moment."""
        self._missed += 1
        if self._missed > limits.ANSWER_TURNS:
            self._turns = 0
            self._went = True

"""Bulk waits a moment where a request has just arrived: its answer may be a few turns of the loop away.

A health check that arrives while eight uploads saturate a fast connection is answered after two or three turns, and in
each of them the writer could hand a block of bulk to the socket, behind which the answer would then stand. So bulk
leaves the next turns to the handlers. It does that once for each block of its own, so that a flood of small requests
slows it down and never stops it.
"""

from __future__ import annotations

from mobysession import limits

__all__ = ["Courtesy"]


class Courtesy:
    """Decides before each write of a connection whether bulk takes part in it."""

    __slots__ = ("_arrived", "_turns", "_went")

    def __init__(self) -> None:
        #: Turns that bulk still waits.
        self._turns = 0
        #: A request came since bulk began to wait last.
        self._arrived = False
        #: Bulk went since then.
        self._went = True

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
            return True
        if self._arrived and self._went:
            self._turns = limits.ANSWER_TURNS
            self._arrived = self._went = False
        if self._turns:
            self._turns -= 1
            return False
        self._went = True
        return True

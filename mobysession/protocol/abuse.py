"""What a peer may cost without getting anything done: floods of frames, and calls that it throws away.

HTTP/2 lets a peer ask for work with a few bytes: answer this PING, open this call and forget it again. Nothing of that
is forbidden, so there is no error to answer it with; there is only too much of it. Two accounts say when:

* *idle frames*: all that carries no message on. PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, what nobody knows,
  and DATA frames of next to nothing (CVE-2019-9511 to 9518).
* *early ends*: calls that the peer opened and took back before the answer began, or that broke their rules so that we
  had to reset them (CVE-2023-44487, CVE-2025-8671). Those count no longer as open, but their handlers have run.

Honest work pays both accounts down: messages that arrive, bytes that the peer lets us send, calls that come to their
end. So does time, a little, because a connection that idles for days sends its PINGs too. A connection whose account is
over its bound is ended with ENHANCE_YOUR_CALM. The clock is looked at only then, and never for the good ones.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import h2.exceptions

from mobysession import limits

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Abuse", "Account"]

_DATA = 0
#: Bytes of DATA, in either direction, that make good for one idle frame: for a peer that acknowledges each KiB.
_BYTES_PER_FRAME = 1024
#: A DATA frame with fewer bytes is tiny, and costs so much of an idle frame. A sender may cut as it likes, so some ten
#: thousand bytes may come one by one; millions may not.
_TINY = 128
_TINY_COST = 1 / 8
#: Idle frames that a message makes good for, in either direction: two WINDOW_UPDATEs, a PING, and one for luck.
_MESSAGE = 4
#: Idle frames that a whole call makes good for.
_CALL = 16


class Account:
    """How much of one kind was spent, and how much there is to spend.

    Args:
        limit: the most that may be spent at once.
        rate: what time pays back, per second.
        clock: seconds of a monotonic clock.
    """

    __slots__ = ("_clock", "_limit", "_paid_at", "_rate", "spent")

    def __init__(self, limit: float, rate: float, clock: Callable[[], float]) -> None:
        self.spent: float = 0
        self._limit = limit
        self._rate = rate
        self._clock = clock
        self._paid_at = clock()

    def earn(self, amount: float) -> None:
        """Pay back ``amount``, as far as it was spent."""
        self.spent = max(0, self.spent - amount)

    def is_over(self) -> bool:
        """Tell whether more was spent than there is, after all that time has paid back."""
        if self.spent <= self._limit:
            return False
        now = self._clock()
        self.earn((now - self._paid_at) * self._rate)
        self._paid_at = now
        return self.spent > self._limit


class Abuse:
    """The accounts of one connection."""

    __slots__ = ("_ends", "_frames", "clock")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._frames = Account(limits.MAX_IDLE_FRAMES, limits.IDLE_FRAME_RATE, clock)
        self._ends = Account(limits.MAX_EARLY_ENDS, limits.EARLY_END_RATE, clock)

    def frame(self, kind: int | None, size: int) -> None:
        """Count a frame that arrived, of type ``kind`` and with ``size`` bytes; None is a type that nobody knows.

        Raises:
            h2.exceptions.DenialOfServiceError: it is one too many; h2 says so to the peer.
        """
        account = self._frames
        if kind != _DATA:
            account.spent += 1
        elif size < _TINY:
            account.spent += _TINY_COST
        else:
            if account.spent:
                account.earn(size / _BYTES_PER_FRAME)
            return
        if account.spent > limits.MAX_IDLE_FRAMES and account.is_over():
            raise h2.exceptions.DenialOfServiceError("too many frames that carry nothing")

    def messages(self, number: int) -> None:
        """Count whole messages that arrived."""
        self._frames.earn(number * _MESSAGE)

    def sent(self, size: int, *, drained: bool) -> None:
        """Count ``size`` bytes of DATA that the peer's window let through; ``drained``: nothing more had to wait.

        What a window of single bytes lets through is no progress.
        """
        if self._frames.spent:
            self._frames.earn(size / _BYTES_PER_FRAME + (_MESSAGE if drained else 0))

    def call_ended(self) -> None:
        """Count a call that came to its end in good order."""
        self._frames.earn(_CALL)
        self._ends.earn(1)

    def call_wasted(self) -> None:
        """Count a call that ended early by the peer's doing."""
        self._ends.spent += 1

    def complaint(self) -> str | None:
        """Return what is wrong when too many calls were wasted; None while they were not."""
        if self._ends.is_over():
            return "too many calls that were reset before they were answered"
        return None

"""How grpc-go gives flow-control windows back, and how it lets them grow.

The connection's window is given back as data arrives, a stream's as its messages are read, each once a quarter of the
limit is owed. The limits themselves start at 64 KiB and follow the estimated product of bandwidth and delay: while a
probe (a PING with a payload of its own) is under way, the bytes that arrive are counted; where they nearly filled the
window, it doubles.

Source: grpc/grpc-go internal/transport/flowcontrol.go, bdp_estimator.go.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BdpEstimator", "PROBE", "Window"]

#: The payload of the PING that measures.
PROBE: Final = b"\x02\x04\x10\x10\x09\x0e\x07\x07"
_START: Final = 65_535
_LARGEST: Final = 16 * 1024 * 1024


class Window:
    """What is owed to the peer of one window."""

    def __init__(self, limit: int = _START) -> None:
        self.limit = limit
        self._owed = 0

    def take(self, size: int) -> int:
        """Count ``size`` bytes; return what to give back now, mostly 0."""
        self._owed += size
        return self.reset() if self._owed >= self.limit // 4 else 0

    def reset(self) -> int:
        """Return everything that is owed."""
        owed, self._owed = self._owed, 0
        return owed

    def grow(self, limit: int) -> int:
        """Set a new limit and return by how much it is larger."""
        grown, self.limit = limit - self.limit, limit
        return grown


class BdpEstimator:
    """The estimate, fed with sizes and times."""

    def __init__(self) -> None:
        self._bdp = _START
        self._best = 0.0
        self._rtt = 0.0
        self._samples = 0
        self._sample = 0
        self._probing = False
        self._started = 0.0

    def add(self, size: int, now: float) -> bool:
        """Count ``size`` bytes that arrived; True: send the probe."""
        if self._bdp == _LARGEST:
            return False
        if self._probing:
            self._sample += size
            return False
        self._probing = True
        self._sample = size
        self._started = now
        self._samples += 1
        return True

    def measured(self, now: float) -> int | None:
        """Take the probe's return; the new limit of all windows, where there is one."""
        rtt = max(now - self._started, 1e-6)
        self._rtt += (rtt - self._rtt) * (1 / self._samples if self._samples < 10 else 0.9)
        self._probing = False
        bandwidth = self._sample / (self._rtt * 1.5)
        self._best = max(self._best, bandwidth)
        if self._sample < 0.66 * self._bdp or bandwidth < self._best or self._bdp == _LARGEST:
            return None
        self._bdp = min(2 * self._sample, _LARGEST)
        return self._bdp

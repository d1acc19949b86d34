"""PINGs of ours that are on their way, and how long they took."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Ping", "Pings"]


class Ping:
    """One of them; ``over`` is set when it is answered, and when it never will be."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.sent_at = trio.current_time()
        self.over = trio.Event()
        #: Seconds; None while it is not answered.
        self.took: float | None = None


class Pings:
    """Those of one connection."""

    def __init__(self) -> None:
        #: Seconds that the latest one took; None where there was none.
        self.round_trip: float | None = None
        self._open: dict[bytes, Ping] = {}
        self._numbers = itertools.count()

    def begin(self) -> Ping:
        """Return a new one, to be sent now."""
        payload = next(self._numbers).to_bytes(8, "big")
        ping = self._open[payload] = Ping(payload)
        return ping

    def forget(self, ping: Ping) -> None:
        """Wait for one no longer."""
        self._open.pop(ping.payload, None)

    def answered(self, payload: bytes) -> None:
        """Take an answer; one that nobody waits for means nothing."""
        ping = self._open.get(payload)
        if ping is not None:
            self.round_trip = ping.took = trio.current_time() - ping.sent_at
            ping.over.set()

    def give_up(self) -> None:
        """Tell whoever waits that no answer will come."""
        for ping in self._open.values():
            ping.over.set()

    def asked_at(self) -> Iterator[float]:
        """Yield when each that is not answered was sent."""
        return (ping.sent_at for ping in self._open.values() if ping.took is None)

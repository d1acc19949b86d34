"""Who looks at a connection that does not go on, and tells once what it sees.

Three things hold a connection up without breaking it. The event loop stands still, because something in this program
blocks it; then nobody is served, and the daemon gives up on a health check. The other side reads nothing from the
socket. Or it reads and keeps a window shut, of one call or of the connection. Each is logged when it begins to be long,
with the queues, the windows and the last frames, and again only after it was over. What stands still is up to the other
side, so it gets one warning a look, none within `limits.STALL_QUIET` of the last, and a few bytes do not end a stall.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from mobysession import limits

if TYPE_CHECKING:
    from mobysession.rpc.connection import Connection

__all__ = ["Watchdog"]

_log = logging.getLogger("mobysession.rpc")

#: Of the running loop: when its standstill was told last. All its connections see the same one.
_told_at: trio.lowlevel.RunVar[float] = trio.lowlevel.RunVar("mobysession_lag_told_at", float("-inf"))

#: Names of what may hold up a connection as a whole; calls are named by their streams.
_SOCKET = "socket"
_CONNECTION = "connection"


class Watchdog:
    """The one that looks at ``connection``, once every `limits.WATCHDOG_INTERVAL`, while `run` runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        #: Seconds that the event loop stood still at most.
        self.worst_lag = 0.0
        #: By stream: how many bytes had left the queue when they were seen to move last, and when that was.
        self._moved: dict[int, tuple[int, float]] = {}
        #: What was told and is not over: the time since when, and the bytes that had moved when it was told.
        self._told: dict[str | int, tuple[float, int]] = {}
        #: When a stall was told last.
        self._told_at = float("-inf")

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            due = trio.current_time() + limits.WATCHDOG_INTERVAL
            await trio.sleep_until(due)
            now = trio.current_time()
            self._note_lag(now - due, now)
            self.look(now)

    def stalled(self, stream_id: int, now: float) -> float:
        """Return for how many seconds no byte of a call has left its queue, to the interval; 0 where nothing waits."""
        moved = self._moved.get(stream_id)
        return now - moved[1] if moved is not None else 0.0

    def _note_lag(self, lag: float, now: float) -> None:
        self.worst_lag = max(self.worst_lag, lag)
        if lag >= limits.LOOP_LAG and now - _told_at.get() >= limits.LOOP_LAG_QUIET:
            _told_at.set(now)
            self._tell(f"the event loop stood still for {lag:.1f} s: something in this program blocks it")

    def look(self, now: float) -> None:
        """See what does not move, and tell what is new of it; that it goes on is told when nothing told is left."""
        waiting = self._connection.core.waiting()
        found = self._held_up(waiting, now)
        over = {what: self._told.pop(what) for what in self._over(found, waiting)}
        if over and not self._told:
            names = _listed([_name(what) for what in over], ", ")
            _log.info("%s: it goes on after %.0f s", names, now - min(since for since, _ in over.values()))
        new = [what for what in found if what not in self._told]
        if new and now - self._told_at >= limits.STALL_QUIET:
            self._told_at = now
            self._told.update({what: (found[what][0], self._progress(what, waiting)) for what in new})
            self._tell(_listed([found[what][1] for what in new], "; "))

    def _over(self, found: dict[str | int, tuple[float, str]], waiting: dict[int, tuple[int, int]]) -> list[str | int]:
        """Return what was told and holds nothing up any more: nothing waits for it, or enough has moved."""
        return [
            what
            for what, (_, moved) in self._told.items()
            if what not in found
            and (not self._waits_for(what, waiting) or self._progress(what, waiting) - moved >= limits.SMALL_ANSWER)
        ]

    def _waits_for(self, what: str | int, waiting: dict[int, tuple[int, int]]) -> bool:
        if what == _SOCKET:
            return self._connection.traffic.bytes_handed > self._connection.traffic.bytes_sent
        return bool(waiting) if what == _CONNECTION else what in waiting

    def _progress(self, what: str | int, waiting: dict[int, tuple[int, int]]) -> int:
        """Return the bytes that have moved past what holds them up."""
        return waiting[what][1] if isinstance(what, int) else self._connection.traffic.bytes_sent

    def _held_up(self, waiting: dict[int, tuple[int, int]], now: float) -> dict[str | int, tuple[float, str]]:
        """Return what does not move for too long: since when, and in words."""
        traffic = self._connection.traffic
        self._follow(waiting, now)
        unsent = traffic.bytes_handed - traffic.bytes_sent
        if unsent and now - traffic.handed_at >= limits.STALL:
            words = f"the other side reads nothing: the socket took none of {unsent} bytes"
            return {_SOCKET: (traffic.handed_at, f"{words} for {now - traffic.handed_at:.0f} s")}
        found: dict[str | int, tuple[float, str]] = {}
        for stream_id, (queued, _) in waiting.items():
            since = self._moved[stream_id][1]
            if now - since >= limits.STALL:
                what, words = self._reason(stream_id)
                found.setdefault(what, (since, f"{words}: {queued} bytes wait for {now - since:.0f} s"))
        return found

    def _follow(self, waiting: dict[int, tuple[int, int]], now: float) -> None:
        self._moved = {
            stream_id: moved if (moved := self._moved.get(stream_id)) is not None and moved[0] == gone else (gone, now)
            for stream_id, (_, gone) in waiting.items()
        }

    def _reason(self, stream_id: int) -> tuple[str | int, str]:
        core = self._connection.core
        call = self._connection.calls.get(stream_id)
        name = f"{call.method if call is not None else 'a call that has ended'} (stream {stream_id})"
        if core.windows(stream_id)[0] <= 0:
            return stream_id, f"the other side keeps the window of {name} shut"
        if core.send_window <= limits.WINDOW_RESERVE:
            return _CONNECTION, "the other side keeps the window of the connection shut"
        return stream_id, f"{name} is not served, although its window is open"

    def _tell(self, text: str) -> None:
        _log.warning("%s\n%s", text, self._connection.inspect())


def _name(what: str | int) -> str:
    return f"stream {what}" if isinstance(what, int) else f"the {what}"


def _listed(texts: list[str], between: str) -> str:
    more = len(texts) - limits.STALLS_NAMED
    return between.join([*texts[: limits.STALLS_NAMED], *([f"and {more} more"] if more > 0 else [])])

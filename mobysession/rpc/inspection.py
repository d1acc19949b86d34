"""What a connection looks like from inside, at one moment: for whoever has to find out why nothing goes on.

Loaded only when somebody asks, or when the watchdog has something to tell. Nothing in it is a secret: methods, sizes,
times and the heads of frames, but neither metadata nor bodies.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.rpc.call import Call
    from mobysession.rpc.connection import Connection

__all__ = ["CallInspection", "FrameSeen", "Inspection", "inspect_connection"]

#: Frames that the text of an inspection shows; the inspection itself has all that are remembered.
_FRAMES_SHOWN = 24
#: Calls that it shows, those with the most to send first.
_CALLS_SHOWN = 16


@dataclass(frozen=True, kw_only=True)
class FrameSeen:
    """One frame, without its body.

    Attributes:
        sent: True for one of ours, which was given to the stream; False for one that was read.
        type: its name in RFC 9113 section 6.
        stream_id: 0 for the connection itself.
        length: bytes of its body.
        flags: their names.
        age: seconds ago; None where the time is forgotten.
    """

    sent: bool
    type: str
    stream_id: int
    length: int
    flags: tuple[str, ...]
    age: float | None

    def __str__(self) -> str:
        arrow = ">" if self.sent else "<"
        age = "" if self.age is None else f" {self.age:.1f} s ago"
        flags = "".join(f" {flag}" for flag in self.flags)
        return f"{arrow} {self.type} stream {self.stream_id}, {self.length} bytes{flags}{age}"


@dataclass(frozen=True, kw_only=True)
class CallInspection:
    """One open call.

    Attributes:
        stream_id: its HTTP/2 stream.
        method: "/package.Service/Method"; None where its handler is done and only its last bytes wait.
        age: seconds since it was opened; None as above.
        received: bytes of messages that were taken by the handler or the caller.
        sent: bytes of messages that it has queued so far.
        unread: bytes of messages that arrived and that nobody has taken.
        queued: bytes that wait to be sent.
        stalled: seconds for which none of them has moved.
        send_window: bytes that the other side still lets us send on it.
        receive_window: bytes that it may still send.
    """

    stream_id: int
    method: str | None
    age: float | None
    received: int
    sent: int
    unread: int
    queued: int
    stalled: float
    send_window: int
    receive_window: int

    def __str__(self) -> str:
        what = f"{self.method or 'a call that has ended'} (stream {self.stream_id})"
        age = "" if self.age is None else f", open for {self.age:.1f} s"
        queued = f"{self.queued} bytes queued" + (f", still for {self.stalled:.0f} s" if self.stalled else "")
        return f"{what}{age}: {queued}, {self.unread} unread; windows {self.send_window} out, {self.receive_window} in"


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """One connection.

    Attributes:
        client_side: True where we open the calls; on a session the daemon does.
        failure: why the connection is over; None while it is not, or when it was ended on request.
        open_for: seconds since it was opened.
        silence: seconds since anything was heard.
        round_trip: seconds that the latest PING of ours took; None where there was none.
        asked: seconds since the oldest PING of ours that is not answered; None where all are.
        loop_lag: seconds that the event loop stood still at most, as the watchdog of this connection saw it.
        bytes_received: read from the stream so far.
        bytes_sent: taken by the stream so far.
        unsent: given to the stream and not yet taken: the other side, or the way to it, is slower than we are.
        blocked: seconds for which that is so.
        queued: bytes of all calls that wait to be sent.
        unread: bytes of messages of all calls that arrived and that nobody has taken.
        send_window: bytes that the other side still lets us send on the whole connection.
        receive_window: bytes that it may still send.
        settings: the other side's HTTP/2 settings by name; empty until they arrive.
        calls: the open calls, in the order of their streams.
        frames: the latest frames of both directions, oldest first.
    """

    client_side: bool
    failure: str | None
    open_for: float
    silence: float
    round_trip: float | None
    asked: float | None
    loop_lag: float
    bytes_received: int
    bytes_sent: int
    unsent: int
    blocked: float
    queued: int
    unread: int
    send_window: int
    receive_window: int
    settings: dict[str, int]
    calls: tuple[CallInspection, ...]
    frames: tuple[FrameSeen, ...]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        trip = "not measured" if self.round_trip is None else f"{self.round_trip * 1e3:.2f} ms"
        asked = "" if self.asked is None else f", a PING unanswered for {self.asked:.1f} s"
        yield f"open for {self.open_for:.1f} s, silent for {self.silence:.1f} s, round trip {trip}{asked}"
        unsent = f", {self.unsent} more for {self.blocked:.1f} s in the socket" if self.unsent else ""
        yield f"{self.bytes_received} bytes received, {self.bytes_sent} sent{unsent}"
        yield (
            f"{self.queued} bytes queued, {self.unread} unread; windows {self.send_window} out, "
            f"{self.receive_window} in; loop lag {self.loop_lag:.1f} s at most"
        )
        if self.failure is not None:
            yield f"over: {self.failure}"
        shown = sorted(self.calls, key=lambda call: -call.queued)[:_CALLS_SHOWN]
        yield from (f"  {call}" for call in shown)
        if len(self.calls) > len(shown):
            yield f"  and {len(self.calls) - len(shown)} calls more"
        yield from (f"  {frame}" for frame in self.frames[-_FRAMES_SHOWN:])


def inspect_connection(connection: Connection) -> Inspection:
    """Return how ``connection`` is now; costs some 100 us and changes nothing."""
    now = trio.current_time()
    core, traffic, watchdog = connection.core, connection.traffic, connection.watchdog
    waiting = core.waiting()
    unsent = traffic.bytes_handed - traffic.bytes_sent
    asked_at = min(connection.pings.asked_at(), default=None)
    return Inspection(
        client_side=core.client_side,
        failure=connection.failure.message if connection.failure is not None else None,
        open_for=now - traffic.opened_at,
        silence=now - traffic.heard_at,
        round_trip=connection.round_trip,
        asked=None if asked_at is None else now - asked_at,
        loop_lag=watchdog.worst_lag,
        bytes_received=traffic.bytes_received,
        bytes_sent=traffic.bytes_sent,
        unsent=unsent,
        blocked=now - traffic.handed_at if unsent else 0.0,
        queued=sum(queued for queued, _ in waiting.values()),
        unread=core.unread,
        send_window=core.send_window,
        receive_window=core.receive_window,
        settings=dict(connection.settings),
        calls=tuple(
            _inspect_call(connection, stream_id, waiting.get(stream_id, (0, 0))[0], now)
            for stream_id in sorted(connection.calls.keys() | waiting.keys())
        ),
        frames=_frames(connection, now),
    )


def _inspect_call(connection: Connection, stream_id: int, queued: int, now: float) -> CallInspection:
    call: Call | None = connection.calls.get(stream_id)
    send_window, receive_window = connection.core.windows(stream_id)
    return CallInspection(
        stream_id=stream_id,
        method=call.method if call is not None else None,
        age=time.monotonic() - call.started if call is not None else None,
        received=call.bytes_received if call is not None else 0,
        sent=call.bytes_sent if call is not None else 0,
        unread=call.unread if call is not None else 0,
        queued=queued,
        stalled=connection.watchdog.stalled(stream_id, now),
        send_window=send_window,
        receive_window=receive_window,
    )


def _frames(connection: Connection, now: float) -> tuple[FrameSeen, ...]:
    heads = [(-1.0 if at is None else at, False, head) for at, head in connection.traffic.heard_heads()]
    heads += [(at, True, head) for at, head in connection.traffic.said_heads()]
    # Stable, so that the frames of one direction keep their order.
    heads.sort(key=lambda item: item[0])
    return tuple(
        FrameSeen(
            sent=sent,
            type=head.type,
            stream_id=head.stream_id,
            length=head.length,
            flags=head.flags,
            age=None if at < 0 else now - at,
        )
        for at, sent, head in heads
    )

"""One gRPC-over-HTTP/2 connection as a state machine on bytes: what both roles have in common.

::

    bytes of the peer --> receive_data() --> events
    send_messages(), send_trailers(), start_call(), ... --> queues --> data_to_send() --> bytes for the peer

h2 keeps the state of HTTP/2 (`mobysession.protocol.http2`); this room adds what gRPC puts on top: calls instead of
streams, messages instead of DATA, a status instead of trailers. `mobysession.protocol.server` and
`mobysession.protocol.client` are the two roles. Two rules hold in these files. Every method decides at once and waits
for nothing. And bytes that were received are acknowledged to the peer in the end, whoever took them or did not
(`mobysession.protocol.windows`), so that a dead call never starves the living ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from mobysession import limits
from mobysession.errors import LocalProtocolError, RemoteProtocolError, RpcError, StatusCode
from mobysession.protocol import events
from mobysession.protocol.framing import PREFIX_SIZE, MessageReader, encode_chunks
from mobysession.protocol.http2 import open_http2
from mobysession.protocol.outbox import Outbox
from mobysession.protocol.windows import CallWindow, ReceiveWindows

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Sequence

    from mobysession.protocol.frame_heads import Noted
    from mobysession.protocol.framing import Buffer
    from mobysession.protocol.outbox import StreamQueue

__all__ = ["CallState", "GrpcConnection"]

#: Bytes that a slice may have more than `limits.SLICE` if it is the last one of what is queued.
_CRUMB = 1 * limits.KIB


class CallState(CallWindow):
    """One stream: how far the two directions are, and what is owed to the peer's window."""

    __slots__ = (
        "accepts_gzip",
        "awaited",
        "buffered",
        "compress",
        "header_size",
        "headers_sent",
        "local_ended",
        "overdue_at",
        "reader",
        "refused",
        "status",
    )

    def __init__(self) -> None:
        super().__init__()
        self.reader = MessageReader()
        self.headers_sent = False
        self.local_ended = False
        #: Server: the peer takes gzip, and was told that it gets it.
        self.accepts_gzip = False
        self.compress = False
        #: Server: from when on a reset by the peer is that of the call's own timeout.
        self.overdue_at = float("inf")
        #: Bytes of a message that has not arrived to its end, and of the headers that the call began with.
        self.buffered = 0
        self.header_size = 0
        #: Bytes of DATA still to come, where the headers announced their number.
        self.awaited: int | None = None
        #: Server: nobody was told of it, because it is HTTP, not gRPC.
        self.refused = False
        #: The status of what is HTTP, not gRPC, and whose DATA means nothing to us.
        self.status: tuple[StatusCode, str] | None = None


class GrpcConnection(ABC):
    """The protocol state of one connection, in the role that a subclass gives it.

    Args:
        max_message: bytes of one message that is accepted, also after it was decompressed.
    """

    client_side: ClassVar[bool]

    def __init__(self, *, max_message: int = limits.MAX_MESSAGE) -> None:
        self._max_message = max_message
        self._h2 = open_http2(client_side=self.client_side)
        self._calls: dict[int, CallState] = {}
        self._outbox = Outbox()
        #: Bytes of messages, of all calls, that have not arrived to their ends.
        self._incomplete = 0
        self._windows = ReceiveWindows(self._h2)
        #: Nothing more may be sent, or nothing more can be understood.
        self._terminated = False
        #: The peer has said goodbye, without an error.
        self._leaving = False
        #: Bytes for the peer, taken from h2 so that those of its doing can be told from ours.
        self._early: list[Buffer] = []
        #: Bytes of those, and of what h2 holds, that the peer made us say since it last took something.
        self._pending_control = 0
        self._events: list[events.Event] = []
        self._handlers: dict[type[h2.events.Event], Callable[[Any], None]] = {
            h2.events.TrailersReceived: self._on_trailers,
            h2.events.DataReceived: self._on_data,
            h2.events.StreamEnded: self._on_stream_ended,
            h2.events.StreamReset: self._on_stream_reset,
            h2.events.RemoteSettingsChanged: self._on_settings,
            h2.events.PingAckReceived: self._on_ping_ack,
            h2.events.ConnectionTerminated: self._on_terminated,
            h2.events.WindowUpdated: self._on_window_updated,
        }

    # -- bytes in and out ----------------------------------------------------------------------------------------------

    def receive_data(self, data: Buffer) -> list[events.Event]:
        """Take bytes of the peer and return what they mean, in order.

        After: flush `data_to_send`; acknowledgements may be waiting there.

        Raises:
            RemoteProtocolError: the connection is broken; flush what `data_to_send` has (a GOAWAY) and close.
        """
        if self._terminated:
            return []
        self._gather()
        if self._pending_control > limits.MAX_PENDING_CONTROL:
            raise self._calm_down(
                f"{self._pending_control} bytes of answers are waiting, and the other side does not read them"
            )
        try:
            happened = self._h2.receive(bytes(data))
        except h2.exceptions.ProtocolError as error:
            self._terminate()
            raise RemoteProtocolError(
                f"the other side broke HTTP/2: {str(error) or type(error).__name__}", error_code=int(error.error_code)
            ) from error
        for event in happened:
            handler = self._handlers.get(type(event))
            if handler is not None:
                handler(event)
        if (complaint := self._h2.abuse.complaint()) is not None:
            raise self._calm_down(complaint)
        result, self._events = self._events, []
        return result

    def _calm_down(self, words: str) -> RemoteProtocolError:
        """End the connection of a peer that breaks no rule, but costs too much; return the error to raise."""
        self.close(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, words.encode())
        return RemoteProtocolError(words, error_code=int(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM))

    def data_to_send(self, *, bulk: bool = True) -> bytes:
        """Return the next bytes for the peer: control frames, then small answers, then slices of bulk streams in turn.

        Without ``bulk`` those slices wait until the next time.
        Empty when there is nothing to send, or nothing may be sent until the peer opens its window.
        """
        budget = limits.WRITE_SIZE
        # A connection that is going away has its GOAWAY and nothing else to say.
        while budget > 0 and not self._terminated:
            turn = self._outbox.next(bulk=bulk)
            if turn is None:
                break
            budget -= self._send_some(*turn)
        pieces, self._early = [*self._early, *self._h2.take()], []
        self._pending_control = 0
        return b"".join(pieces)

    def _gather(self, *, control: bool = True) -> None:
        """Take from h2 what it has for the peer; ``control`` counts it as the peer's doing."""
        if pieces := self._h2.take():
            self._early += pieces
            if control:
                self._pending_control += sum(map(len, pieces))

    def _send_some(self, queue: StreamQueue, bulk: bool) -> int:
        """Send at most a slice of one stream, and its end behind its last byte; return the bytes sent."""
        connection = self._h2
        sent = 0
        if queue.size:
            stream = connection.streams[queue.stream_id]
            window = connection.sendable(stream, limits.WINDOW_RESERVE if bulk else 0)
            # Nobody else waits for the turn of a stream that is alone.
            slice_size = limits.SLICE if self._outbox.stands else limits.WRITE_SIZE
            # A message of 64 KiB has a prefix, whose five bytes must not become a frame of their own.
            allowed = queue.size if queue.size <= slice_size + _CRUMB else slice_size
            sent = max(0, min(window, allowed))
            if sent:
                connection.send_slice(stream, queue.take_pieces(sent), sent)
            connection.abuse.sent(sent, drained=not queue.size)
            if sent < allowed:
                # Out of line until a WINDOW_UPDATE or SETTINGS brings it back.
                return sent
        if queue.size:
            self._outbox.line_up(queue)
        elif queue.ending is not None:
            self._end_stream(queue)
            connection.abuse.call_ended()
        return sent

    def _end_stream(self, queue: StreamQueue) -> None:
        stream_id = queue.stream_id
        self._outbox.drop(stream_id)
        self._calls[stream_id].local_ended = True
        if queue.ending:
            self._h2.send_fields(stream_id, queue.ending, end_stream=True)
        else:
            self._h2.end_stream(stream_id)

    # -- how it is -----------------------------------------------------------------------------------------------------

    @property
    def wants_to_send(self) -> bool:
        """True when `data_to_send` probably has something; never False when it has."""
        return bool(self._early or self._outbox.stands or self._h2.has_pieces)

    @property
    def bulk_waits(self) -> bool:
        """True while `data_to_send` has slices of bulk streams to return."""
        return self._outbox.bulk_waits

    def queued(self, stream_id: int) -> int:
        """Return the bytes of a call that wait to be sent; 0 for a call that is over."""
        queue = self._outbox.streams.get(stream_id)
        return queue.size if queue is not None else 0

    def has_room(self, stream_id: int) -> bool:
        """Tell whether a call may queue more, or has to wait until the peer has taken some.

        A call of which no more than a small answer waits always may, whatever the others have queued.
        """
        size = self.queued(stream_id)
        if size <= limits.SMALL_ANSWER:
            return True
        queues = self._outbox.streams.values()
        return size <= limits.SEND_QUEUE and sum([queue.size for queue in queues]) <= limits.MAX_QUEUED

    @property
    def has_queued(self) -> bool:
        """True while a call has messages, or its end, waiting for the peer's window or for `data_to_send`."""
        return not self._terminated and any(
            queue.size or queue.ending is not None for queue in self._outbox.streams.values()
        )

    @property
    def terminated(self) -> bool:
        """True once either side has said GOAWAY with an error, or HTTP/2 was broken."""
        return self._terminated

    @property
    def exhausted(self) -> bool:
        """True once the peer wants no new calls and all that there were have ended."""
        return self._leaving and not self._calls

    @property
    def draining(self) -> bool:
        """True once we have asked for an end of the connection that waits for the calls."""
        return False

    @property
    def drained(self) -> bool:
        """True once the peer knows of that end, and all calls that there were have ended."""
        return False

    @property
    def open_calls(self) -> int:
        """Number of calls that are not over on both sides, for whoever looks for leaks; the tests do."""
        return len(self._calls)

    @property
    def send_window(self) -> int:
        """Bytes that the peer still lets us send on the whole connection, for diagnosis; the tests look at it."""
        return self._h2.outbound_flow_control_window

    @property
    def receive_window(self) -> int:
        """Bytes that the peer may still send on the whole connection."""
        return self._h2.inbound_flow_control_window

    def windows(self, stream_id: int) -> tuple[int, int]:
        """Return the bytes that we, and that the peer, may still send on one call; 0 where it is over."""
        stream = self._h2.streams.get(stream_id)
        return (stream.outbound_flow_control_window, stream.inbound_flow_control_window) if stream else (0, 0)

    def waiting(self) -> dict[int, tuple[int, int]]:
        """Return, of each call that has bytes to send, how many wait and how many `data_to_send` has returned."""
        return {
            stream_id: (queue.size, queue.total - queue.size)
            for stream_id, queue in self._outbox.streams.items()
            if queue.size
        }

    @property
    def heads(self) -> deque[Noted]:
        """The heads of the peer's latest frames; whoever knows the time may note it between them."""
        return self._h2.heads

    @property
    def unread(self) -> int:
        """Bytes of messages, of all calls, that were reported and not yet consumed."""
        return self._windows.unread

    # -- calls ---------------------------------------------------------------------------------------------------------

    def send_messages(self, stream_id: int, messages: Sequence[Buffer], *, compress: bool = True) -> None:
        """Queue ``messages``; they must not be changed afterwards. Nothing happens on a call that is over.

        The initial metadata of a response goes out first, empty, where it was not sent. ``compress`` takes effect on
        calls with `ServerConnection.compress_answers`.
        """
        call = self._calls.get(stream_id)
        if call is None or call.refused or self._terminated:
            return
        queue = self._outbox.queue(stream_id)
        if queue.ending is not None or call.local_ended:
            raise LocalProtocolError("this side of the call has ended; no message can follow")
        if not call.headers_sent:
            self._begin_answer(stream_id, call)
        for chunk in encode_chunks(messages, compress=compress and call.compress):
            queue.append(chunk)
        if queue.size:
            self._outbox.line_up(queue)

    def consumed(self, stream_id: int, messages: Sequence[Buffer]) -> None:
        """Give the bytes of ``messages``, which were reported, back to the peer's window."""
        call = self._calls.get(stream_id)
        if call is not None:
            self._windows.release(stream_id, call, _weight(messages))

    def reset(self, stream_id: int, error_code: int = 8) -> None:
        """Cancel a call (8 is CANCEL); what is queued for it is dropped. Nothing happens on a call that is over."""
        if stream_id in self._calls:
            if not self._terminated:
                self._reset_now(stream_id, error_code)
            self._forget(stream_id)

    def ping(self, payload: bytes) -> None:
        """Send a PING with 8 bytes of ``payload``; it comes back as `PingAcknowledged`."""
        if not self._terminated:
            self._h2.ping(payload)

    def close(self, error_code: int = 0, debug_data: bytes = b"") -> None:
        """Queue a GOAWAY. Nothing is sent after it; calls that are open are cut off."""
        if not self._terminated:
            self._terminate()
            self._h2.end(error_code, debug_data)

    def _terminate(self) -> None:
        self._terminated = self._windows.closed = True

    def _reset_now(self, stream_id: int, error_code: int) -> None:
        with suppress(h2.exceptions.ProtocolError):
            self._h2.reset_stream(stream_id, error_code)

    def _forget(self, stream_id: int) -> None:
        call = self._calls.pop(stream_id)
        self._h2.forget(stream_id)
        self._outbox.drop(stream_id)
        self._incomplete -= call.buffered
        self._windows.forget(call)

    # -- what the two roles do differently -----------------------------------------------------------------------------

    @abstractmethod
    def _begin_answer(self, stream_id: int, call: CallState) -> None:
        """Send the headers that have to stand before the first message of ours."""

    @abstractmethod
    def _fail(self, stream_id: int, error: RpcError) -> None:
        """End a call whose peer sent what cannot be read."""

    @abstractmethod
    def _break_off(self, stream_id: int) -> None:
        """End a call whose DATA is not as long as its headers said, which makes it malformed (RFC 9113 8.1.1)."""

    @abstractmethod
    def _on_trailers(self, event: h2.events.TrailersReceived) -> None:
        """Take the fields that end what the peer says on a stream."""

    @abstractmethod
    def _on_stream_ended(self, event: h2.events.StreamEnded) -> None:
        """Take the end of what the peer says on a stream."""

    @abstractmethod
    def _on_goaway(self, last_stream_id: int) -> None:
        """Take the peer's goodbye, one without an error."""

    # -- h2's events ---------------------------------------------------------------------------------------------------

    def _on_data(self, event: h2.events.DataReceived) -> None:
        stream_id = event.stream_id
        size = event.flow_controlled_length or 0
        windows = self._windows
        windows.owed += size
        call = self._calls.get(stream_id)
        if call is None:
            windows.give_back_connection()
            return
        call.owed += size
        if call.awaited is not None:
            call.awaited -= len(event.data or b"")
            if call.awaited < 0:
                self._break_off(stream_id)
                return
        if call.status is None:
            try:
                messages = call.reader.receive_data(event.data or b"")
            except RpcError as error:
                self._fail(stream_id, error)
                return
            if call.reader.buffered != call.buffered and not self._keep_rest(stream_id, call):
                return
            if messages:
                self._h2.abuse.messages(len(messages))
                weight = _weight(messages)
                if call.reader.inflates and not self._may_inflate(stream_id, weight):
                    return
                windows.hold(call, weight)
                self._events.append(events.MessagesReceived(stream_id, messages))
        windows.give_back(stream_id, call)

    def _keep_rest(self, stream_id: int, call: CallState) -> bool:
        """Count what a call has of its next message; end the call, and return False, where all together is too much."""
        self._incomplete += call.reader.buffered - call.buffered
        call.buffered = call.reader.buffered
        if self._incomplete <= limits.MAX_INCOMPLETE:
            return True
        words = f"{self._incomplete} bytes of messages without their ends are too much for one connection"
        self._fail(stream_id, RpcError(StatusCode.RESOURCE_EXHAUSTED, words))
        return False

    def _may_inflate(self, stream_id: int, weight: int) -> bool:
        """Look whether ``weight`` bytes may be held that were fewer on the wire; if not, end the call.

        Windows bound what is sent, and a thousand times as much may come out of it.
        """
        unread = self._windows.unread + weight
        if unread <= limits.MAX_UNREAD:
            return True
        words = f"{unread} bytes of messages that nobody has taken are too much for one connection, inflated"
        self._fail(stream_id, RpcError(StatusCode.RESOURCE_EXHAUSTED, words))
        return False

    def _on_stream_reset(self, event: h2.events.StreamReset) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None:
            self._forget(event.stream_id)
            if not call.refused:
                self._events.append(events.CallReset(event.stream_id, int(event.error_code or 0)))

    def _on_settings(self, _event: h2.events.RemoteSettingsChanged) -> None:
        settings = self._h2.remote_settings
        # Looked up by code: h2 lists those that it has no default for by their bare numbers.
        names = {code.name: int(settings[code]) for code in h2.settings.SettingCodes if code in settings}
        self._events.append(events.SettingsReceived(names))
        # Windows may have opened: whoever waited for one gets back in line.
        self._line_up_all()

    def _on_window_updated(self, event: h2.events.WindowUpdated) -> None:
        if event.stream_id:
            queue = self._outbox.streams.get(event.stream_id)
            if queue is not None:
                self._line_up(queue)
        else:
            self._line_up_all()

    def _line_up_all(self) -> None:
        for queue in self._outbox.streams.values():
            self._line_up(queue)

    def _line_up(self, queue: StreamQueue) -> None:
        if queue.size or queue.ending is not None:
            self._outbox.line_up(queue)

    def _on_ping_ack(self, event: h2.events.PingAckReceived) -> None:
        self._events.append(events.PingAcknowledged(event.ping_data or b""))

    def _on_terminated(self, event: h2.events.ConnectionTerminated) -> None:
        error_code, last_stream_id = int(event.error_code or 0), event.last_stream_id or 0
        self._events.append(events.GoAwayReceived(error_code, last_stream_id, event.additional_data or b""))
        if error_code:
            self._terminate()
        else:
            self._leaving = True
            self._on_goaway(last_stream_id)


def _weight(messages: Sequence[Buffer]) -> int:
    return sum(map(len, messages)) + PREFIX_SIZE * len(messages)

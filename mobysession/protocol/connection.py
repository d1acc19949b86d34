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
from mobysession.errors import LocalProtocolError, RemoteProtocolError, RpcError
from mobysession.protocol import events
from mobysession.protocol.framing import encode_chunks
from mobysession.protocol.http2 import open_http2
from mobysession.protocol.inbox import Inbox, weigh
from mobysession.protocol.sender import Sender
from mobysession.protocol.windows import ReceiveWindows

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Sequence

    from mobysession.protocol.call_state import CallState
    from mobysession.protocol.frame_heads import Noted
    from mobysession.protocol.framing import Buffer
    from mobysession.protocol.outbox import StreamQueue

__all__ = ["GrpcConnection"]


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
        self._sender = Sender(self._h2, self._end_stream)
        self._outbox = self._sender.outbox
        self._windows = ReceiveWindows(self._h2)
        self._inbox = Inbox(self._windows)
        #: Nothing more may be sent, or nothing more can be understood.
        self._terminated = False
        #: The peer has said goodbye, without an error.
        self._leaving = False
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
        self._sender.gather()
        if (pending := self._sender.pending_control) > limits.MAX_PENDING_CONTROL:
            raise self._calm_down(f"{pending} bytes of answers are waiting, and the other side does not read them")
        try:
            happened = self._h2.receive(data)
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
        """Return the bytes of `pieces_to_send` in one piece."""
        return b"".join(self.pieces_to_send(bulk=bulk))

    def pieces_to_send(self, *, bulk: bool = True) -> list[Buffer]:
        """Return the next bytes for the peer: control frames, then small answers, then slices of bulk streams in turn.

        Without ``bulk`` those slices wait until the next time.
        Empty when there is nothing to send, or nothing may be sent until the peer opens its window. Each piece that is
        `bytes` begins with a frame (the first of all with the preface) and has no more than that; those between are
        views of messages.
        """
        return self._sender.pieces(bulk=bulk)

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
        return self._sender.wants_to_send

    @property
    def bulk_waits(self) -> bool:
        """True while `data_to_send` has slices of bulk streams to return."""
        return self._outbox.bulk_waits

    def queued(self, stream_id: int) -> int:
        """Return the bytes of a call that wait to be sent; 0 for a call that is over."""
        return self._sender.queued(stream_id)

    def has_room(self, stream_id: int) -> bool:
        """Tell whether a call may queue more, or has to wait until the peer has taken some.

        A call of which no more than a small answer waits always may, whatever the others have queued.
        """
        return self._sender.has_room(stream_id)

    @property
    def has_queued(self) -> bool:
        """True while a call has messages, or its end, waiting for the peer's window or for `data_to_send`."""
        return self._sender.has_queued

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
        return self._sender.waiting()

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
            self._windows.release(stream_id, call, weigh(messages))

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
        self._terminated = self._windows.closed = self._sender.closed = True

    def _reset_now(self, stream_id: int, error_code: int) -> None:
        with suppress(h2.exceptions.ProtocolError):
            self._h2.reset_stream(stream_id, error_code)

    def _forget(self, stream_id: int) -> None:
        call = self._calls.pop(stream_id)
        self._h2.forget(stream_id)
        self._outbox.drop(stream_id)
        self._inbox.forget(call)

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
            messages, error = self._inbox.read(call, event.data or b"")
            if messages:
                self._h2.abuse.messages(len(messages))
                self._events.append(events.MessagesReceived(stream_id, messages))
            if error is not None:
                self._fail(stream_id, error)
                return
        windows.give_back(stream_id, call)

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
        self._sender.window_opened(0)

    def _on_window_updated(self, event: h2.events.WindowUpdated) -> None:
        self._sender.window_opened(event.stream_id or 0)

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

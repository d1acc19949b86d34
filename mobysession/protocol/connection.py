"""One gRPC-over-HTTP/2 connection, in either role, as a state machine on bytes.

::

    bytes of the peer --> receive_data() --> events
    send_messages(), send_trailers(), start_call(), ... --> queues --> data_to_send() --> bytes for the peer

h2 keeps the state of HTTP/2; this module adds what gRPC puts on top: calls instead of streams, messages instead of
DATA, a status instead of trailers. Two rules hold in this file. Every method decides at once and waits for nothing.
And bytes that were received are acknowledged to the peer in the end, whoever took them or did not: `consumed` gives
the window back, the end of a call gives back what nobody took, so that a dead call never starves the living ones.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.frame_buffer
import h2.settings

from mobysession import limits
from mobysession._version import __version__
from mobysession.errors import LocalProtocolError, RemoteProtocolError, RpcError, StatusCode
from mobysession.protocol import events
from mobysession.protocol.framing import PREFIX_SIZE, MessageReader, encode_chunks
from mobysession.protocol.headers import content_length, encode_pseudo, is_malformed, refuse_request
from mobysession.protocol.metadata import decode_metadata, encode_metadata
from mobysession.protocol.outbox import Outbox
from mobysession.protocol.status import parse_status, serialize_status, status_from_http
from mobysession.protocol.timeouts import format_timeout, parse_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mobysession.protocol.framing import Buffer
    from mobysession.protocol.outbox import StreamQueue

__all__ = ["GrpcConnection"]

_RESPONSE = [(b":status", b"200"), (b"content-type", b"application/grpc")]
_ENCODINGS = ("identity", "gzip")
_ACCEPT = (b"grpc-accept-encoding", b"identity, gzip")
_USER_AGENT = (b"user-agent", b"grpc-python-mobysession/" + __version__.encode())
_DEFAULT_WINDOW = 65_535


class _Machine(h2.connection.H2ConnectionStateMachine):  # type: ignore[misc,unused-ignore]  # h2 is typed, its stubs vary
    """h2's connection states, but open after a GOAWAY: calls in flight go on to their ends (RFC 9113 section 6.8)."""

    def process_input(self, input_: h2.connection.ConnectionInputs) -> list[Any]:
        if input_ is h2.connection.ConnectionInputs.RECV_GOAWAY:
            return []
        return super().process_input(input_)


class _Http2(h2.connection.H2Connection):
    """h2's connection, which leaves ``content-length`` to us: it would end all calls over the one that is malformed."""

    def _begin_new_stream(self, stream_id: int, allowed_ids: Any) -> Any:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream._initialize_content_length = _no_length  # type: ignore[method-assign,assignment]  # checked in `GrpcConnection`
        return stream


def _no_length(_headers: Any) -> None:
    return None


class _Frames(h2.frame_buffer.FrameBuffer):
    """h2's frame parser, without the hexadecimal copy of every frame that h2 makes for a log nobody reads."""

    def __next__(self) -> Any:
        frame = super().__next__()
        frame._body_repr = _no_body  # type: ignore[method-assign]  # what repr(frame) calls, its only use
        return frame


def _no_body() -> str:
    return ""


class _Call:
    """One stream: how far the two directions are, and what is owed to the peer's window."""

    __slots__ = (
        "accepts_gzip",
        "awaited",
        "compress",
        "headers_sent",
        "held",
        "local_ended",
        "owed",
        "reader",
        "remote_ended",
        "status",
    )

    def __init__(self) -> None:
        self.reader = MessageReader()
        self.headers_sent = False
        self.local_ended = False
        self.remote_ended = False
        #: Server: the peer takes gzip, and was told that it gets it.
        self.accepts_gzip = False
        self.compress = False
        #: Flow-controlled bytes received and not yet acknowledged.
        self.owed = 0
        #: Bytes of whole messages, with their prefixes, that were reported and not yet consumed.
        self.held = 0
        #: Bytes of DATA still to come, where the headers announced their number.
        self.awaited: int | None = None
        #: Client: the status of a response that is HTTP, not gRPC.
        self.status: tuple[StatusCode, str] | None = None


class GrpcConnection:
    """The protocol state of one connection.

    Args:
        client_side: True where we open the calls (`/grpc`, native, buildkitd); False on a session, where the daemon
            does.
    """

    def __init__(self, *, client_side: bool) -> None:
        self.client_side = client_side
        self._h2: h2.connection.H2Connection = _Http2(
            h2.config.H2Configuration(
                client_side=client_side,
                header_encoding=None,
                # See `mobysession.protocol.headers`.
                validate_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._h2.state_machine = _Machine()
        self._h2.incoming_buffer = _Frames(server=not client_side)
        self._calls: dict[int, _Call] = {}
        self._outbox = Outbox()
        #: Nothing more may be sent, or nothing more can be understood.
        self._terminated = False
        #: The peer takes no new calls.
        self._refused = False
        #: Bytes for the peer that h2 must not forget, as it does when a GOAWAY arrives.
        self._early: list[bytes] = []
        #: Bytes of those, and of what h2 holds, that the peer made us say since it last took something.
        self._pending_control = 0
        #: Flow-controlled bytes not yet given back to the connection's window.
        self._owed = 0
        #: Bytes of messages, of all calls, that were reported and not yet consumed.
        self._unread = 0
        self._events: list[events.Event] = []
        self._handlers: dict[type[h2.events.Event], Callable[[Any], None]] = {
            h2.events.RequestReceived: self._on_request,
            h2.events.ResponseReceived: self._on_response,
            h2.events.TrailersReceived: self._on_trailers,
            h2.events.DataReceived: self._on_data,
            h2.events.StreamEnded: self._on_stream_ended,
            h2.events.StreamReset: self._on_stream_reset,
            h2.events.RemoteSettingsChanged: self._on_settings,
            h2.events.PingAckReceived: self._on_ping_ack,
            h2.events.ConnectionTerminated: self._on_terminated,
            h2.events.WindowUpdated: self._on_window_updated,
        }
        self._initiate()

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
            words = f"{self._pending_control} bytes of answers are waiting, and the other side does not read them"
            self.close(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, words.encode())
            raise RemoteProtocolError(words, error_code=int(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM))
        try:
            happened = self._h2.receive_data(bytes(data))
        except h2.exceptions.ProtocolError as error:
            self._terminated = True
            if self._h2.state_machine.state is not h2.connection.ConnectionState.CLOSED:
                # h2 says goodbye itself, but not over a wrong preface.
                self._h2.close_connection(error.error_code)
            raise RemoteProtocolError(
                f"the other side broke HTTP/2: {str(error) or type(error).__name__}", error_code=int(error.error_code)
            ) from error
        for event in happened:
            handler = self._handlers.get(type(event))
            if handler is not None:
                handler(event)
        result, self._events = self._events, []
        return result

    def data_to_send(self) -> bytes:
        """Return the next bytes for the peer: control frames, then small answers, then slices of bulk streams in turn.

        Empty when there is nothing to send, or nothing may be sent until the peer opens its window.
        """
        budget = limits.WRITE_SIZE
        # A connection that is going away has its GOAWAY and nothing else to say.
        while budget > 0 and not self._terminated:
            turn = self._outbox.next()
            if turn is None:
                break
            budget -= self._send_some(*turn)
        self._gather()
        early, self._early = self._early, []
        self._pending_control = 0
        return b"".join(early)

    def _gather(self, *, control: bool = True) -> None:
        """Take from h2 what it has for the peer; ``control`` counts it as the peer's doing."""
        if data := self._h2.data_to_send():
            self._early.append(data)
            if control:
                self._pending_control += len(data)

    def queued(self, stream_id: int) -> int:
        """Return the bytes of a call that wait to be sent; 0 for a call that is over."""
        queue = self._outbox.streams.get(stream_id)
        return queue.size if queue is not None else 0

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
        """True on the client's side once the peer takes no more calls and all that it took have ended."""
        return self.client_side and self._refused and not self._calls

    @property
    def open_calls(self) -> int:
        """Number of calls that are not over on both sides, for whoever looks for leaks; the tests do."""
        return len(self._calls)

    @property
    def send_window(self) -> int:
        """Bytes that the peer still lets us send on the whole connection, for diagnosis; the tests look at it."""
        return self._h2.outbound_flow_control_window

    def _initiate(self) -> None:
        wanted = {
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: limits.STREAM_WINDOW,
            h2.settings.SettingCodes.MAX_FRAME_SIZE: limits.MAX_FRAME,
            h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: (
                limits.MAX_RESPONSE_HEADER_LIST if self.client_side else limits.MAX_HEADER_LIST
            ),
            h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: limits.MAX_CONCURRENT_STREAMS,
            h2.settings.SettingCodes.ENABLE_PUSH: 0,
        }
        connection = self._h2
        connection.local_settings = h2.settings.Settings(client=self.client_side, initial_values=wanted)
        connection.max_inbound_frame_size = limits.MAX_FRAME
        connection.decoder.max_header_list_size = wanted[h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE]
        connection.initiate_connection()
        connection.increment_flow_control_window(limits.CONNECTION_WINDOW - _DEFAULT_WINDOW)

    def _send_some(self, queue: StreamQueue, bulk: bool) -> int:
        """Send at most a slice of one stream, and its end behind its last byte; return the bytes sent."""
        connection = self._h2
        stream_id = queue.stream_id
        reserve = limits.WINDOW_RESERVE if bulk else 0
        sent = 0
        while queue.size and sent < limits.SLICE:
            window = min(
                connection.local_flow_control_window(stream_id),
                connection.outbound_flow_control_window - reserve,
                connection.max_outbound_frame_size,
                limits.SLICE - sent,
            )
            if window <= 0:
                # Out of line until a WINDOW_UPDATE or SETTINGS brings it back.
                return sent
            piece = queue.take(window)
            connection.send_data(stream_id, piece)
            sent += len(piece)
        if queue.size:
            self._outbox.line_up(queue)
        elif queue.ending is not None:
            self._end_stream(queue)
        return sent

    def _end_stream(self, queue: StreamQueue) -> None:
        stream_id = queue.stream_id
        self._outbox.drop(stream_id)
        call = self._calls[stream_id]
        call.local_ended = True
        if queue.ending:
            self._h2.send_headers(stream_id, queue.ending, end_stream=True)
        else:
            self._h2.end_stream(stream_id)
        if self.client_side:
            return
        if not call.remote_ended:
            # The answer is complete: tell the peer to stop sending its request (RFC 9113 section 8.1).
            self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.NO_ERROR)
        self._forget(stream_id)

    def _answer_now(self, stream_id: int, ending: list[tuple[bytes, bytes]]) -> None:
        """End a call from within its own events; the peer may have reset it further on in the same bytes."""
        queue = self._outbox.queue(stream_id)
        queue.ending = ending
        try:
            self._end_stream(queue)
        except h2.exceptions.ProtocolError:
            self._forget(stream_id)

    def _refuse(self, stream_id: int) -> None:
        self._reset_now(stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
        self._forget(stream_id)

    def _reset_now(self, stream_id: int, error_code: int) -> None:
        with suppress(h2.exceptions.ProtocolError):
            self._h2.reset_stream(stream_id, error_code)

    # -- calls that the peer opened ------------------------------------------------------------------------------------

    def send_initial_metadata(self, stream_id: int, metadata: Sequence[tuple[str, str | bytes]] = ()) -> None:
        """Begin the response to a call, with ``metadata``; only once and before the first message.

        Nothing happens on a call that is over.
        """
        call = self._calls.get(stream_id)
        if call is None or self._terminated:
            return
        if call.headers_sent:
            raise LocalProtocolError("the initial metadata of this call was sent already")
        fields = [*_RESPONSE, *encode_metadata(metadata)] if metadata else [*_RESPONSE]
        if call.compress:
            fields.append((b"grpc-encoding", b"gzip"))
        self._h2.send_headers(stream_id, fields)
        call.headers_sent = True

    def compress_answers(self, stream_id: int) -> None:
        """Compress the answers to a call with gzip, if the peer said that it takes that and has no answer yet."""
        call = self._calls.get(stream_id)
        if call is not None and call.accepts_gzip and not call.headers_sent:
            call.compress = True

    def send_messages(self, stream_id: int, messages: Sequence[Buffer], *, compress: bool = True) -> None:
        """Queue ``messages``; they must not be changed afterwards. Nothing happens on a call that is over.

        The initial metadata of a response goes out first, empty, where it was not sent. ``compress`` takes effect on
        calls with `compress_answers`.
        """
        call = self._calls.get(stream_id)
        if call is None or self._terminated:
            return
        queue = self._outbox.queue(stream_id)
        if queue.ending is not None or call.local_ended:
            raise LocalProtocolError("this side of the call has ended; no message can follow")
        if not call.headers_sent:
            self.send_initial_metadata(stream_id)
        for chunk in encode_chunks(messages, compress=compress and call.compress):
            queue.append(chunk)
        if queue.size:
            self._outbox.line_up(queue)

    def send_trailers(
        self,
        stream_id: int,
        code: StatusCode = StatusCode.OK,
        message: str = "",
        *,
        details: bytes = b"",
        metadata: Sequence[tuple[str, str | bytes]] = (),
    ) -> None:
        """End a call that the peer opened, behind what is queued for it. Nothing happens on a call that is over."""
        call = self._calls.get(stream_id)
        if call is None:
            return
        queue = self._outbox.queue(stream_id)
        if queue.ending is not None:
            raise LocalProtocolError("this call has its status already")
        fields = [*serialize_status(code, message, details), *encode_metadata(metadata)]
        queue.ending = fields if call.headers_sent else [*_RESPONSE, *fields]
        self._outbox.line_up(queue)

    # -- calls that we open --------------------------------------------------------------------------------------------

    def start_call(
        self,
        method: str,
        *,
        authority: str = "localhost",
        metadata: Sequence[tuple[str, str | bytes]] = (),
        timeout: float | None = None,
    ) -> int:
        """Open a call to ``method`` ("/package.Service/Method") and return its stream ID; ``timeout`` in seconds.

        Raises:
            RpcError: UNAVAILABLE when the peer takes no more calls.
            LocalProtocolError: a method, an authority or metadata that a header field cannot carry.
        """
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", encode_pseudo("method", method)),
            (b":authority", encode_pseudo("authority", authority)),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            _USER_AGENT,
            _ACCEPT,
        ]
        if timeout is not None and timeout != float("inf"):
            fields.append((b"grpc-timeout", format_timeout(timeout).encode("ascii")))
        fields.extend(encode_metadata(metadata))
        if self._refused or self._terminated:
            raise RpcError(StatusCode.UNAVAILABLE, "the other side is ending the connection", method=method)
        self._gather()
        try:
            stream_id: int = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream_id, fields)
        except h2.exceptions.ProtocolError as error:
            raise RpcError(
                StatusCode.UNAVAILABLE, f"the connection takes no more calls: {error}", method=method
            ) from error
        self._gather(control=False)
        call = self._calls[stream_id] = _Call()
        call.headers_sent = True
        return stream_id

    def end_request(self, stream_id: int) -> None:
        """Half-close a call of ours behind what is queued for it; doing it again does nothing."""
        call = self._calls.get(stream_id)
        if call is None or call.local_ended:
            return
        queue = self._outbox.queue(stream_id)
        if queue.ending is None:
            queue.ending = []
            self._outbox.line_up(queue)

    # -- both ----------------------------------------------------------------------------------------------------------

    def reset(self, stream_id: int, error_code: int = 8) -> None:
        """Cancel a call (8 is CANCEL); what is queued for it is dropped. Nothing happens on a call that is over."""
        if stream_id in self._calls:
            if not self._terminated:
                self._reset_now(stream_id, error_code)
            self._forget(stream_id)

    def consumed(self, stream_id: int, messages: Sequence[Buffer]) -> None:
        """Give the bytes of ``messages``, which were reported, back to the peer's window."""
        call = self._calls.get(stream_id)
        if call is not None:
            size = _weight(messages)
            call.held -= size
            self._unread -= size
            self._give_back(stream_id, call)

    def ping(self, payload: bytes) -> None:
        """Send a PING with 8 bytes of ``payload``; it comes back as `PingAcknowledged`."""
        if not self._terminated:
            self._h2.ping(payload)

    def close(self, error_code: int = 0, debug_data: bytes = b"") -> None:
        """Queue a GOAWAY. Nothing is sent after it; calls that are open are cut off."""
        if not self._terminated:
            self._terminated = True
            self._h2.close_connection(error_code, debug_data or None)

    def _forget(self, stream_id: int) -> None:
        self._unread -= self._calls.pop(stream_id).held
        self._outbox.drop(stream_id)
        self._give_back_connection()

    def _give_back(self, stream_id: int, call: _Call) -> None:
        """Open the peer's windows again, as far as it has filled them with bytes that were taken.

        Half a window at a time, because each opening is a frame. A stream's window waits for the handler. That of the
        connection does not, or one call that is never read would starve all others; but it does once more is unread
        than memory should hold.
        """
        size = call.owed - max(0, call.held)
        if size >= limits.STREAM_WINDOW // 2 and not call.remote_ended and not self._terminated:
            call.owed -= size
            # The stream may have ended further on in the bytes being handled; then nobody waits for its window.
            with suppress(h2.exceptions.ProtocolError):
                self._h2.increment_flow_control_window(size, stream_id)
        self._give_back_connection()

    def _give_back_connection(self) -> None:
        if self._owed >= limits.CONNECTION_WINDOW // 2 and self._unread <= limits.MAX_UNREAD and not self._terminated:
            self._h2.increment_flow_control_window(self._owed)
            self._owed = 0

    # -- h2's events ---------------------------------------------------------------------------------------------------

    def _on_request(self, event: h2.events.RequestReceived) -> None:
        stream_id = event.stream_id
        headers = event.headers
        fields = dict(headers)
        call = self._calls[stream_id] = _Call()
        if is_malformed(headers, "request"):
            self._refuse(stream_id)
            return
        call.awaited = content_length(fields)
        refusal = refuse_request(fields)
        if refusal is not None:
            self._answer_now(stream_id, refusal)
            return
        try:
            encoding = fields.get(b"grpc-encoding", b"identity").decode("ascii", "replace")
            if encoding not in _ENCODINGS:
                raise RpcError(StatusCode.UNIMPLEMENTED, f"grpc-encoding {encoding!r} is not supported")
            call.reader = MessageReader(encoding)
            call.accepts_gzip = b"gzip" in fields.get(b"grpc-accept-encoding", b"").replace(b" ", b"").split(b",")
            timeout = fields.get(b"grpc-timeout")
            received = events.CallReceived(
                stream_id,
                fields[b":path"].decode("utf-8", "replace"),
                decode_metadata(headers),
                parse_timeout(timeout.decode("ascii", "replace")) if timeout is not None else None,
            )
        except RpcError as error:
            self._answer_now(stream_id, [*_RESPONSE, _ACCEPT, *serialize_status(error.code, error.message)])
            return
        self._events.append(received)

    def _on_response(self, event: h2.events.ResponseReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        headers = event.headers
        if is_malformed(headers, "response"):
            self._fail(event.stream_id, RpcError(StatusCode.INTERNAL, "the answer begins with malformed headers"))
            return
        fields = dict(headers)
        call.awaited = content_length(fields)
        http_status = int(fields[b":status"]) if fields[b":status"].isdigit() else 0
        content_type = fields.get(b"content-type", b"")
        if http_status != 200 or not content_type.startswith(b"application/grpc"):
            code = status_from_http(http_status)
            call.status = code, f"the answer is not gRPC: HTTP status {http_status}, content type {content_type!r}"
        call.reader = MessageReader(fields.get(b"grpc-encoding", b"identity").decode("ascii", "replace"))
        if event.stream_ended is not None:
            self._end_call(event.stream_id, call, headers)
        else:
            self._events.append(events.InitialMetadata(event.stream_id, _metadata(headers)))

    def _on_trailers(self, event: h2.events.TrailersReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        if is_malformed(event.headers, "trailers"):
            self._fail(event.stream_id, RpcError(StatusCode.INTERNAL, "the call ends with malformed trailers"))
        elif self.client_side:
            self._end_call(event.stream_id, call, event.headers)

    def _end_call(self, stream_id: int, call: _Call, headers: list[tuple[bytes, bytes]]) -> None:
        fields = dict(headers)
        status = parse_status(fields)
        if status is None:
            code, message = call.status or (StatusCode.UNKNOWN, "the call ended without a grpc-status")
            status = code, message, b""
        elif status[0] is StatusCode.OK and call.reader.buffered:
            status = StatusCode.INTERNAL, f"the answer ended {call.reader.buffered} bytes into a message", b""
        elif status[0] is StatusCode.OK and call.awaited:
            status = StatusCode.INTERNAL, "the answer is not as long as its headers said", b""
        if not call.local_ended:
            self._reset_now(stream_id, h2.errors.ErrorCodes.CANCEL)
        self._forget(stream_id)
        self._events.append(events.CallEnded(stream_id, *status, _metadata(headers)))

    def _on_data(self, event: h2.events.DataReceived) -> None:
        stream_id = event.stream_id
        size = event.flow_controlled_length or 0
        self._owed += size
        call = self._calls.get(stream_id)
        if call is None:
            self._give_back_connection()
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
            if messages:
                weight = _weight(messages)
                call.held += weight
                self._unread += weight
                self._events.append(events.MessagesReceived(stream_id, messages))
        # Else the body of an answer that is not gRPC, which says nothing we could decode.
        self._give_back(stream_id, call)

    def _fail(self, stream_id: int, error: RpcError) -> None:
        """End a call whose peer sent what cannot be read: a server answers, a client gives up."""
        if self.client_side:
            self._reset_now(stream_id, h2.errors.ErrorCodes.CANCEL)
            self._forget(stream_id)
            self._events.append(events.CallEnded(stream_id, error.code, error.message, b"", []))
            return
        self._outbox.drop(stream_id)
        fields = serialize_status(error.code, error.message)
        self._answer_now(stream_id, fields if self._calls[stream_id].headers_sent else [*_RESPONSE, *fields])
        self._events.append(events.CallReset(stream_id, int(h2.errors.ErrorCodes.PROTOCOL_ERROR)))

    def _break_off(self, stream_id: int) -> None:
        """End a call whose DATA is not as long as its headers said, which makes it malformed (RFC 9113 8.1.1)."""
        if self.client_side:
            self._fail(stream_id, RpcError(StatusCode.INTERNAL, "the answer is not as long as its headers said"))
            return
        self._refuse(stream_id)
        self._events.append(events.CallReset(stream_id, int(h2.errors.ErrorCodes.PROTOCOL_ERROR)))

    def _on_stream_ended(self, event: h2.events.StreamEnded) -> None:
        stream_id = event.stream_id
        call = self._calls.get(stream_id)
        if call is None:
            return
        call.remote_ended = True
        if self.client_side:
            # Without trailers: an HTTP answer, or a server that forgot its status.
            self._end_call(stream_id, call, [])
            return
        if call.awaited:
            self._break_off(stream_id)
            return
        try:
            call.reader.finish()
        except RpcError as error:
            self._fail(stream_id, error)
            return
        self._events.append(events.RequestEnded(stream_id))

    def _on_stream_reset(self, event: h2.events.StreamReset) -> None:
        if event.stream_id in self._calls:
            self._forget(event.stream_id)
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
        self._refused = True
        error_code, last_stream_id = int(event.error_code or 0), event.last_stream_id or 0
        self._events.append(events.GoAwayReceived(error_code, last_stream_id, event.additional_data or b""))
        if error_code:
            self._terminated = True
        elif self.client_side:
            for stream_id in [stream_id for stream_id in self._calls if stream_id > last_stream_id]:
                self._forget(stream_id)
                self._events.append(events.CallReset(stream_id, int(h2.errors.ErrorCodes.REFUSED_STREAM)))


def _weight(messages: Sequence[Buffer]) -> int:
    return sum(map(len, messages)) + PREFIX_SIZE * len(messages)


def _metadata(headers: list[tuple[bytes, bytes]]) -> list[tuple[str, str | bytes]]:
    try:
        return decode_metadata(headers)
    except RpcError:
        # Broken metadata in an answer must not hide the answer's status.
        return [(name, value) for name, value in decode_metadata(h for h in headers if not h[0].endswith(b"-bin"))]

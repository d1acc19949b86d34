"""The server role on a connection: calls that the peer opens, each ended by a status of ours.

A request goes through three gates. One that HTTP/2 calls malformed is reset; one that is HTTP but no gRPC gets an HTTP
answer; one whose gRPC we do not understand gets a status. What is left is a `CallReceived`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

import h2.errors
import h2.events
import h2.exceptions

from mobysession import limits
from mobysession.errors import LocalProtocolError, RpcError, StatusCode
from mobysession.protocol import events
from mobysession.protocol.call_state import CallState
from mobysession.protocol.connection import GrpcConnection
from mobysession.protocol.framing import ENCODINGS, MessageReader
from mobysession.protocol.headers import (
    ACCEPT_ENCODING,
    content_length,
    header_list_size,
    is_grpc,
    is_malformed,
    refuse_request,
)
from mobysession.protocol.hpack import TOO_LARGE, Fields
from mobysession.protocol.metadata import decode_metadata, encode_metadata
from mobysession.protocol.outgoing import RESPONSE
from mobysession.protocol.status import serialize_status
from mobysession.protocol.timeouts import parse_timeout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession.protocol.framing import Buffer
    from mobysession.protocol.headers import Headers
    from mobysession.protocol.outbox import StreamQueue

__all__ = ["ServerConnection"]

#: Tells that the peer has read the first of two goodbyes.
_GOODBYE = b"goodbye!"
#: Of a timeout: callers round it up when they say it, and take the call back when it is over.
_NEARLY = 0.95


class ServerConnection(GrpcConnection):
    """The protocol state of a connection on which the peer calls us: a session, where the peer is the daemon."""

    client_side: ClassVar[bool] = False

    def __init__(self, *, max_message: int = limits.MAX_MESSAGE) -> None:
        super().__init__(max_message=max_message)
        self._handlers[h2.events.RequestReceived] = self._on_request
        #: What the goodbye says; None while there is none.
        self._goodbye: bytes | None = None
        #: The peer knows that new calls are refused.
        self._closing = False
        #: Bytes of the header lists of all open calls.
        self._headers_held = 0
        #: Calls that were ended for their size since the peer was last written to.
        self._oversized = 0

    def pieces_to_send(self, *, bulk: bool = True) -> list[Buffer]:
        """Return the next bytes for the peer, as `GrpcConnection.pieces_to_send` does."""
        self._oversized = 0
        return self._sender.pieces(bulk=bulk)

    # -- the end -------------------------------------------------------------------------------------------------------

    def drain(self, debug_data: bytes = b"") -> None:
        """Let the connection end with the calls that run; doing it again does nothing.

        Two GOAWAYs, both without an error: one that announces the end, and, once the peer has read that and sent what
        it had begun, one that names the last stream we answer. Whatever comes above it is refused unprocessed.

        Source: RFC 9113 section 6.8.
        """
        if self._goodbye is None and not self._terminated:
            self._goodbye = debug_data
            self._h2.announce_end(self._goodbye, final=False)
            self._h2.ping(_GOODBYE)

    @property
    def draining(self) -> bool:
        """True once `drain` was called."""
        return self._goodbye is not None

    @property
    def drained(self) -> bool:
        """True once the peer knows that it gets no more calls, and all that it had have ended."""
        return self._closing and not self._calls

    # -- answers -------------------------------------------------------------------------------------------------------

    def send_initial_metadata(self, stream_id: int, metadata: Sequence[tuple[str, str | bytes]] = ()) -> None:
        """Begin the response to a call, with ``metadata``; only once and before the first message.

        Nothing happens on a call that is over.
        """
        call = self._calls.get(stream_id)
        if call is None or call.refused or self._terminated:
            return
        if call.headers_sent:
            raise LocalProtocolError("the initial metadata of this call was sent already")
        # What the handlers say must not count as something that the peer made us say.
        self._sender.gather()
        self._begin_answer(stream_id, call, metadata)
        self._sender.gather(control=False)

    def compress_answers(self, stream_id: int) -> None:
        """Compress the answers to a call with gzip, if the peer said that it takes that and has no answer yet."""
        call = self._calls.get(stream_id)
        if call is not None and call.accepts_gzip and not call.headers_sent:
            call.compress = True

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
        if call is None or call.refused:
            return
        queue = self._outbox.queue(stream_id)
        if queue.ending is not None:
            raise LocalProtocolError("this call has its status already")
        fields = [*serialize_status(code, message, details), *encode_metadata(metadata)]
        queue.ending = fields if call.headers_sent else [*RESPONSE, *fields]
        self._outbox.line_up(queue)

    def _begin_answer(self, stream_id: int, call: CallState, metadata: Sequence[tuple[str, str | bytes]] = ()) -> None:
        fields = [*RESPONSE, *encode_metadata(metadata)] if metadata else [*RESPONSE]
        if call.compress:
            fields.append((b"grpc-encoding", b"gzip"))
        self._h2.send_fields(stream_id, fields)
        call.headers_sent = True

    def _end_stream(self, queue: StreamQueue) -> None:
        super()._end_stream(queue)
        stream_id = queue.stream_id
        call = self._calls[stream_id]
        if not call.remote_ended:
            if call.refused:
                return
            # The answer is complete: tell the peer to stop sending its request (RFC 9113 section 8.1).
            self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.NO_ERROR)
        self._forget(stream_id)

    def _answer_now(self, stream_id: int, ending: Headers) -> None:
        """End a call from within its own events; the peer may have reset it further on in the same bytes."""
        queue = self._outbox.queue(stream_id)
        queue.ending = ending
        try:
            self._end_stream(queue)
        except h2.exceptions.ProtocolError:
            self._forget(stream_id)

    def _turn_away(self, stream_id: int, call: CallState, headers: Headers, body: bytes) -> None:
        """Answer a request that is HTTP but no gRPC.

        The answer is whole at once; the stream stays until the request is, because until then it counts as open, and
        may turn out to be malformed.
        """
        call.refused = True
        call.status = StatusCode.UNIMPLEMENTED, ""
        try:
            self._h2.send_headers(stream_id, headers)
        except h2.exceptions.ProtocolError:
            # The peer has reset it further on in the same bytes.
            self._forget(stream_id)
            return
        queue = self._outbox.queue(stream_id)
        queue.append(body)
        queue.ending = []
        self._outbox.line_up(queue)

    def _refuse(self, stream_id: int) -> None:
        self._h2.abuse.call_wasted()
        self._h2.refuse(stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
        self._forget(stream_id)

    # -- what arrives --------------------------------------------------------------------------------------------------

    def _on_request(self, event: h2.events.RequestReceived) -> None:
        stream_id = event.stream_id
        headers = event.headers
        call = self._calls[stream_id] = CallState()
        request = headers.notes if isinstance(headers, Fields) else None
        if request is not None:
            self._open_call(stream_id, call, request)
            return
        fields = dict(headers)
        if headers and headers[-1] is TOO_LARGE:
            self._answer_now(stream_id, _too_large(fields))
            return
        if is_malformed(headers, "request"):
            self._refuse(stream_id)
            return
        call.awaited = content_length(fields)
        refusal = refuse_request(fields)
        if refusal is not None:
            self._turn_away(stream_id, call, *refusal)
            return
        try:
            request = _read_request(headers, fields)
        except RpcError as error:
            self._answer_unread(stream_id, error)
            return
        if isinstance(headers, Fields):
            headers.notes = request
        self._open_call(stream_id, call, request)

    def _open_call(self, stream_id: int, call: CallState, request: _Request) -> None:
        if (held := self._headers_held + request.size) > limits.MAX_HEADERS_HELD:
            text = f"the calls of this connection have too much metadata ({held} vs. {limits.MAX_HEADERS_HELD} bytes)"
            self._answer_unread(stream_id, RpcError(StatusCode.RESOURCE_EXHAUSTED, text))
            return
        call.awaited = request.awaited
        call.reader = MessageReader(request.encoding, limit=self._max_message)
        call.accepts_gzip = request.accepts_gzip
        call.header_size = request.size
        if request.timeout is not None:
            waited = max(_NEARLY * request.timeout, limits.TIMED_OUT)
            call.overdue_at = self._h2.abuse.clock() + waited
        self._headers_held += request.size
        # The list is the handler's, who may do with it what he likes.
        metadata = list(request.metadata)
        self._events.append(
            events.CallReceived(stream_id, request.method, metadata, request.timeout, request.user_agent)
        )

    def _answer_unread(self, stream_id: int, error: RpcError) -> None:
        self._answer_now(stream_id, [*RESPONSE, ACCEPT_ENCODING, *serialize_status(error.code, error.message)])

    def _on_trailers(self, event: h2.events.TrailersReceived) -> None:
        if event.stream_id in self._calls and is_malformed(event.headers, "trailers"):
            self._break_off(event.stream_id)

    def _on_stream_ended(self, event: h2.events.StreamEnded) -> None:
        stream_id = event.stream_id
        call = self._calls.get(stream_id)
        if call is None:
            return
        call.remote_ended = True
        if call.awaited:
            self._break_off(stream_id)
            return
        if call.refused:
            if call.local_ended:
                self._forget(stream_id)
            return
        try:
            call.reader.finish()
        except RpcError as error:
            self._fail(stream_id, error)
            return
        self._events.append(events.RequestEnded(stream_id))

    def _on_ping_ack(self, event: h2.events.PingAckReceived) -> None:
        if self._goodbye is None or event.ping_data != _GOODBYE:
            super()._on_ping_ack(event)
        elif not self._closing:
            self._closing = True
            self._h2.announce_end(self._goodbye, final=True)

    def _on_goaway(self, last_stream_id: int) -> None:
        """Nothing: the peer opens no more calls, and those that it has opened go on."""

    def _on_stream_reset(self, event: h2.events.StreamReset) -> None:
        call = self._calls.get(event.stream_id)
        abuse = self._h2.abuse
        # A caller whose time is up takes the call back, as it should.
        honest = call is not None and event.remote_reset and (call.headers_sent or abuse.clock() >= call.overdue_at)
        if call is not None and not honest:
            abuse.call_wasted()
        super()._on_stream_reset(event)

    def _forget(self, stream_id: int) -> None:
        self._headers_held -= self._calls[stream_id].header_size
        super()._forget(stream_id)

    def _fail(self, stream_id: int, error: RpcError) -> None:
        # What is only too large is no misuse, as long as no more calls end so at once than may be open.
        self._oversized += error.code is StatusCode.RESOURCE_EXHAUSTED
        if error.code is not StatusCode.RESOURCE_EXHAUSTED or self._oversized > limits.MAX_CONCURRENT_STREAMS:
            self._h2.abuse.call_wasted()
        self._outbox.drop(stream_id)
        fields = serialize_status(error.code, error.message)
        self._answer_now(stream_id, fields if self._calls[stream_id].headers_sent else [*RESPONSE, *fields])
        self._events.append(events.CallReset(stream_id, int(h2.errors.ErrorCodes.PROTOCOL_ERROR), error))

    def _break_off(self, stream_id: int) -> None:
        known = not self._calls[stream_id].refused
        self._refuse(stream_id)
        if known:
            self._events.append(events.CallReset(stream_id, int(h2.errors.ErrorCodes.PROTOCOL_ERROR)))


class _Request(NamedTuple):
    """What a header list that opens a call says; the same list may open many."""

    method: str
    metadata: list[tuple[str, str | bytes]]
    timeout: float | None
    user_agent: str
    encoding: str
    accepts_gzip: bool
    #: Bytes of DATA that it announces; None where it does not.
    awaited: int | None
    #: Bytes of the list, as HTTP/2 counts them.
    size: int


def _read_request(headers: Headers, fields: dict[bytes, bytes]) -> _Request:
    """Return what well-formed ``headers`` say; RpcError where their gRPC is not understood."""
    encoding = fields.get(b"grpc-encoding", b"identity").decode("ascii", "replace")
    if encoding not in ENCODINGS:
        raise RpcError(StatusCode.UNIMPLEMENTED, f"grpc-encoding {encoding!r} is not supported")
    timeout = fields.get(b"grpc-timeout")
    return _Request(
        method=fields[b":path"].decode("utf-8", "replace"),
        metadata=decode_metadata(headers),
        timeout=parse_timeout(timeout.decode("ascii", "replace")) if timeout is not None else None,
        user_agent=fields.get(b"user-agent", b"").decode("utf-8", "replace"),
        encoding=encoding,
        accepts_gzip=b"gzip" in fields.get(b"grpc-accept-encoding", b"").replace(b" ", b"").split(b","),
        awaited=content_length(fields),
        size=header_list_size(headers),
    )


def _too_large(fields: dict[bytes, bytes]) -> Headers:
    """Return the answer to a request whose headers, of which ``fields`` are the first, are over the limit."""
    if is_grpc(fields):
        text = f"the call has more than {limits.MAX_HEADER_LIST} bytes of metadata"
        return [*RESPONSE, *serialize_status(StatusCode.RESOURCE_EXHAUSTED, text)]
    return [(b":status", b"431")]

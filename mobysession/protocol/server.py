"""The server role on a connection: calls that the peer opens, each ended by a status of ours.

A request goes through three gates. One that HTTP/2 calls malformed is reset; one that is HTTP but no gRPC gets an HTTP
answer; one whose gRPC we do not understand gets a status. What is left is a `CallReceived`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import h2.errors
import h2.events
import h2.exceptions

from mobysession import limits
from mobysession.errors import LocalProtocolError, RpcError, StatusCode
from mobysession.protocol import events
from mobysession.protocol.connection import CallState, GrpcConnection
from mobysession.protocol.framing import ENCODINGS, MessageReader
from mobysession.protocol.headers import ACCEPT_ENCODING, content_length, is_malformed, refuse_request
from mobysession.protocol.metadata import decode_metadata, encode_metadata
from mobysession.protocol.status import serialize_status
from mobysession.protocol.timeouts import parse_timeout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession.protocol.headers import Headers
    from mobysession.protocol.outbox import StreamQueue

__all__ = ["ServerConnection"]

_RESPONSE = [(b":status", b"200"), (b"content-type", b"application/grpc")]


class ServerConnection(GrpcConnection):
    """The protocol state of a connection on which the peer calls us: a session, where the peer is the daemon."""

    client_side: ClassVar[bool] = False

    def __init__(self, *, max_message: int = limits.MAX_MESSAGE) -> None:
        super().__init__(max_message=max_message)
        self._handlers[h2.events.RequestReceived] = self._on_request

    # -- answers -------------------------------------------------------------------------------------------------------

    def send_initial_metadata(self, stream_id: int, metadata: Sequence[tuple[str, str | bytes]] = ()) -> None:
        """Begin the response to a call, with ``metadata``; only once and before the first message.

        Nothing happens on a call that is over.
        """
        call = self._calls.get(stream_id)
        if call is None or self._terminated:
            return
        if call.headers_sent:
            raise LocalProtocolError("the initial metadata of this call was sent already")
        self._begin_answer(stream_id, call, metadata)

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
        if call is None:
            return
        queue = self._outbox.queue(stream_id)
        if queue.ending is not None:
            raise LocalProtocolError("this call has its status already")
        fields = [*serialize_status(code, message, details), *encode_metadata(metadata)]
        queue.ending = fields if call.headers_sent else [*_RESPONSE, *fields]
        self._outbox.line_up(queue)

    def _begin_answer(self, stream_id: int, call: CallState, metadata: Sequence[tuple[str, str | bytes]] = ()) -> None:
        fields = [*_RESPONSE, *encode_metadata(metadata)] if metadata else [*_RESPONSE]
        if call.compress:
            fields.append((b"grpc-encoding", b"gzip"))
        self._h2.send_headers(stream_id, fields)
        call.headers_sent = True

    def _end_stream(self, queue: StreamQueue) -> None:
        super()._end_stream(queue)
        stream_id = queue.stream_id
        if not self._calls[stream_id].remote_ended:
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

    def _refuse(self, stream_id: int) -> None:
        self._reset_now(stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
        self._forget(stream_id)

    # -- what arrives --------------------------------------------------------------------------------------------------

    def _on_request(self, event: h2.events.RequestReceived) -> None:
        stream_id = event.stream_id
        headers = event.headers
        fields = dict(headers)
        call = self._calls[stream_id] = CallState()
        if is_malformed(headers, "request"):
            self._refuse(stream_id)
            return
        call.awaited = content_length(fields)
        refusal = refuse_request(fields)
        if refusal is not None:
            self._answer_now(stream_id, refusal)
            return
        try:
            received = self._read_request(stream_id, call, headers, fields)
        except RpcError as error:
            self._answer_now(stream_id, [*_RESPONSE, ACCEPT_ENCODING, *serialize_status(error.code, error.message)])
            return
        self._events.append(received)

    def _on_trailers(self, event: h2.events.TrailersReceived) -> None:
        if event.stream_id in self._calls and is_malformed(event.headers, "trailers"):
            self._fail(event.stream_id, RpcError(StatusCode.INTERNAL, "the call ends with malformed trailers"))

    def _on_stream_ended(self, event: h2.events.StreamEnded) -> None:
        stream_id = event.stream_id
        call = self._calls.get(stream_id)
        if call is None:
            return
        call.remote_ended = True
        if call.awaited:
            self._break_off(stream_id)
            return
        try:
            call.reader.finish()
        except RpcError as error:
            self._fail(stream_id, error)
            return
        self._events.append(events.RequestEnded(stream_id))

    def _on_goaway(self, last_stream_id: int) -> None:
        """Nothing: the peer opens no more calls, and those that it has opened go on."""

    def _fail(self, stream_id: int, error: RpcError) -> None:
        self._outbox.drop(stream_id)
        fields = serialize_status(error.code, error.message)
        self._answer_now(stream_id, fields if self._calls[stream_id].headers_sent else [*_RESPONSE, *fields])
        self._events.append(events.CallReset(stream_id, int(h2.errors.ErrorCodes.PROTOCOL_ERROR), error))

    def _break_off(self, stream_id: int) -> None:
        self._refuse(stream_id)
        self._events.append(events.CallReset(stream_id, int(h2.errors.ErrorCodes.PROTOCOL_ERROR)))

    def _read_request(
        self, stream_id: int, call: CallState, headers: Headers, fields: dict[bytes, bytes]
    ) -> events.CallReceived:
        """Return the call that well-formed ``headers`` open; RpcError where its gRPC is not understood."""
        encoding = fields.get(b"grpc-encoding", b"identity").decode("ascii", "replace")
        if encoding not in ENCODINGS:
            raise RpcError(StatusCode.UNIMPLEMENTED, f"grpc-encoding {encoding!r} is not supported")
        call.reader = MessageReader(encoding, limit=self._max_message)
        call.accepts_gzip = b"gzip" in fields.get(b"grpc-accept-encoding", b"").replace(b" ", b"").split(b",")
        timeout = fields.get(b"grpc-timeout")
        return events.CallReceived(
            stream_id,
            fields[b":path"].decode("utf-8", "replace"),
            decode_metadata(headers),
            parse_timeout(timeout.decode("ascii", "replace")) if timeout is not None else None,
        )

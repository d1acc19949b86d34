"""The client role on a connection: calls that we open, each ended by a status of the peer's."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import h2.errors
import h2.events
import h2.exceptions

from mobysession import limits
from mobysession._version import __version__
from mobysession.errors import RpcError, StatusCode
from mobysession.protocol import events
from mobysession.protocol.call_state import CallState
from mobysession.protocol.connection import GrpcConnection
from mobysession.protocol.framing import MessageReader
from mobysession.protocol.headers import (
    ACCEPT_ENCODING,
    content_length,
    encode_path,
    encode_pseudo,
    is_grpc,
    is_malformed,
)
from mobysession.protocol.hpack import TOO_LARGE
from mobysession.protocol.metadata import decode_metadata, encode_metadata
from mobysession.protocol.status import parse_status, status_from_http
from mobysession.protocol.timeouts import format_timeout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession.protocol.headers import Headers

__all__ = ["ClientConnection"]

_USER_AGENT = (b"user-agent", b"grpc-python-mobysession/" + __version__.encode())
_WRONG_LENGTH = "the answer is not as long as its headers said"


class ClientConnection(GrpcConnection):
    """The protocol state of a connection on which we call the peer: `/grpc`, native, buildkitd."""

    client_side: ClassVar[bool] = True

    def __init__(self, *, max_message: int = limits.MAX_MESSAGE) -> None:
        super().__init__(max_message=max_message)
        self._handlers[h2.events.ResponseReceived] = self._on_response

    # -- requests ------------------------------------------------------------------------------------------------------

    def start_call(
        self,
        method: str,
        *,
        authority: str = "localhost",
        metadata: Sequence[tuple[str, str | bytes]] = (),
        timeout: float | None = None,
        compress: bool = False,
    ) -> int:
        """Open a call to ``method`` ("/package.Service/Method") and return its stream ID; ``timeout`` in seconds.

        With ``compress`` its messages are compressed with gzip, unless `send_messages` says otherwise.

        Raises:
            RpcError: UNAVAILABLE when the peer takes no more calls.
            LocalProtocolError: a method, an authority, metadata or a timeout that a header field cannot carry.
        """
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", encode_path(method)),
            (b":authority", encode_pseudo("authority", authority)),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            _USER_AGENT,
            ACCEPT_ENCODING,
        ]
        if timeout is not None and timeout != float("inf"):
            fields.append((b"grpc-timeout", format_timeout(timeout).encode("ascii")))
        if compress:
            fields.append((b"grpc-encoding", b"gzip"))
        fields.extend(encode_metadata(metadata))
        if self._leaving or self._terminated:
            raise RpcError(StatusCode.UNAVAILABLE, "the other side is ending the connection", method=method)
        self._sender.gather()
        try:
            stream_id: int = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream_id, fields)
        except h2.exceptions.ProtocolError as error:
            raise RpcError(
                StatusCode.UNAVAILABLE, f"the connection takes no more calls: {error}", method=method
            ) from error
        self._sender.gather(control=False)
        call = self._calls[stream_id] = CallState()
        call.headers_sent = True
        call.compress = compress
        return stream_id

    @property
    def is_full(self) -> bool:
        """True while as many calls are open as the peer takes at once, and it may take another later."""
        if self._leaving or self._terminated:
            return False
        return len(self._calls) >= self._h2.remote_settings.max_concurrent_streams

    def end_request(self, stream_id: int) -> None:
        """Half-close a call of ours behind what is queued for it; doing it again does nothing."""
        call = self._calls.get(stream_id)
        if call is None or call.local_ended:
            return
        queue = self._outbox.queue(stream_id)
        if queue.ending is None:
            queue.ending = []
            self._outbox.line_up(queue)

    def _begin_answer(self, stream_id: int, call: CallState) -> None:
        """Nothing: a call of ours began with its headers."""

    # -- what arrives --------------------------------------------------------------------------------------------------

    def _on_response(self, event: h2.events.ResponseReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        headers = event.headers
        if self._is_unreadable(event.stream_id, headers, "response"):
            return
        fields = dict(headers)
        call.awaited = content_length(fields)
        status = fields[b":status"]
        # Python refuses to read some thousand digits.
        http_status = int(status) if len(status) == 3 and status.isdigit() else 0
        content_type = fields.get(b"content-type", b"")
        if http_status != 200 or not is_grpc(fields):
            code = status_from_http(http_status)
            call.status = code, f"the answer is not gRPC: HTTP status {http_status}, content type {content_type!r}"
        encoding = fields.get(b"grpc-encoding", b"identity").decode("ascii", "replace")
        call.reader = MessageReader(encoding, limit=self._max_message)
        if event.stream_ended is not None:
            self._end_call(event.stream_id, call, headers)
        else:
            self._events.append(events.InitialMetadata(event.stream_id, _metadata(headers)))

    def _on_trailers(self, event: h2.events.TrailersReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        if not self._is_unreadable(event.stream_id, event.headers, "trailers"):
            self._end_call(event.stream_id, call, event.headers)

    def _on_stream_ended(self, event: h2.events.StreamEnded) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None:
            call.remote_ended = True
            # Without trailers: an HTTP answer, or a server that forgot its status.
            self._end_call(event.stream_id, call, [])

    def _on_goaway(self, last_stream_id: int) -> None:
        for stream_id in [stream_id for stream_id in self._calls if stream_id > last_stream_id]:
            self._forget(stream_id)
            self._events.append(events.CallReset(stream_id, int(h2.errors.ErrorCodes.REFUSED_STREAM)))

    def _end_call(self, stream_id: int, call: CallState, headers: Headers) -> None:
        fields = dict(headers)
        status = parse_status(fields)
        if status is None:
            code, message = call.status or (StatusCode.UNKNOWN, "the call ended without a grpc-status")
            status = code, message, b""
        elif status[0] is StatusCode.OK and call.status is not None:
            # What such an answer held was not read, and must not be missed by nobody.
            status = *call.status, b""
        elif status[0] is StatusCode.OK and call.reader.buffered:
            status = StatusCode.INTERNAL, f"the answer ended {call.reader.buffered} bytes into a message", b""
        elif status[0] is StatusCode.OK and call.awaited:
            status = StatusCode.INTERNAL, _WRONG_LENGTH, b""
        if not call.local_ended:
            self._reset_now(stream_id, h2.errors.ErrorCodes.CANCEL)
        self._forget(stream_id)
        self._events.append(events.CallEnded(stream_id, *status, _metadata(headers)))

    def _is_unreadable(self, stream_id: int, headers: Headers, kind: str) -> bool:
        """Give up a call over ``headers`` that cannot be taken; return whether that happened."""
        if headers and headers[-1] is TOO_LARGE:
            text = f"the {kind} has more than {limits.MAX_RESPONSE_HEADER_LIST} bytes of headers"
            self._fail(stream_id, RpcError(StatusCode.RESOURCE_EXHAUSTED, text))
        elif is_malformed(headers, kind):
            self._give_up(stream_id, f"the {kind} has malformed headers")
        else:
            return False
        return True

    def _give_up(self, stream_id: int, text: str) -> None:
        """End a call whose answer is malformed (RFC 9113 section 8.1.1)."""
        self._fail(stream_id, RpcError(StatusCode.INTERNAL, text), h2.errors.ErrorCodes.PROTOCOL_ERROR)

    def _fail(self, stream_id: int, error: RpcError, error_code: int = h2.errors.ErrorCodes.CANCEL) -> None:
        self._reset_now(stream_id, error_code)
        self._forget(stream_id)
        self._events.append(events.CallEnded(stream_id, error.code, error.message, b"", []))

    def _break_off(self, stream_id: int) -> None:
        self._give_up(stream_id, _WRONG_LENGTH)


def _metadata(headers: Headers) -> list[tuple[str, str | bytes]]:
    try:
        return decode_metadata(headers)
    except RpcError:
        # Broken metadata in an answer must not hide the answer's status.
        return [(name, value) for name, value in decode_metadata(h for h in headers if not h[0].endswith(b"-bin"))]

"""The daemon's half of a session's connection: an HTTP/2 client as grpc-go is one, on bare h2.

It is not built on `mobysession.rpc`: a double that shared the code under test would share its faults. What it sends
was seen from engines: a preface with an empty SETTINGS, header fields in grpc-go's order, frames of at most 16 KiB,
windows that start at 64 KiB, RST_STREAM with NO_ERROR behind an answer that came before its request had ended, a
GOAWAY with the words "client transport shutdown". What it receives must be right: there is no mercy for a missing
status or content type.

Source: grpc/grpc-go internal/transport/http2_client.go; recordings of engines 20.10.24, 28.5.2 and API 1.56.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio
from google.protobuf.message import DecodeError

from mobysession import limits
from mobysession.concurrency import open_nursery
from mobysession.errors import RpcError, StatusCode
from mobysession.testing.grpc_fields import format_timeout, from_base64, metadata, wire_value
from mobysession.testing.peer_call import PeerCall
from mobysession.testing.windows import PROBE, BdpEstimator, Window

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from google.protobuf.message import Message

__all__ = ["open_peer", "Peer"]

Response = TypeVar("Response", bound="Message")

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_SETTINGS: Final = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SHUTDOWN: Final = b"client transport shutdown"
_FRAME: Final = 16_384
_FROM_HTTP: Final = {
    400: StatusCode.INTERNAL,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.UNIMPLEMENTED,
    429: StatusCode.UNAVAILABLE,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.UNAVAILABLE,
}
_FROM_RESET: Final = {
    7: StatusCode.UNAVAILABLE,
    8: StatusCode.CANCELLED,
    11: StatusCode.RESOURCE_EXHAUSTED,
    12: StatusCode.PERMISSION_DENIED,
}


class Peer:
    """The connection. Made by `open_peer`.

    Attributes:
        ready: set when the other side's SETTINGS have arrived; then ``settings`` has them by number.
        closed: set when the connection is over; ``reason`` says why.
    """

    def __init__(self, stream: trio.abc.Stream, *, user_agent: str, accepts_gzip: bool, gives_windows: bool) -> None:
        self.ready = trio.Event()
        self.settings: dict[int, int] = {}
        self.closed = trio.Event()
        self.reason = ""
        self.stream_limit = Window().limit
        self._stream = stream
        self._user_agent = user_agent
        self._accepts_gzip = accepts_gzip
        self._gives_windows = gives_windows
        self._window = Window()
        self._bdp = BdpEstimator()
        self._calls: dict[int, PeerCall] = {}
        self._wake = trio.Event()
        self._goodbye = False
        self._last_id = 0
        config = h2.config.H2Configuration(client_side=True, header_encoding=None, validate_outbound_headers=False)
        self._h2 = h2.connection.H2Connection(config)
        self._h2.decoder.max_header_list_size = limits.MAX_RESPONSE_HEADER_LIST
        self._h2.initiate_connection()
        # h2 would list its defaults; grpc-go leaves out what is the protocol's default anyway, and that is everything.
        self._h2.clear_outbound_data_buffer()
        self._handlers: dict[type[h2.events.Event], Callable[[Any], None]] = {
            h2.events.RemoteSettingsChanged: self._on_settings,
            h2.events.ResponseReceived: self._on_response,
            h2.events.DataReceived: self._on_data,
            h2.events.TrailersReceived: self._on_trailers,
            h2.events.StreamEnded: self._on_stream_ended,
            h2.events.StreamReset: self._on_reset,
            h2.events.PingAckReceived: self._on_ping_ack,
            h2.events.ConnectionTerminated: self._on_terminated,
        }

    # -- calls ---------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open_call(
        self, method: str, *, metadata: Sequence[tuple[str, str | bytes]] = (), timeout: float | None = None
    ) -> AsyncIterator[PeerCall]:
        """Open a call for the length of the block; leaving it before its end cancels it.

        Raises:
            RpcError: UNAVAILABLE when the connection is over, DEADLINE_EXCEEDED when ``timeout`` seconds have passed.
        """
        if self.closed.is_set():
            raise RpcError(StatusCode.UNAVAILABLE, self.reason, method=method)
        await self.ready.wait()
        call = self._start(method, metadata, timeout)
        try:
            with trio.move_on_after(float("inf") if timeout is None else timeout) as scope:
                yield call
            if scope.cancelled_caught:
                raise RpcError(StatusCode.DEADLINE_EXCEEDED, "context deadline exceeded", method=method)
        finally:
            if call.status is None:
                self._reset(call.stream_id, h2.errors.ErrorCodes.CANCEL)
            self._calls.pop(call.stream_id, None)

    async def unary(
        self,
        method: str,
        request: Message,
        response: type[Response],
        *,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        timeout: float | None = None,
    ) -> Response:
        """Send one message and return the one that answers it; RpcError for any end but a good one."""
        async with self.open_call(method, metadata=metadata, timeout=timeout) as call:
            await call.send(request.SerializeToString())
            await call.end()
            message = await call.receive()
            if message is None or await call.receive() is not None:
                raise RpcError(StatusCode.INTERNAL, "cardinality violation", method=method)
            try:
                return response.FromString(message)
            except DecodeError as error:
                raise RpcError(StatusCode.INTERNAL, "grpc: failed to unmarshal the received message") from error

    def _start(self, method: str, metadata: Sequence[tuple[str, str | bytes]], timeout: float | None) -> PeerCall:
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", method.encode()),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", self._user_agent.encode()),
            (b"te", b"trailers"),
        ]
        if self._accepts_gzip:
            fields.append((b"grpc-accept-encoding", b"gzip"))
        if timeout is not None:
            fields.append((b"grpc-timeout", format_timeout(timeout)))
        fields += [(key.encode(), wire_value(key, value)) for key, value in metadata]
        self._last_id = stream_id = self._h2.get_next_available_stream_id()
        try:
            self._h2.send_headers(stream_id, fields)
        except h2.exceptions.ProtocolError as error:  # the other side has said goodbye, and not hung up yet
            raise RpcError(StatusCode.UNAVAILABLE, self.reason or "the connection is closing", method=method) from error
        call = self._calls[stream_id] = PeerCall(self, stream_id, method)
        self.wake()
        return call

    # -- what calls ask for --------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Let the writer look for something to send."""
        self._wake.set()

    def give_back(self, size: int, stream_id: int | None = None) -> None:
        """Open a window by ``size`` bytes, the connection's or a stream's."""
        if not self._gives_windows or not size:
            return
        try:
            self._h2.increment_flow_control_window(size, stream_id)
        except h2.exceptions.ProtocolError:  # the stream, or all of it, is over
            return
        self.wake()

    def _reset(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        try:
            self._h2.reset_stream(stream_id, code)
        except h2.exceptions.ProtocolError:
            return
        self.wake()

    # -- the pump ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Pump until the connection is over; raises nothing for what the other side did."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self.reason = self.reason or "error reading from server: EOF"
            self.closed.set()
            self.ready.set()
            lost = RpcError(StatusCode.UNAVAILABLE, self.reason)
            for call in list(self._calls.values()):
                call.finish(lost)
            await trio.aclose_forcefully(self._stream)

    def say_goodbye(self) -> None:
        """Send what is queued, then GOAWAY, then close."""
        self._goodbye = True
        self.wake()

    async def _read(self) -> None:
        while True:
            try:
                data = await self._stream.receive_some(32 * 1024)
                if not data:
                    return
                for event in self._h2.receive_data(bytes(data)):
                    if (handler := self._handlers.get(type(event))) is not None:
                        handler(event)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            except h2.exceptions.ProtocolError as error:
                self.reason = f"connection error: {error}"
                self._goodbye = True
            self.wake()

    async def _write(self) -> None:
        data = _PREFACE + _EMPTY_SETTINGS
        try:
            while True:
                if data:
                    await self._stream.send_all(data)
                self._send_queued()
                data = self._h2.data_to_send()
                if data:
                    continue
                if self._goodbye:
                    self._h2.close_connection(additional_data=_SHUTDOWN, last_stream_id=self._last_id)
                    await self._stream.send_all(self._h2.data_to_send())
                    await self._stream.aclose()
                    return
                self._wake = trio.Event()
                await self._wake.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h2.exceptions.ProtocolError):
            await trio.aclose_forcefully(self._stream)

    def _send_queued(self) -> None:
        for call in list(self._calls.values()):
            if call.half_closed or call.status is not None:
                continue
            while call.outgoing:
                window = min(self._h2.local_flow_control_window(call.stream_id), _FRAME)
                if window <= 0:
                    break
                piece = bytes(call.outgoing[:window])
                del call.outgoing[:window]
                call.half_closed = call.half_closing and not call.outgoing
                self._h2.send_data(call.stream_id, piece, end_stream=call.half_closed)
            if call.half_closing and not call.outgoing and not call.half_closed:
                call.half_closed = True
                self._h2.end_stream(call.stream_id)

    # -- h2's events ---------------------------------------------------------------------------------------------------

    def _on_settings(self, event: h2.events.RemoteSettingsChanged) -> None:
        self.settings.update({int(code): change.new_value for code, change in event.changed_settings.items()})
        self.ready.set()

    def _on_response(self, event: h2.events.ResponseReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        fields = dict(event.headers)
        status, content_type = int(fields[b":status"]), fields.get(b"content-type", b"")
        if status != 200 or not content_type.startswith(b"application/grpc"):
            words = f"unexpected HTTP status code received from server: {status}; content-type {content_type!r}"
            self._finish(call, RpcError(_FROM_HTTP.get(status, StatusCode.UNKNOWN), words, method=call.method))
            return
        call.begin(event.headers)
        if event.stream_ended is not None:
            self._end(call, event.headers)

    def _on_data(self, event: h2.events.DataReceived) -> None:
        size, now = event.flow_controlled_length or 0, trio.current_time()
        probe = self._bdp.add(size, now)
        self.give_back(self._window.take(size))
        if probe and self._gives_windows:
            self.give_back(self._window.reset())
            self._h2.ping(PROBE)
        call = self._calls.get(event.stream_id)
        if call is None or call.status is not None:
            return
        try:
            call.feed(event.data or b"")
        except RpcError as error:
            self._finish(call, error)

    def _on_trailers(self, event: h2.events.TrailersReceived) -> None:
        if (call := self._calls.get(event.stream_id)) is not None:
            self._end(call, event.headers)

    def _on_stream_ended(self, event: h2.events.StreamEnded) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None and call.status is None:
            words = "server closed the stream without sending trailers"
            self._finish(call, RpcError(StatusCode.INTERNAL, words, method=call.method))

    def _on_reset(self, event: h2.events.StreamReset) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None:
            number = int(event.error_code or 0)
            code = _FROM_RESET.get(number, StatusCode.INTERNAL)
            words = f"stream terminated by RST_STREAM with error code: {number}"
            call.finish(RpcError(code, words, method=call.method))

    def _on_ping_ack(self, event: h2.events.PingAckReceived) -> None:
        if event.ping_data != PROBE:
            return
        limit = self._bdp.measured(trio.current_time())
        if limit is not None:
            for call in self._calls.values():
                call.grow(limit)
            self.stream_limit = limit
            self.give_back(self._window.grow(limit))
            self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: limit})

    def _on_terminated(self, event: h2.events.ConnectionTerminated) -> None:
        self.reason = f"the server said GOAWAY: {event.error_code}, {event.additional_data!r}"

    def _end(self, call: PeerCall, headers: list[tuple[bytes, bytes]]) -> None:
        fields = dict(headers)
        try:
            code = StatusCode(int(fields[b"grpc-status"]))
        except (KeyError, ValueError):
            words = f"malformed or missing grpc-status: {fields.get(b'grpc-status', b'')!r}"
            self._finish(call, RpcError(StatusCode.INTERNAL, words, method=call.method))
            return
        trailers = metadata(headers)
        status = RpcError(
            code,
            unquote(fields.get(b"grpc-message", b"").decode("ascii", "replace")),
            details=from_base64(fields.get(b"grpc-status-details-bin", b"")),
            method=call.method,
            trailers=trailers,
        )
        self._finish(call, status, trailers)

    def _finish(self, call: PeerCall, status: RpcError, trailers: Sequence[tuple[str, str | bytes]] = ()) -> None:
        call.finish(status, trailers)
        if not call.half_closed:
            self._reset(call.stream_id, h2.errors.ErrorCodes.NO_ERROR)


@asynccontextmanager
async def open_peer(
    stream: trio.abc.Stream,
    *,
    user_agent: str = "grpc-go/1.81.1",
    accepts_gzip: bool = True,
    gives_windows: bool = True,
) -> AsyncIterator[Peer]:
    """Be the daemon on ``stream``, which is the peer's from now on, for the length of the block."""
    async with open_nursery() as nursery:
        peer = Peer(stream, user_agent=user_agent, accepts_gzip=accepts_gzip, gives_windows=gives_windows)
        nursery.start_soon(peer.run)
        try:
            yield peer
        finally:
            peer.say_goodbye()
            with trio.move_on_after(limits.GOODBYE_TIMEOUT, shield=True):
                await peer.closed.wait()
            nursery.cancel_scope.cancel()

"""h2, fitted to what we need of it: HTTP/2's states and windows, without its opinions about what a request is.

h2 stays the authority on the states of connection and streams, on windows and on settings. What stands here is how a
frame that does not fit them is answered. h2 ends the connection over most of them; RFC 9113 often wants one stream
reset, sometimes the frame ignored, and now and then another error code. A violation that h2 overlooks is found here
too. Parsing and header blocks have modules of their own (`mobysession.protocol.frames`, `mobysession.protocol.hpack`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import h2.stream
from hyperframe import frame as hyper

from mobysession import limits
from mobysession.protocol import frame_types
from mobysession.protocol.frames import FrameReader
from mobysession.protocol.hpack import HeaderDecoder, HeaderEncoder
from mobysession.protocol.outgoing import Outgoing
from mobysession.protocol.states import RECEIVING, ConnectionStates

if TYPE_CHECKING:
    from collections.abc import Callable

    from h2.stream import H2Stream
    from hyperframe.frame import Frame

    from mobysession.protocol.framing import Buffer
    from mobysession.protocol.hpack import Fields

__all__ = ["Http2", "open_http2"]

_DEFAULT_WINDOW = 65_535
_LAST_STREAM = 2**31 - 1
_Inputs = h2.connection.ConnectionInputs
_StreamInputs = h2.stream.StreamInputs
_Codes = h2.errors.ErrorCodes
_ClosedBy = h2.stream.StreamClosedBy

#: What a frame leads to: frames to answer with, and events.
_Outcome = tuple[list["Frame"], list[h2.events.Event]]


class Http2(Outgoing):
    """One side of an HTTP/2 connection. ``content-length`` and header fields are the business of its owner."""

    MAX_CLOSED_STREAMS = limits.MAX_CLOSED_STREAMS

    def __init__(self, *, client_side: bool, max_header_list: int) -> None:
        super().__init__(
            h2.config.H2Configuration(
                client_side=client_side,
                header_encoding=None,
                # See `mobysession.protocol.headers`.
                validate_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.state_machine = ConnectionStates()
        self.encoder = HeaderEncoder()
        self.decoder = HeaderDecoder(max_header_list)
        # A block is about as long as its list; Huffman codes can make it longer, but no sane encoder uses them then.
        reader = FrameReader(server=not client_side, max_block=2 * max_header_list)
        self.incoming_buffer = self._reader = reader
        self.heads = reader.heads
        self.abuse = reader.abuse
        #: The highest stream that we will answer, as far as the peer was told.
        self._last_stream_id = _LAST_STREAM
        #: What takes each type of frame.
        self._receivers: dict[type[Any], Callable[[Any], _Outcome]] = {
            hyper.DataFrame: self._on_data,
            frame_types.PlainData: self._on_data,
            frame_types.HeadersFrame: self._on_headers,
            frame_types.PlainHeaders: self._on_headers,
            frame_types.PriorityFrame: self._on_priority,
            hyper.RstStreamFrame: self._on_rst_stream,
            frame_types.SettingsFrame: self._on_settings,
            hyper.PingFrame: self._receive_ping_frame,
            hyper.GoAwayFrame: self._on_goaway,
            frame_types.WindowUpdateFrame: self._on_window_update,
            hyper.ContinuationFrame: self._on_continuation,
        }
        self._frame_dispatch_table = dict.fromkeys(self._receivers, self._on_first_frame)

    def forget(self, stream_id: int) -> None:
        """Keep no more of a closed stream than how it was closed."""
        stream = self.streams.get(stream_id)
        if stream is not None and stream.closed:
            del self.streams[stream_id]
            self._closed_streams[stream_id] = stream.closed_by

    def refuse(self, stream_id: int, code: int) -> None:
        """Reset a stream over a frame of the peer's that was malformed, also where that frame has closed it."""
        stream = self.streams.get(stream_id)
        if stream is not None and stream.closed_by is not _ClosedBy.RECV_RST_STREAM:
            self._prepare_for_sending(self._reset(stream, code)[0])

    # -- goodbyes ------------------------------------------------------------------------------------------------------

    def announce_end(self, debug_data: bytes, *, final: bool) -> None:
        """Queue a GOAWAY after which calls go on (section 6.8): first one that refuses nothing, later a final one."""
        if final:
            self._last_stream_id = min(self._last_stream_id, self.highest_inbound_stream_id)
        self._goodbye(_Codes.NO_ERROR, debug_data)

    def end(self, error_code: int, debug_data: bytes = b"") -> None:
        """Queue a GOAWAY after which nothing goes on."""
        self._last_stream_id = min(self._last_stream_id, self.highest_inbound_stream_id)
        self.state_machine.process_input(_Inputs.SEND_GOAWAY)
        self._goodbye(error_code, debug_data)

    def _goodbye(self, error_code: int, debug_data: bytes) -> None:
        frame = hyper.GoAwayFrame(0, self._last_stream_id, error_code, debug_data[: limits.MAX_DEBUG_DATA])
        self._prepare_for_sending([frame])

    # -- frames --------------------------------------------------------------------------------------------------------

    def receive(self, data: Buffer) -> list[h2.events.Event]:
        """Take bytes of the peer and return what they mean; h2's ProtocolError where they end the connection."""
        happened: list[h2.events.Event] = []
        reader = self._reader
        reader.max_frame_size = self.max_inbound_frame_size
        try:
            reader.feed(data)
            for frame in reader:
                answers, events = self._frame_dispatch_table[type(frame)](frame)
                if answers:
                    self._prepare_for_sending(answers)
                happened += events
        except h2.exceptions.ProtocolError as error:
            self.end(error.error_code, str(error).encode())
            raise
        return happened

    def _on_first_frame(self, frame: Frame) -> _Outcome:
        """Take the first frame, which belongs to the preface (section 3.4)."""
        if not isinstance(frame, frame_types.SettingsFrame) or "ACK" in frame.flags:
            raise h2.exceptions.ProtocolError("the preface has no SETTINGS")
        self._frame_dispatch_table = self._receivers
        return self._on_settings(frame)

    def _on_headers(self, frame: frame_types.HeadersFrame | frame_types.PlainHeaders) -> _Outcome:
        stream_id = frame.stream_id
        # Whatever becomes of the stream: the next block builds on this one.
        headers: Fields = self.decoder.decode(frame.data)  # type: ignore[assignment]  # what `__init__` put there
        self.state_machine.process_input(_Inputs.RECV_HEADERS)
        stream = self.streams.get(stream_id)
        if stream is None:
            if not self._is_idle(stream_id):
                return self._discard(stream_id), []
            stream = self._open_stream(stream_id)
            if self._is_refused(stream_id):
                return self._reset(stream, _Codes.REFUSED_STREAM)[0], []
        elif stream.closed:
            return self._discard(stream_id), []
        if frame.depends_on == stream_id:
            return self._reset(stream, _Codes.PROTOCOL_ERROR)
        try:
            return _receive_headers(stream, headers, "END_STREAM" in frame.flags)
        except h2.exceptions.ProtocolError as error:
            # Behind END_STREAM, trailers that end nothing, an interim response that ends the stream.
            return self._reset(stream, error.error_code)

    def _on_data(self, frame: hyper.DataFrame | frame_types.PlainData) -> _Outcome:
        stream_id, size = frame.stream_id, frame.flow_controlled_length
        stream = self.streams.get(stream_id)
        if isinstance(frame, frame_types.PlainData) and frame.parts and not self._takes(stream, size):
            return self._one_by_one(frame)
        self.state_machine.process_input(_Inputs.RECV_DATA)
        self._inbound_flow_control_window_manager.window_consumed(size)
        if stream is None or stream.closed:
            self._must_not_be_idle(stream_id)
            return self._discard(stream_id), [_discarded(stream_id, size)]
        try:
            return stream.receive_data(frame.data, "END_STREAM" in frame.flags, size)
        except h2.exceptions.ProtocolError as error:
            # Behind END_STREAM, more than the stream's window, an answer without headers.
            answers, events = self._reset(stream, error.error_code)
            return answers, [*events, _discarded(stream_id, size)]

    def _takes(self, stream: H2Stream | None, size: int) -> bool:
        """Tell whether ``size`` bytes of DATA break no rule, so that it does not matter which frame they are in."""
        if stream is None or stream.state_machine.state not in RECEIVING:
            return False
        return size <= min(stream.inbound_flow_control_window, self.inbound_flow_control_window)

    def _one_by_one(self, frame: frame_types.PlainData) -> _Outcome:
        happened: list[h2.events.Event] = []
        for one in frame.singly():
            answers, events = self._on_data(one)
            # At once: the next one may end the connection.
            self._prepare_for_sending(answers)
            happened += events
        return [], happened

    def _on_priority(self, frame: frame_types.PriorityFrame) -> _Outcome:
        """Take PRIORITY, which is deprecated and means nothing (section 5.3.2), as long as it is well-formed."""
        if frame.well_sized and frame.depends_on != frame.stream_id:
            return [], []
        code = _Codes.PROTOCOL_ERROR if frame.well_sized else _Codes.FRAME_SIZE_ERROR
        stream = self.streams.get(frame.stream_id)
        if stream is None or stream.closed:
            # There is no stream whose error it could be.
            raise _error("a malformed PRIORITY", code)
        return self._reset(stream, code)

    def _on_rst_stream(self, frame: hyper.RstStreamFrame) -> _Outcome:
        self._must_not_be_idle(frame.stream_id)
        return self._receive_rst_stream_frame(frame)

    def _on_settings(self, frame: frame_types.SettingsFrame) -> _Outcome:
        for setting, value in frame.received:
            self.remote_settings.validate_received_setting(setting, value)
        return self._receive_settings_frame(frame)

    def _on_window_update(self, frame: frame_types.WindowUpdateFrame) -> _Outcome:
        if frame.window_increment:
            return self._receive_window_update_frame(frame)
        if not frame.stream_id:
            raise h2.exceptions.ProtocolError("a WINDOW_UPDATE of 0")
        self._must_not_be_idle(frame.stream_id)
        stream = self.streams.get(frame.stream_id)
        if stream is None or stream.closed:
            return [], []
        return self._reset(stream, _Codes.PROTOCOL_ERROR)

    def _on_goaway(self, frame: hyper.GoAwayFrame) -> _Outcome:
        """Take the other side's goodbye, around h2, which would stop: calls in flight go on to their ends (6.8)."""
        event = h2.events.ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id & _LAST_STREAM
        event.additional_data = frame.additional_data
        return [], [event]

    def _on_continuation(self, frame: hyper.ContinuationFrame) -> _Outcome:
        raise h2.exceptions.ProtocolError("a CONTINUATION without HEADERS")

    # -- streams -------------------------------------------------------------------------------------------------------

    def _open_stream(self, stream_id: int) -> H2Stream:
        if self.config.client_side:
            raise h2.exceptions.ProtocolError("a stream opened by a server")
        return self._begin_new_stream(stream_id, h2.connection.AllowedStreamIDs.ODD)

    def _begin_new_stream(self, stream_id: int, allowed_ids: Any) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream._initialize_content_length = _no_length  # type: ignore[method-assign,assignment]  # see the class
        return stream

    def _is_refused(self, stream_id: int) -> bool:
        """Tell whether a stream that was just opened is one too many."""
        if stream_id > self._last_stream_id:
            return True
        limit = self.local_settings.max_concurrent_streams
        # Counting is slow, and the dictionary may hold closed streams, but never less than the open ones.
        return len(self.streams) > limit and self.open_inbound_streams >= limit

    def _is_idle(self, stream_id: int) -> bool:
        """Tell whether nothing was said yet on a stream."""
        outbound = self._stream_id_is_outbound(stream_id)
        return stream_id > (self.highest_outbound_stream_id if outbound else self.highest_inbound_stream_id)

    def _must_not_be_idle(self, stream_id: int) -> None:
        if self._is_idle(stream_id):
            raise h2.exceptions.ProtocolError(f"a frame on stream {stream_id}, which is idle")

    def _reset(self, stream: H2Stream, code: int) -> _Outcome:
        """End a stream over what the peer did on it (section 5.4.2)."""
        stream.state_machine.state = h2.stream.StreamState.CLOSED
        stream.state_machine.stream_closed_by = _ClosedBy.SEND_RST_STREAM
        self.forget(stream.stream_id)
        event = h2.events.StreamReset(stream_id=stream.stream_id, error_code=code, remote_reset=False)
        return [hyper.RstStreamFrame(stream.stream_id, code)], [event]

    def _discard(self, stream_id: int) -> list[Frame]:
        """Answer HEADERS or DATA on a closed stream (section 5.1): it depends on how the stream was closed."""
        closed_by = self._stream_closed_by(stream_id)
        if closed_by is _ClosedBy.SEND_RST_STREAM:
            # Our RST_STREAM is still on its way to the peer.
            return []
        if closed_by is _ClosedBy.RECV_RST_STREAM:
            return [hyper.RstStreamFrame(stream_id, _Codes.STREAM_CLOSED)]
        if closed_by is None:
            raise h2.exceptions.ProtocolError(f"a frame on stream {stream_id}, which was passed over")
        raise _error(f"a frame on stream {stream_id}, which is closed", _Codes.STREAM_CLOSED)


def _receive_headers(stream: H2Stream, headers: Fields, end_stream: bool) -> _Outcome:
    """Do what h2 does with a header list, the shorter way where the list is known (`Fields`) to be a request's."""
    if headers.notes is None or stream.state_machine.state is not h2.stream.StreamState.IDLE:
        answers, happened = stream.receive_headers(headers, end_stream, None)
        received = happened[0]
        if isinstance(received, h2.events.RequestReceived) and len(received.headers) == len(headers):
            # Else h2 has joined cookies.
            received.headers = headers
        return answers, happened
    happened = stream.state_machine.process_input(_StreamInputs.RECV_HEADERS)
    received = happened[0]
    assert isinstance(received, h2.events.RequestReceived)
    received.headers = headers
    if end_stream:
        ended = stream.state_machine.process_input(_StreamInputs.RECV_END_STREAM)
        received.stream_ended = ended[0]  # type: ignore[assignment]  # what h2 puts there
        happened += ended
    return [], happened


def _no_length(_headers: Any) -> None:
    return None


def _error(text: str, code: int) -> h2.exceptions.ProtocolError:
    error = h2.exceptions.ProtocolError(text)
    error.error_code = h2.errors.ErrorCodes(code)
    return error


def _discarded(stream_id: int, size: int) -> h2.events.DataReceived:
    """Return the event that lets the owner give back the window of DATA that goes nowhere."""
    return h2.events.DataReceived(stream_id=stream_id, data=b"", flow_controlled_length=size)


def open_http2(*, client_side: bool) -> Http2:
    """Return one side of a connection, with our settings and our window queued for the peer."""
    codes = h2.settings.SettingCodes
    header_list = limits.MAX_RESPONSE_HEADER_LIST if client_side else limits.MAX_HEADER_LIST
    wanted = {
        codes.INITIAL_WINDOW_SIZE: limits.STREAM_WINDOW,
        codes.MAX_FRAME_SIZE: limits.MAX_FRAME,
        codes.MAX_HEADER_LIST_SIZE: header_list,
        codes.MAX_CONCURRENT_STREAMS: limits.MAX_CONCURRENT_STREAMS,
        codes.ENABLE_PUSH: 0,
    }
    connection = Http2(client_side=client_side, max_header_list=header_list)
    connection.local_settings = h2.settings.Settings(client=client_side, initial_values=wanted)
    connection.max_inbound_frame_size = limits.MAX_FRAME
    connection.initiate_connection()
    connection.increment_flow_control_window(limits.CONNECTION_WINDOW - _DEFAULT_WINDOW)
    return connection

"""h2, fitted to what we need of it: HTTP/2's states and frames, without its opinions about what a request is.

h2 stays the authority on states, windows and header compression. What is replaced here is what it decides for whole
connections although RFC 9113 decides it for one stream, what `mobysession.protocol.headers` and the connections of
this room check themselves, and work that is done for every frame and that nobody uses.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.frame_buffer
import h2.settings

from mobysession import limits

if TYPE_CHECKING:
    from mobysession.protocol.frame_heads import Noted

__all__ = ["Http2", "open_http2"]

_DEFAULT_WINDOW = 65_535


class _Machine(h2.connection.H2ConnectionStateMachine):  # type: ignore[misc,unused-ignore]  # h2 is typed, its stubs vary
    """h2's connection states, but open after a GOAWAY: calls in flight go on to their ends (RFC 9113 section 6.8)."""

    def process_input(self, input_: h2.connection.ConnectionInputs) -> list[Any]:
        if input_ is h2.connection.ConnectionInputs.RECV_GOAWAY:
            return []
        return super().process_input(input_)


class _Frames(h2.frame_buffer.FrameBuffer):
    """h2's frame parser, without the hexadecimal copy of every frame that h2 makes for a log nobody reads."""

    def __init__(self, *, server: bool) -> None:
        super().__init__(server)
        #: The heads of the latest frames; see `mobysession.protocol.frame_heads`.
        self.heads: deque[Noted] = deque(maxlen=limits.RECENT_FRAMES)

    def __next__(self) -> Any:
        frame = super().__next__()
        frame._body_repr = _no_body  # type: ignore[method-assign]  # what repr(frame) calls, its only use
        return frame

    def _update_header_buffer(self, f: Any) -> Any:
        # Where every frame passes as it came, before those of one header block become one.
        self.heads.append((f.type, f.stream_id, f.body_len, f.flags))
        return super()._update_header_buffer(f)


def _no_body() -> str:
    return ""


class Http2(h2.connection.H2Connection):
    """h2's connection, which leaves ``content-length`` to us: it would end all calls over the one that is malformed."""

    def __init__(self, *, client_side: bool) -> None:
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
        self.state_machine = _Machine()
        self.incoming_buffer = frames = _Frames(server=not client_side)
        self.heads = frames.heads

    @property
    def ended(self) -> bool:
        """True once a GOAWAY of ours has ended everything."""
        return self.state_machine.state is h2.connection.ConnectionState.CLOSED

    def _begin_new_stream(self, stream_id: int, allowed_ids: Any) -> Any:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream._initialize_content_length = _no_length  # type: ignore[method-assign,assignment]  # `GrpcConnection` checks
        return stream


def _no_length(_headers: Any) -> None:
    return None


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
    connection = Http2(client_side=client_side)
    connection.local_settings = h2.settings.Settings(client=client_side, initial_values=wanted)
    connection.max_inbound_frame_size = limits.MAX_FRAME
    connection.decoder.max_header_list_size = header_list
    connection.initiate_connection()
    connection.increment_flow_control_window(limits.CONNECTION_WINDOW - _DEFAULT_WINDOW)
    return connection

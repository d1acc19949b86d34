"""What h2 says, without the detours: frames that are sent all the time are put together here, with h2's states.

For one frame of DATA, h2 makes an object, copies the bytes five times and writes log lines that nobody reads; the two
header blocks of a call that went well are compressed anew for each call, although they never change. What decides
whether a frame may be sent stays h2's: its two state machines and its windows are asked, and told, as h2 does it.
Everything else goes through h2 itself.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

import h2.connection
import h2.exceptions
from h2.connection import ConnectionInputs
from h2.stream import StreamInputs

from mobysession.protocol.states import SENDING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from h2.stream import H2Stream
    from hyperframe.frame import Frame

    from mobysession.protocol.framing import Buffer

__all__ = ["OK_TRAILERS", "RESPONSE", "Outgoing"]

#: How every response of gRPC begins, and how one that went well ends.
RESPONSE = ((b":status", b"200"), (b"content-type", b"application/grpc"))
OK_TRAILERS = ((b"grpc-status", b"0"),)

#: The same as header blocks that neither need a dynamic table nor change one (RFC 7541 section 6.2.2): each is the same
#: bytes at any time. 0x88 stands for the status, 0x0F 0x10 for the name content-type (appendix A, 8 and 31).
_BLOCKS = {
    RESPONSE: b"\x88\x0f\x10\x10application/grpc",
    OK_TRAILERS: b"\x00\x0bgrpc-status\x010",
}

_HEAD = Struct(">HBBBL")
_DATA, _HEADERS = 0, 1
_END_STREAM, _END_HEADERS = 1, 4


class Outgoing(h2.connection.H2Connection):
    """The half of an HTTP/2 connection that speaks."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        #: What waits to be taken: bytes and views, in order.
        self._pieces: list[Buffer] = []

    @property
    def has_pieces(self) -> bool:
        """True while there is something to `take`."""
        return bool(self._pieces)

    def take(self) -> list[Buffer]:
        """Return what is to be sent, in pieces, and forget it."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def data_to_send(self, amount: int | None = None) -> bytes:
        """Return what is to be sent, as h2 does; all of it, for nobody here asks for less."""
        return b"".join(self.take())

    def initiate_connection(self) -> None:
        """Queue the preface, which h2 puts into its own buffer."""
        super().initiate_connection()
        self._pieces.append(super().data_to_send())

    def clear_outbound_data_buffer(self) -> None:
        """Forget what is to be sent."""
        self._pieces = []

    def _prepare_for_sending(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._pieces.append(frame.serialize())
            if frame.body_len > self.max_outbound_frame_size:
                raise h2.exceptions.FrameTooLargeError(f"a frame of {frame.body_len} bytes")

    def send_fields(self, stream_id: int, fields: Sequence[tuple[bytes, bytes]], *, end_stream: bool = False) -> None:
        """Send header fields on a stream, as h2's ``send_headers``, from a constant block where there is one."""
        block = _BLOCKS.get(tuple(fields)) if len(fields) <= 2 else None
        stream = self.streams.get(stream_id)
        if block is None or stream is None or self.encoder.table_size_changes:
            # Only the encoder can tell the peer that the table has a new size, in the first block after the change.
            self.send_headers(stream_id, list(fields), end_stream=end_stream)
            return
        self.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
        states = stream.state_machine
        states.process_input(StreamInputs.SEND_HEADERS)
        if end_stream:
            states.process_input(StreamInputs.SEND_END_STREAM)
        elif states.trailers_sent:
            raise h2.exceptions.ProtocolError("trailers that do not end the stream")
        flags = _END_HEADERS | _END_STREAM if end_stream else _END_HEADERS
        self._pieces.append(_HEAD.pack(0, len(block), _HEADERS, flags, stream_id) + block)

    def sendable(self, stream: H2Stream, reserve: int) -> int:
        """Return how many bytes of DATA the windows of ``stream`` and of the connection let through.

        ``reserve`` bytes of the connection's are left alone; below 0 where a window was shrunk.
        """
        return min(stream.outbound_flow_control_window, self.outbound_flow_control_window - reserve)

    def send_slice(self, stream: H2Stream, pieces: Sequence[memoryview], size: int) -> None:
        """Send DATA of ``size`` bytes, in as many frames as that takes, on a stream that goes on; nothing is copied.

        Raises:
            h2.exceptions.ProtocolError: it is more than `sendable` says, or there is no state to send it in.
        """
        if size > stream.outbound_flow_control_window or size > self.outbound_flow_control_window:
            raise h2.exceptions.FlowControlError(f"{size} bytes of DATA; {self.sendable(stream, 0)} are allowed")
        # Once for all: the state after a frame of DATA is the state before it.
        self.state_machine.process_input(ConnectionInputs.SEND_DATA)
        if stream.state_machine.state not in SENDING:
            # There h2 says what is wrong.
            stream.state_machine.process_input(StreamInputs.SEND_DATA)
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size
        largest = self.max_outbound_frame_size
        if size <= largest:
            self._pieces.append(_HEAD.pack(size >> 8, size & 0xFF, _DATA, 0, stream.stream_id))
            self._pieces += pieces
        else:
            self._cut(pieces, size, largest, stream.stream_id)

    def _cut(self, pieces: Sequence[memoryview], size: int, largest: int, stream_id: int) -> None:
        """Add the heads and the bodies of frames of at most ``largest`` bytes that hold ``pieces``."""
        add, pack = self._pieces.append, _HEAD.pack
        full = pack(largest >> 8, largest & 0xFF, _DATA, 0, stream_id)
        room = 0
        for piece in pieces:
            start, end = 0, len(piece)
            while start < end:
                if not room:
                    if size >= largest:
                        room = largest
                        add(full)
                    else:
                        room = size
                        add(pack(size >> 8, size & 0xFF, _DATA, 0, stream_id))
                    size -= room
                stop = start + room
                if stop > end:
                    stop = end
                add(piece[start:stop])
                room -= stop - start
                start = stop

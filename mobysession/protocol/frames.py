"""Bytes of the peer cut into frames, with the size rules of each type (RFC 9113 sections 4 and 6).

A frame that is too long is refused by its header, before its bytes are waited for. What an endpoint has to ignore
(types, flags and settings that it does not know, the reserved bit) goes no further than this file. HEADERS and its
CONTINUATION frames come out as one.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

import h2.exceptions
import h2.frame_buffer
import h2.settings
from hyperframe import exceptions
from hyperframe import frame as hyper

from mobysession import limits
from mobysession.protocol.abuse import Abuse

if TYPE_CHECKING:
    from hyperframe.frame import Frame

    from mobysession.protocol.frame_heads import Noted

__all__ = ["FrameReader", "HeadersFrame", "PlainData", "PlainHeaders", "PriorityFrame", "SettingsFrame"]
__all__ += ["WindowUpdateFrame"]

_HEADER = struct.Struct(">HBBBL")
_LONG = struct.Struct(">L")
_SETTING = struct.Struct(">HL")
#: All bits of a stream ID or an increment but the reserved one, which means nothing.
_VALUE = 0x7FFFFFFF
_PUSH_PROMISE = 5
_KNOWN_SETTINGS = frozenset(map(int, h2.settings.SettingCodes))


class _Plain:
    """A frame without padding and priority, as nearly all are; what is asked of it is what is asked of hyperframe's."""

    __slots__ = ("data", "flags", "flow_controlled_length", "stream_id")

    depends_on = 0

    def __init__(self, stream_id: int, data: bytes, flags: frozenset[str]) -> None:
        self.stream_id = stream_id
        self.data = data
        self.flags = flags
        self.flow_controlled_length = len(data)


class PlainData(_Plain):
    """DATA."""

    __slots__ = ()


class PlainHeaders(_Plain):
    """HEADERS with a whole block."""

    __slots__ = ()


class HeadersFrame(hyper.HeadersFrame):
    """HEADERS, padded by at most what its fields leave (section 6.2)."""

    def parse_body(self, data: memoryview) -> None:
        """Take the frame's payload."""
        start, end = 0, len(data)
        self.body_len = end
        if "PADDED" in self.flags:
            if not end:
                raise exceptions.InvalidFrameError("HEADERS without the length of its padding")
            self.pad_length = data[0]
            start, end = 1, end - self.pad_length
        if "PRIORITY" in self.flags:
            if self.body_len - start < 5:
                raise exceptions.InvalidFrameError("HEADERS without its priority")
            self.depends_on = _LONG.unpack_from(data, start)[0] & _VALUE
            start += 5
        if end < start:
            raise exceptions.InvalidDataError("HEADERS with more padding than it has room for")
        self.data = bytes(data[start:end])


class PriorityFrame(hyper.PriorityFrame):
    """PRIORITY, which is parsed although its size is wrong, because that concerns its stream only (section 6.3)."""

    well_sized = True

    def parse_body(self, data: memoryview) -> None:
        """Take the frame's payload."""
        self.body_len = len(data)
        self.well_sized = len(data) == 5
        if self.well_sized:
            self.depends_on = _LONG.unpack_from(data)[0] & _VALUE


class SettingsFrame(hyper.SettingsFrame):
    """SETTINGS, whose values are kept in their order: each must be valid, also one that the next replaces."""

    def __init__(self, stream_id: int) -> None:
        super().__init__(stream_id)
        self.received: list[tuple[int, int]] = []

    def parse_body(self, data: memoryview) -> None:
        """Take the frame's payload."""
        self.body_len = len(data)
        if len(data) % _SETTING.size or (len(data) and "ACK" in self.flags):
            raise exceptions.InvalidFrameError(f"SETTINGS of {len(data)} bytes")
        if len(data) > limits.MAX_SETTINGS * _SETTING.size:
            raise h2.exceptions.DenialOfServiceError(f"{len(data) // _SETTING.size} settings at once")
        self.received = [pair for pair in _SETTING.iter_unpack(data) if pair[0] in _KNOWN_SETTINGS]
        self.settings = dict(self.received)


class WindowUpdateFrame(hyper.WindowUpdateFrame):
    """WINDOW_UPDATE, whose increment may be 0, because that may concern its stream only (section 6.9)."""

    def parse_body(self, data: memoryview) -> None:
        """Take the frame's payload."""
        self.body_len = len(data)
        try:
            self.window_increment = _LONG.unpack(data)[0] & _VALUE
        except struct.error:
            raise exceptions.InvalidFrameError(f"WINDOW_UPDATE of {len(data)} bytes") from None


_NO_FLAGS: frozenset[str] = frozenset()
_ENDS = frozenset(("END_STREAM",))
#: By type and flags, what becomes of a frame whose payload is nothing but data or a whole header block.
_PLAIN: dict[tuple[int, int], tuple[type[_Plain], frozenset[str]]] = {
    (0, 0): (PlainData, _NO_FLAGS),
    (0, 1): (PlainData, _ENDS),
    (1, 4): (PlainHeaders, _NO_FLAGS),
    (1, 5): (PlainHeaders, _ENDS),
}


class FrameReader(h2.frame_buffer.FrameBuffer):
    """Frames out of bytes. Iterate after `add_data`.

    Raises:
        h2.exceptions.ProtocolError: the bytes break a rule whose breach ends the connection.
    """

    _TYPES: ClassVar[dict[int, type[Frame]]] = {
        0: hyper.DataFrame,
        1: HeadersFrame,
        2: PriorityFrame,
        3: hyper.RstStreamFrame,
        4: SettingsFrame,
        6: hyper.PingFrame,
        7: hyper.GoAwayFrame,
        8: WindowUpdateFrame,
        9: hyper.ContinuationFrame,
    }

    def __init__(self, *, server: bool, max_block: int) -> None:
        super().__init__(server=server)
        #: What came last, for diagnosis; see `mobysession.protocol.frame_heads`.
        self.heads: deque[Noted] = deque(maxlen=limits.RECENT_FRAMES)
        #: What the peer has cost so far.
        self.abuse = Abuse()
        self._max_block = max_block
        self._block_size = 0

    def __next__(self) -> Any:
        data = self._data
        while len(data) >= 9:
            high, low, kind, flags, stream_id = _HEADER.unpack_from(data)
            length = high << 8 | low
            if length > self.max_frame_size:
                raise h2.exceptions.FrameTooLargeError(f"a frame of {length} bytes; {self.max_frame_size} are allowed")
            end = 9 + length
            if len(data) < end:
                break
            self.heads.append((kind, stream_id & _VALUE, length, flags))
            self.abuse.frame(kind, length)
            frame = self._parse(kind, flags, stream_id & _VALUE, end)
            del data[:end]
            if frame is not None:
                return frame
        raise StopIteration

    def _parse(self, kind: int, flags: int, stream_id: int, end: int) -> Frame | _Plain | None:
        if stream_id and not self._headers_buffer and (kind, flags) in _PLAIN:
            plain_type, names = _PLAIN[kind, flags]
            with memoryview(self._data) as whole:
                return plain_type(stream_id, bytes(whole[9:end]), names)
        frame_type = self._TYPES.get(kind)
        if frame_type is None:
            if kind == _PUSH_PROMISE:
                # No client may promise anything, and no server may do it to us: our SETTINGS say so.
                raise h2.exceptions.ProtocolError("a PUSH_PROMISE")
            if self._headers_buffer:
                raise h2.exceptions.ProtocolError("a frame of unknown type within a header block")
            return None
        try:
            frame = frame_type(stream_id)
            frame.parse_flags(flags)
            with memoryview(self._data) as whole, whole[9:end] as body:
                frame.parse_body(body)
        except exceptions.InvalidFrameError as error:
            raise h2.exceptions.FrameDataMissingError(str(error)) from error
        except (exceptions.InvalidDataError, exceptions.InvalidPaddingError) as error:
            raise h2.exceptions.ProtocolError(str(error)) from error
        if self._headers_buffer or kind == 1 or kind == 9:
            return self._join(frame)
        return frame

    def _join(self, frame: Frame) -> Frame | None:
        """Return a HEADERS frame with its whole block; None while it is not whole."""
        parts = self._headers_buffer
        if not parts:
            if not isinstance(frame, HeadersFrame) or "END_HEADERS" in frame.flags:
                return frame
            self._block_size = 0
        elif not isinstance(frame, hyper.ContinuationFrame) or frame.stream_id != parts[0].stream_id:
            raise h2.exceptions.ProtocolError("a frame within the header block of another")
        parts.append(frame)
        self._block_size += len(frame.data)
        if self._block_size > self._max_block or len(parts) > limits.MAX_CONTINUATIONS + self._block_size // limits.KIB:
            raise h2.exceptions.DenialOfServiceError(
                f"a header block of more than {self._block_size} bytes in {len(parts)} frames"
            )
        if "END_HEADERS" not in frame.flags:
            return None
        whole = parts[0]
        whole.data = b"".join(part.data for part in parts)
        self._headers_buffer = []
        return whole

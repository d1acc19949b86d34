"""Bytes of the peer cut into frames, with the size rules of each type (RFC 9113 sections 4 and 6).

A frame that is too long is refused by its header, before its bytes are waited for. What an endpoint has to ignore
(types, flags and settings that it does not know, the reserved bit) goes no further than this file and
`mobysession.protocol.frame_types`. HEADERS and its CONTINUATION frames come out as one, and so does DATA in a row.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

import h2.exceptions
import h2.frame_buffer
from hyperframe import exceptions
from hyperframe import frame as hyper

from mobysession import limits
from mobysession.protocol.abuse import Abuse
from mobysession.protocol.frame_types import (
    ENDS,
    PLAIN,
    HeadersFrame,
    Plain,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

if TYPE_CHECKING:
    from hyperframe.frame import Frame

    from mobysession.protocol.frame_heads import Noted
    from mobysession.protocol.framing import Buffer

__all__ = ["FrameReader"]

_HEADER = struct.Struct(">HBBBL")
_HEAD = _HEADER.size
#: All bits of a stream ID but the reserved one, which means nothing.
_VALUE = 0x7FFFFFFF
_PUSH_PROMISE = 5
#: Bytes from which on a view costs less than a copy.
_WORTH_A_VIEW = 2 * limits.KIB


class FrameReader(h2.frame_buffer.FrameBuffer):
    """Frames out of bytes. Iterate after `feed`, to the end.

    Frames of plain DATA that follow each other on one stream come out as one `PlainData`.

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
        #: What is read now, from where on, and what comes after it. The beginning of a frame waits in h2's ``_data``.
        self._bytes = b""
        self._at = 0
        self._next = b""

    def feed(self, data: Buffer) -> None:
        """Take bytes of the peer; nothing of what was given before may be left unread but the beginning of a frame."""
        if self._preamble_len:
            self.add_data(data)
            data = b""
        data, begun = bytes(data), self._data
        if not begun:
            self._bytes, self._at = data, 0
            return
        # Only the frame that has begun is copied, to be in one piece with its rest.
        missing = _HEAD - len(begun)
        if missing <= len(data):
            head = bytes(begun[:_HEAD]) + data[: max(0, missing)]
            missing += int.from_bytes(head[:3], "big")
        begun += data[:missing]
        self._bytes, self._at, self._next = bytes(begun), 0, data[missing:]
        begun.clear()

    def __next__(self) -> Any:
        while True:
            data, at = self._bytes, self._at
            if len(data) - at < _HEAD:
                break
            high, low, kind, flags, stream_id = _HEADER.unpack_from(data, at)
            length = high << 8 | low
            if length > self.max_frame_size:
                raise h2.exceptions.FrameTooLargeError(f"a frame of {length} bytes; {self.max_frame_size} are allowed")
            start = at + _HEAD
            end = start + length
            if len(data) < end:
                break
            stream_id &= _VALUE
            self.heads.append((kind, stream_id, length, flags))
            self.abuse.frame(kind, length)
            self._at = end
            if (kind, flags) in PLAIN and stream_id and not self._headers_buffer:
                plain_type, names = PLAIN[kind, flags]
                plain = plain_type(stream_id, data[start:end], names)
                return self._with_followers(plain) if not kind and not flags else plain
            frame = self._parse(kind, flags, stream_id, memoryview(data)[start:end])
            if frame is not None:
                return frame
        self._data += memoryview(self._bytes)[self._at :]
        self._bytes, self._at, self._next = self._next, 0, b""
        if self._bytes:
            return self.__next__()
        raise StopIteration

    def _with_followers(self, first: Plain) -> Plain:
        """Return ``first`` with the DATA behind it that belongs to the same stream and is nothing but data."""
        data, at = self._bytes, self._at
        whole = memoryview(data)
        stream_id = first.stream_id
        parts: list[Buffer] = [first.data]
        while len(data) - at >= _HEAD:
            high, low, kind, flags, next_id = _HEADER.unpack_from(data, at)
            length = high << 8 | low
            start = at + _HEAD
            if kind or flags > 1 or next_id & _VALUE != stream_id or length > self.max_frame_size:
                break
            if length > len(data) - start:
                break
            at = start + length
            self.heads.append((0, stream_id, length, flags))
            self.abuse.frame(0, length)
            parts.append(whole[start:at] if length > _WORTH_A_VIEW else data[start:at])
            if flags:
                first.flags = ENDS
                break
        if len(parts) > 1:
            self._at = at
            first.parts = parts
            first.data = b"".join(parts)
            first.flow_controlled_length = len(first.data)
        return first

    def _parse(self, kind: int, flags: int, stream_id: int, body: memoryview) -> Frame | None:
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

"""The types of HTTP/2 frames that hyperframe does not have as we need them (RFC 9113 section 6).

DATA and HEADERS come plain, nearly always, and must cost little. Of the others some are taken although their size or
their value is wrong, because that concerns one stream only, and it is not for a parser to say so.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import h2.exceptions
import h2.settings
from hyperframe import exceptions
from hyperframe import frame as hyper

from mobysession import limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mobysession.protocol.framing import Buffer

__all__ = ["ENDS", "PLAIN", "Plain", "PlainData", "PlainHeaders"]
__all__ += ["HeadersFrame", "PriorityFrame", "SettingsFrame", "WindowUpdateFrame"]

_LONG = struct.Struct(">L")
_SETTING = struct.Struct(">HL")
#: All bits of a stream ID or an increment but the reserved one, which means nothing.
_VALUE = 0x7FFFFFFF
_KNOWN_SETTINGS = frozenset(map(int, h2.settings.SettingCodes))


class Plain:
    """A frame without padding and priority, as nearly all are; what is asked of it is what is asked of hyperframe's."""

    __slots__ = ("data", "flags", "flow_controlled_length", "parts", "stream_id")

    depends_on = 0

    def __init__(self, stream_id: int, data: bytes, flags: frozenset[str]) -> None:
        self.stream_id = stream_id
        self.data = data
        self.flags = flags
        self.flow_controlled_length = len(data)
        #: What each frame has, where this stands for several.
        self.parts: Sequence[Buffer] = ()


class PlainData(Plain):
    """DATA, of one frame or of several that follow each other on a stream."""

    __slots__ = ()

    def singly(self) -> Iterator[PlainData]:
        """Yield each frame by itself."""
        last = len(self.parts) - 1
        for number, data in enumerate(self.parts):
            yield PlainData(self.stream_id, bytes(data), self.flags if number == last else _NO_FLAGS)


class PlainHeaders(Plain):
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
ENDS = frozenset(("END_STREAM",))
#: By type and flags, what becomes of a frame whose payload is nothing but data or a whole header block.
PLAIN: dict[tuple[int, int], tuple[type[Plain], frozenset[str]]] = {
    (0, 0): (PlainData, _NO_FLAGS),
    (0, 1): (PlainData, ENDS),
    (1, 4): (PlainHeaders, _NO_FLAGS),
    (1, 5): (PlainHeaders, ENDS),
}

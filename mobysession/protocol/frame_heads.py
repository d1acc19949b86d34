"""The heads of HTTP/2 frames, for whoever wants to know what was said last: no bodies, so no secrets.

They are noted on the hot path and put into words only when somebody asks: what the peer said as the fields that h2's
parser has read anyway, what we said as the bytes themselves (`mobysession.rpc.traffic`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    #: What the parser notes: type, stream, length and flags, and between them the times of the reads.
    Noted = float | tuple[int, int, int, int]

__all__ = ["FrameHead", "parse_heads"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD = 9
#: RFC 9113 section 6, in the order of their numbers.
_TYPES = (
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
)
#: Names of the flags' bits, by the types that have them (RFC 9113 section 6).
_FLAGS = {
    0: {0x1: "END_STREAM", 0x8: "PADDED"},
    1: {0x1: "END_STREAM", 0x4: "END_HEADERS", 0x8: "PADDED", 0x20: "PRIORITY"},
    4: {0x1: "ACK"},
    5: {0x4: "END_HEADERS", 0x8: "PADDED"},
    6: {0x1: "ACK"},
    9: {0x4: "END_HEADERS"},
}


class FrameHead(NamedTuple):
    """What stands before the body of a frame; ``length`` is the body's, in bytes, ``flags`` are in order of name."""

    type: str
    stream_id: int
    length: int
    flags: tuple[str, ...]

    @classmethod
    def of(cls, number: int, stream_id: int, length: int, flags: int) -> FrameHead:
        """Return a head whose type and flags are given as they stand in the frame."""
        name = _TYPES[number] if number < len(_TYPES) else f"type {number}"
        names = sorted(name for bit, name in _FLAGS.get(number, {}).items() if flags & bit)
        return cls(name, stream_id, length, tuple(names))


def parse_heads(data: bytes) -> Iterator[FrameHead]:
    """Yield the heads of the whole frames that ``data`` consists of, behind a client's preface where it has one."""
    position = len(_PREFACE) if data.startswith(_PREFACE) else 0
    while position + _HEAD <= len(data):
        length = int.from_bytes(data[position : position + 3], "big")
        stream_id = int.from_bytes(data[position + 5 : position + _HEAD], "big") & 0x7FFFFFFF
        yield FrameHead.of(data[position + 3], stream_id, length, data[position + 4])
        position += _HEAD + length

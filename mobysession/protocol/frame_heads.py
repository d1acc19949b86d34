"""The heads of HTTP/2 frames, for whoever wants to know what was said last: no bodies, so no secrets.

They are noted on the hot path and put into words only when somebody asks: what the peer said as the fields that h2's
parser has read anyway, what we said as the bytes themselves (`mobysession.rpc.traffic`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    #: What the parser notes: type, stream, length and flags, and between them the times of the reads.
    Noted = float | tuple[int | None, int, int, Collection[str]]

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
    def of(cls, number: int | None, stream_id: int, length: int, flags: Collection[str]) -> FrameHead:
        """Return a head whose type is given by its number, and its flags by their names."""
        known = number is not None and number < len(_TYPES)
        return cls(_TYPES[number or 0] if known else f"type {number}", stream_id, length, tuple(sorted(flags)))


def parse_heads(data: bytes) -> Iterator[FrameHead]:
    """Yield the heads of the whole frames that ``data`` consists of, behind a client's preface where it has one."""
    position = len(_PREFACE) if data.startswith(_PREFACE) else 0
    while position + _HEAD <= len(data):
        length = int.from_bytes(data[position : position + 3], "big")
        number, bits = data[position + 3], data[position + 4]
        stream_id = int.from_bytes(data[position + 5 : position + _HEAD], "big") & 0x7FFFFFFF
        flags = [name for bit, name in _FLAGS.get(number, {}).items() if bits & bit]
        yield FrameHead.of(number, stream_id, length, flags)
        position += _HEAD + length

"""RFC 9113 section 4: the form and the size of frames."""

from __future__ import annotations

import struct

import pytest

from mobysession import limits
from mobysession.protocol import events
from tests.protocol.wire import (
    END_HEADERS,
    FINE,
    REQUEST,
    Case,
    Code,
    Talk,
    Type,
    block,
    case,
    connection_error,
    data,
    frame,
    goaway,
    over,
    ping,
    priority,
    request,
    rst_stream,
    settings,
    try_core,
    window_update,
)

TOO_LONG = connection_error(Code.FRAME_SIZE_ERROR)
_RESERVED = 0x80000000


def head(kind: int, length: int, stream_id: int = 0, flags: int = 0) -> bytes:
    """Return the first 9 bytes of a frame, whose payload never comes."""
    return struct.pack(">HBBBL", length >> 8, length & 0xFF, kind, flags, stream_id)


CASES = [
    case("4.1", "a frame of unknown type is ignored", frame(Type.UNKNOWN, 0, b"what"), verdict=FINE),
    case("4.1", "also on a stream", request() + frame(Type.UNKNOWN, 1, b"what", 0xFF), verdict=FINE),
    case("4.1", "also on an idle stream", frame(Type.UNKNOWN, 7), verdict=FINE),
    case("4.1", "and so are types that extensions define", frame(0xA, 1) + frame(0x10) + frame(0xC), verdict=FINE),
    case("4.1", "unknown flags are ignored", frame(Type.PING, 0, b"12345678", 0xFE), verdict=FINE),
    case("4.1", "the reserved bit is ignored", frame(Type.PING, _RESERVED, b"12345678"), verdict=FINE),
    case(
        "4.1",
        "the reserved bit is ignored on streams",
        frame(Type.HEADERS, _RESERVED | 1, block(*REQUEST), END_HEADERS) + data(_RESERVED | 1),
        verdict=FINE,
    ),
    case("4.2", "all of the announced size is taken", frame(Type.UNKNOWN, 0, bytes(limits.MAX_FRAME)), verdict=FINE),
    *(
        case("4.2", f"{name} over the announced size ends the connection", first, verdict=TOO_LONG)
        for name, first in (
            ("HEADERS", head(Type.HEADERS, limits.MAX_FRAME + 1, 1, END_HEADERS)),
            ("DATA", request() + head(Type.DATA, limits.MAX_FRAME + 1, 1)),
            ("an unknown frame", head(Type.UNKNOWN, 2**24 - 1)),
            ("SETTINGS", head(Type.SETTINGS, limits.MAX_FRAME + 2)),
        )
    ),
    *(
        case("4.2", f"{name} of {size} bytes ends the connection", first, verdict=TOO_LONG)
        for name, size, first in (
            ("RST_STREAM", 3, request() + frame(Type.RST_STREAM, 1, bytes(3))),
            ("RST_STREAM", 5, request() + frame(Type.RST_STREAM, 1, bytes(5))),
            ("PING", 7, ping(bytes(7))),
            ("PING", 9, ping(bytes(9))),
            ("SETTINGS", 5, frame(Type.SETTINGS, 0, bytes(5))),
            ("SETTINGS", 7, frame(Type.SETTINGS, 0, bytes(7))),
            ("GOAWAY", 7, frame(Type.GOAWAY, 0, bytes(7))),
            ("WINDOW_UPDATE", 3, frame(Type.WINDOW_UPDATE, 0, bytes(3))),
            ("WINDOW_UPDATE", 5, frame(Type.WINDOW_UPDATE, 0, b"\0\0\0\1\0")),
        )
    ),
]


@over(CASES)
def test_rule(case: Case) -> None:
    """A server answers what the rule is about as the rule says."""
    try_core(case)


@over([row for row in CASES if sum(map(len, row.parts)) < 1000])
def test_rule_bytewise(case: Case) -> None:
    """And the same, where the bytes come one by one."""
    try_core(case, bytewise=True)


@pytest.mark.parametrize(
    ("name", "sized"),
    [
        ("PING", ping()),
        ("SETTINGS", settings((3, 5))),
        ("WINDOW_UPDATE", window_update(0, 1)),
        ("PRIORITY", priority(3)),
        ("RST_STREAM", rst_stream(1)),
        ("GOAWAY", goaway()),
    ],
)
def test_frames_of_the_right_size(name: str, sized: bytes) -> None:
    """Section 4.2: the same frames with the size that their type has are taken."""
    talk = Talk.with_server()
    talk.hear(request(), sized)
    assert talk.error is None, name


def test_a_frame_that_is_too_long_is_not_waited_for() -> None:
    """Section 4.2: its nine bytes are enough, whatever part of its payload follows."""
    talk = Talk.with_server()
    (answer,) = talk.hear(head(Type.UNKNOWN, limits.MAX_FRAME + 1))
    assert answer.type == Type.GOAWAY
    assert answer.payload[4:8] == b"\0\0\0\6"
    assert b"a frame of %d bytes" % (limits.MAX_FRAME + 1) in answer.payload


def test_blocks_are_read_in_order() -> None:
    """Section 4.3: a block builds on the table that the one before has left, also where that one's stream was reset."""
    talk = Talk.with_server()
    stored = block(*REQUEST) + b"\x40\1X\1y"
    talk.hear(frame(Type.HEADERS, 1, stored, END_HEADERS))
    assert [frame.type for frame in talk.frames] == [Type.RST_STREAM]
    talk.clear()
    # 62 is the first entry behind the static table: the capital X, which is refused again.
    talk.hear(frame(Type.HEADERS, 3, block(*REQUEST) + b"\xbe", END_HEADERS) + request(5))
    assert [frame.type for frame in talk.frames] == [Type.RST_STREAM]
    assert [event.stream_id for event in talk.events if isinstance(event, events.CallReceived)] == [5]

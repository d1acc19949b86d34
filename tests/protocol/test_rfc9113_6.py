"""RFC 9113 section 6: what each type of frame has to look like, and what it does."""

from __future__ import annotations

import struct

import pytest

from mobysession import limits
from mobysession.errors import StatusCode
from mobysession.protocol import events
from mobysession.protocol.server import ServerConnection
from tests.protocol.wire import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FINE,
    FRAME,
    MAX_WINDOW,
    PADDED,
    REQUEST,
    Case,
    Code,
    Seen,
    Talk,
    Type,
    block,
    case,
    connection_error,
    data,
    frame,
    goaway,
    headers,
    over,
    ping,
    priority,
    request,
    rst_stream,
    settings,
    stream_error,
    try_core,
    window_update,
)

BROKEN = connection_error(Code.PROTOCOL_ERROR)
WRONG_SIZE = connection_error(Code.FRAME_SIZE_ERROR)
OVERFLOW = connection_error(Code.FLOW_CONTROL_ERROR)
BLOCK = block(*REQUEST)
WITH_PRIORITY = 0x20
#: Beginnings of header blocks that go on.
OPEN = headers(1, *REQUEST, flags=0)
REST = frame(Type.CONTINUATION, 1, b"", END_HEADERS)


def padded(kind: int, stream_id: int, length: int, rest: bytes, flags: int = 0) -> bytes:
    """Return a frame that says that ``length`` bytes of it are padding."""
    return frame(kind, stream_id, bytes((length,)) + rest, flags | PADDED)


def settings_are(name: str, *pairs: tuple[int, int], code: Code) -> Case:
    """Return the case of a value that is out of its range."""
    return case("6.5.2", f"{name} is out of range", settings(*pairs), verdict=connection_error(code))


PAYLOADS = [
    case("6.1", "DATA belongs to a stream", data(0), verdict=BROKEN),
    case("6.1", "DATA has room for its padding", request() + padded(0, 1, 6, bytes(6)), verdict=FINE),
    case("6.1", "padding is shorter than DATA", request() + padded(0, 1, 7, bytes(6)), verdict=BROKEN),
    case("6.1", "padding alone is no DATA", request() + padded(0, 1, 1, b""), verdict=BROKEN),
    case("6.1", "padded DATA says how much", request() + frame(0, 1, b"", PADDED), verdict=WRONG_SIZE),
    case("6.2", "HEADERS belong to a stream", headers(0, *REQUEST), verdict=BROKEN),
    case("6.2", "HEADERS may be padded", padded(1, 1, 9, BLOCK + bytes(9), END_HEADERS), verdict=FINE),
    case("6.2", "padding leaves HEADERS their fields", padded(1, 1, 200, BLOCK[:99], END_HEADERS), verdict=BROKEN),
    case(
        "6.2",
        "padding does not reach into a priority",
        padded(1, 1, 3, bytes(7), END_HEADERS | WITH_PRIORITY),
        verdict=BROKEN,
    ),
    case("6.2", "padded HEADERS say how much", frame(1, 1, b"", END_HEADERS | PADDED), verdict=WRONG_SIZE),
    case("6.2", "a priority has five bytes", frame(1, 1, bytes(4), END_HEADERS | WITH_PRIORITY), verdict=WRONG_SIZE),
    case(
        "6.2",
        "padding and priority together",
        padded(1, 1, 3, bytes(5) + BLOCK + bytes(3), END_HEADERS | WITH_PRIORITY),
        verdict=FINE,
    ),
    case(
        "6.2",
        "a block may begin with nothing",
        padded(1, 1, 2, bytes(2)) + frame(9, 1, BLOCK, END_HEADERS),
        verdict=FINE,
    ),
    case("6.3", "PRIORITY belongs to a stream", priority(0), verdict=BROKEN),
    *(
        case(
            "6.3",
            f"PRIORITY of {size} bytes is an error of its stream",
            request(),
            frame(2, 1, bytes(size)),
            verdict=stream_error(1, Code.FRAME_SIZE_ERROR),
        )
        for size in (0, 4, 6)
    ),
    case("6.3", "without a stream it is one of the connection", frame(2, 1, bytes(4)), verdict=WRONG_SIZE),
    case("6.4", "RST_STREAM belongs to a stream", rst_stream(0), verdict=BROKEN),
    case("6.4", "RST_STREAM may have any code", request() + rst_stream(1, 0xBEEF), verdict=FINE),
]

SETTINGS = [
    case("6.5", "SETTINGS belong to no stream", frame(Type.SETTINGS, 1), verdict=BROKEN),
    case("6.5", "an acknowledgement is empty", settings((3, 5), flags=ACK), verdict=WRONG_SIZE),
    case("6.5", "SETTINGS may be empty", settings(), verdict=FINE),
    settings_are("ENABLE_PUSH 2", (2, 2), code=Code.PROTOCOL_ERROR),
    settings_are("INITIAL_WINDOW_SIZE 2^31", (4, 2**31), code=Code.FLOW_CONTROL_ERROR),
    settings_are("MAX_FRAME_SIZE 2^14 - 1", (5, 2**14 - 1), code=Code.PROTOCOL_ERROR),
    settings_are("MAX_FRAME_SIZE 2^24", (5, 2**24), code=Code.PROTOCOL_ERROR),
    settings_are("ENABLE_CONNECT_PROTOCOL 2", (8, 2), code=Code.PROTOCOL_ERROR),
    settings_are("a value that the next one replaces", (4, 2**31), (4, 100), code=Code.FLOW_CONTROL_ERROR),
    case(
        "6.5.2",
        "the ends of each range are in it",
        settings((1, 0), (1, 2**32 - 1), (2, 0), (2, 1), (3, 0), (3, 2**32 - 1)),
        settings((4, 0), (4, MAX_WINDOW), (5, 2**14), (5, 2**24 - 1), (6, 0), (6, 2**32 - 1), (8, 0), (8, 1)),
        verdict=FINE,
    ),
]

PUSHES = [
    case("6.6", "a client promises nothing", request(), frame(5, 1, b"\0\0\0\2" + BLOCK, END_HEADERS), verdict=BROKEN),
    case("6.6", "on no stream at all", frame(5, 0, b"\0\0\0\2", END_HEADERS), verdict=BROKEN),
]

PINGS = [
    case("6.7", "PING belongs to no stream", frame(Type.PING, 1, bytes(8)), verdict=BROKEN),
    case("6.7", "an answer nobody asked for means nothing", ping(flags=ACK), verdict=FINE),
    case("6.8", "GOAWAY belongs to no stream", frame(Type.GOAWAY, 1, bytes(8)), verdict=BROKEN),
]

WINDOWS = [
    case(
        "6.9",
        "an increment of 0 is an error of its stream",
        request(),
        window_update(1, 0),
        verdict=stream_error(1, Code.PROTOCOL_ERROR),
    ),
    case("6.9", "an increment of 0 on the connection ends it", window_update(0, 0), verdict=BROKEN),
    case("6.9", "the reserved bit adds nothing to 0", window_update(0, 2**31), verdict=BROKEN),
    case("6.9", "the reserved bit is ignored", request() + window_update(1, 2**31 + 5), verdict=FINE),
    case(
        "6.9.1",
        "a stream's window stays below 2^31",
        request(),
        window_update(1, MAX_WINDOW),
        verdict=stream_error(1, Code.FLOW_CONTROL_ERROR),
    ),
    case(
        "6.9.1",
        "it may grow up to there",
        request() + window_update(1, MAX_WINDOW - 65535),
        verdict=FINE,
    ),
    case("6.9.1", "the connection's stays below it too", window_update(0, MAX_WINDOW), verdict=OVERFLOW),
    case("6.9.1", "and may grow up to there", window_update(0, MAX_WINDOW - 65535), verdict=FINE),
    case(
        "6.9.2",
        "no setting lets a window grow over that",
        request() + window_update(1, MAX_WINDOW - 65535),
        settings((4, 65536)),
        verdict=OVERFLOW,
    ),
]

CONTINUATIONS = [
    case("6.10", "a block may have many parts", OPEN + frame(9, 1) * 20 + REST, verdict=FINE),
    case("6.10", "a part without a beginning", request() + REST, verdict=BROKEN),
    case("6.10", "a part behind the end", OPEN + REST + REST, verdict=BROKEN),
    case("6.10", "a part on no stream", OPEN + frame(9, 0, b"", END_HEADERS), verdict=BROKEN),
    case("6.10", "a part of another stream", OPEN + frame(9, 3, b"", END_HEADERS), verdict=BROKEN),
    case(
        "6.10",
        "a part of another open stream",
        request() + OPEN.replace(b"\0\0\0\1", b"\0\0\0\3") + REST,
        verdict=BROKEN,
    ),
    *(
        case("6.10", f"{name} within a block", OPEN + between + REST, verdict=BROKEN)
        for name, between in (
            ("DATA", data()),
            ("HEADERS", request()),
            ("HEADERS of another stream", request(3)),
            ("PRIORITY", priority(1)),
            ("RST_STREAM", rst_stream(1)),
            ("SETTINGS", settings()),
            ("PING", ping()),
            ("GOAWAY", goaway()),
            ("WINDOW_UPDATE", window_update(0, 1)),
            ("PUSH_PROMISE", frame(5, 1, b"\0\0\0\2", END_HEADERS)),
        )
    ),
]

CASES = [*PAYLOADS, *SETTINGS, *PUSHES, *PINGS, *WINDOWS, *CONTINUATIONS]


@over(CASES)
def test_rule(case: Case) -> None:
    """A server answers what the rule is about as the rule says."""
    try_core(case)


@over(CASES)
def test_rule_bytewise(case: Case) -> None:
    """And the same, where the bytes come one by one."""
    try_core(case, bytewise=True)


def increments(frames: list[Seen], stream_id: int) -> int:
    """Return by how much a window was opened."""
    return sum(
        struct.unpack(">L", frame.payload)[0]
        for frame in frames
        if frame.type == Type.WINDOW_UPDATE and frame.stream_id == stream_id
    )


def test_padding_counts() -> None:
    """Section 6.1: padding, its length included, fills both windows as DATA does, and they are given back."""
    talk = Talk.with_server()
    talk.hear(request())
    for _ in range(limits.STREAM_WINDOW // 256):
        talk.hear(padded(0, 1, 255, bytes(255)))
    assert talk.error is None
    assert increments(talk.frames, 1) == limits.STREAM_WINDOW
    assert talk.core.unread == 0


def test_the_window_of_a_stream() -> None:
    """Section 6.9.1: one byte over what was allowed on a stream is an error of that stream, and the rest goes on."""
    talk = Talk.with_server()
    talk.hear(request(1), request(3))
    talk.clear()
    talk.hear(*[data(1, encode(bytes(FRAME - 5)))] * (limits.STREAM_WINDOW // FRAME))
    assert increments(talk.frames, 1) == 0
    (reset,) = talk.hear(data(1, b"x"), data(3))
    assert reset == Seen(Type.RST_STREAM, 0, 1, struct.pack(">L", Code.FLOW_CONTROL_ERROR))
    assert talk.events[-2:] == [events.CallReset(1, Code.FLOW_CONTROL_ERROR), events.MessagesReceived(3, [b"x"])]


def test_the_window_of_the_connection() -> None:
    """Section 6.9.1: one byte over what was allowed on all streams ends the connection."""
    talk = Talk.with_server()
    chunk = encode(bytes(limits.MIB - 5))
    streams = range(1, 2 * limits.MAX_CONCURRENT_STREAMS, 2)
    talk.hear(*map(request, streams))
    allowed = limits.CONNECTION_WINDOW
    sent = 0
    for stream_id in streams:
        for _ in range(limits.STREAM_WINDOW // limits.MIB):
            if sent + len(chunk) > allowed + increments(talk.frames, 0):
                break
            talk.hear(data(stream_id, chunk))
            sent += len(chunk)
    # More is unread than memory should hold, so that the window is not opened any more.
    assert sent > limits.MAX_UNREAD
    assert talk.error is None
    (*_, answer) = talk.hear(*[data(stream_id, bytes(limits.MIB)) for stream_id in (streams[-1], streams[-3])])
    assert answer.type == Type.GOAWAY
    assert answer.payload[4:8] == struct.pack(">L", Code.FLOW_CONTROL_ERROR)


def encode(message: bytes) -> bytes:
    """Return one message with its prefix."""
    return b"\0" + struct.pack(">L", len(message)) + message


def sent_on(frames: list[Seen], stream_id: int) -> int:
    """Return the bytes of DATA on a stream."""
    return sum(len(frame.payload) for frame in frames if (frame.type, frame.stream_id) == (Type.DATA, stream_id))


def answering(*pairs: tuple[int, int], size: int = 100_000) -> tuple[Talk, ServerConnection]:
    """Return a server with ``size`` bytes to send on stream 1."""
    talk = Talk.with_server(*pairs)
    talk.hear(window_update(0, 10 * limits.MIB), request(end=True))
    core = talk.core
    assert isinstance(core, ServerConnection)
    talk.clear()
    core.send_messages(1, [bytes(size - 5)])
    core.send_trailers(1)
    talk.flush()
    return talk, core


def test_a_window_of_nothing() -> None:
    """Section 6.9.1: without a window there is no DATA, but there are headers; each byte of it is used."""
    talk, _ = answering((4, 0), size=10)
    assert [frame.type for frame in talk.frames] == [Type.HEADERS]
    talk.hear(window_update(1, 1))
    assert sent_on(talk.frames, 1) == 1
    talk.hear(window_update(1, 9))
    assert sent_on(talk.frames, 1) == 10
    assert talk.frames[-1].flags & END_STREAM


def test_a_window_that_becomes_negative() -> None:
    """Section 6.9.2: a smaller setting may leave a window below 0; nothing is sent until it is above."""
    talk, _ = answering()
    assert sent_on(talk.frames, 1) == 65_535
    talk.hear(settings((4, 35)))
    talk.hear(window_update(1, 65_500))
    assert sent_on(talk.frames, 1) == 65_535
    talk.hear(window_update(1, 1))
    assert sent_on(talk.frames, 1) == 65_536
    talk.hear(settings((4, 100)))
    assert sent_on(talk.frames, 1) == 65_536 + 65
    # New streams begin with the setting of the day.
    talk.hear(request(3, end=True))
    core = talk.core
    assert isinstance(core, ServerConnection)
    core.send_messages(3, [bytes(500)])
    talk.flush()
    assert sent_on(talk.frames, 3) == 100


def test_frames_are_as_large_as_the_other_side_takes() -> None:
    """Section 4.2: no frame is larger than the announced size, which may change in the middle of a stream."""
    talk, _ = answering((4, MAX_WINDOW), size=400_000)
    assert max(len(frame.payload) for frame in talk.frames) == 2**14
    talk, core = answering((4, 0), size=400_000)
    talk.hear(settings((4, 2**20), (5, 50_000)))
    assert max(len(frame.payload) for frame in talk.frames) == 50_000
    assert sent_on(talk.frames, 1) == 400_000
    assert core.open_calls == 0


def test_each_settings_frame_is_acknowledged() -> None:
    """Section 6.5.3: as many acknowledgements as SETTINGS, in their place before what the settings change."""
    talk, _ = answering((4, 0), size=10)
    talk.clear()
    talk.hear(settings() + settings((4, 5)) + settings(flags=ACK) + settings((4, 10)))
    assert [frame[:3] for frame in talk.frames[:3]] == [(Type.SETTINGS, ACK, 0)] * 3
    assert sent_on(talk.frames, 1) == 10


def test_a_smaller_table_is_announced() -> None:
    """RFC 7541 section 4.2: the block behind a SETTINGS that takes the table away begins with the table's new size."""
    talk, _ = answering()
    talk.hear(settings((1, 0)), request(3))
    core = talk.core
    assert isinstance(core, ServerConnection)
    talk.clear()
    core.send_initial_metadata(3, [("a", "b")])
    talk.flush()
    assert talk.frames[0].payload[0] == 0x20
    # And one that is larger than we ever use is not used.
    talk.hear(settings((1, 2**32 - 1)), request(5))
    talk.clear()
    core.send_initial_metadata(5, [("a", "b")])
    talk.flush()
    assert talk.frames[0].payload.startswith(b"\x3f\xe1\x1f")  # 4096


def test_pings_come_back() -> None:
    """Section 6.7: a PING is answered with its own payload; an answer is never answered."""
    talk = Talk.with_server()
    assert talk.hear(ping(b"abcdefgh"), ping(flags=ACK)) == [Seen(Type.PING, ACK, 0, b"abcdefgh")]


# -- GOAWAY ------------------------------------------------------------------------------------------------------------


def test_a_client_that_leaves() -> None:
    """Section 6.8: calls go on behind a client's GOAWAY without an error, and then the connection has done its work."""
    talk = Talk.with_server()
    talk.hear(request(1), ping() + goaway(2**31 - 1, 0, b"bye"), data(1, end=True))
    core = talk.core
    assert isinstance(core, ServerConnection)
    assert events.GoAwayReceived(0, 2**31 - 1, b"bye") in talk.events
    assert talk.events[-2:] == [events.MessagesReceived(1, [b"x"]), events.RequestEnded(1)]
    # What was to be said before it is said.
    assert Seen(Type.PING, ACK, 0, b"12345678") in talk.frames
    assert not core.exhausted
    core.send_trailers(1, StatusCode.OK)
    talk.flush()
    assert talk.frames[-1].flags & END_STREAM
    assert core.exhausted


def test_a_client_that_leaves_in_anger() -> None:
    """Section 6.8: a GOAWAY with an error is the end."""
    talk = Talk.with_server()
    talk.hear(request(1), goaway(0, Code.INTERNAL_ERROR, b"oh"))
    assert events.GoAwayReceived(Code.INTERNAL_ERROR, 0, b"oh") in talk.events
    assert talk.core.terminated


def test_a_server_that_leaves() -> None:
    """Section 6.8: first all is announced and served, then the last stream is named, and what is above it refused."""
    talk = Talk.with_server()
    core = talk.core
    assert isinstance(core, ServerConnection)
    talk.hear(request(1))
    talk.clear()
    core.drain(b"upgrade")
    core.drain(b"twice")
    talk.flush()
    first, asked = talk.frames
    assert (first.type, first.payload) == (Type.GOAWAY, struct.pack(">LL", MAX_WINDOW, 0) + b"upgrade")
    talk.hear(request(3))  # was on its way
    (second,) = talk.hear(ping(asked.payload, ACK))
    assert (second.type, second.payload) == (Type.GOAWAY, struct.pack(">LL", 3, 0) + b"upgrade")
    assert talk.hear(request(5), data(5)) == [Seen(Type.RST_STREAM, 0, 5, struct.pack(">L", Code.REFUSED_STREAM))]
    assert [event.stream_id for event in talk.events if isinstance(event, events.CallReceived)] == [3]
    assert not [event for event in talk.events if isinstance(event, events.PingAcknowledged)]
    for stream_id in (1, 3):
        assert not core.drained
        core.send_trailers(stream_id)
        talk.flush()
    assert core.drained
    assert not core.terminated
    # A last stream that was named is never raised again.
    talk.clear()
    core.close()
    talk.flush()
    assert talk.frames[0].payload[:8] == struct.pack(">LL", 3, 0)


@pytest.mark.parametrize("ended", [False, True])
def test_leaving_twice(ended: bool) -> None:
    """Draining a connection that is over says nothing, and the same answer to a PING does nothing twice."""
    talk = Talk.with_server()
    core = talk.core
    assert isinstance(core, ServerConnection)
    if ended:
        core.close()
        talk.flush()
        talk.clear()
    core.drain()
    talk.flush()
    assert bool(talk.frames) is not ended
    if not ended:
        answer = ping(talk.frames[1].payload, ACK)
        assert len(talk.hear(answer)) == 1
        assert talk.hear(answer) == []

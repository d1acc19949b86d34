"""RFC 9113 section 5: the states of streams, their numbers, their limit, and how errors are handled."""

from __future__ import annotations

import struct

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

GET = ((b":method", b"GET"), *REQUEST[1:4])
BROKEN = connection_error(Code.PROTOCOL_ERROR)
LATE = connection_error(Code.STREAM_CLOSED)
#: A call whose request is whole; the server has not answered.
ASKED = request(end=True)
#: A request that is answered at once, so that its stream is closed by END_STREAM of both sides.
ANSWERED = headers(1, *GET, end=True)
#: A request that is malformed, so that its stream is closed by a RST_STREAM of the server.
REFUSED = headers(1, *REQUEST[1:])
TRAILERS = headers(1, (b"x", b"y"), end=True)
MALFORMED = stream_error(1, Code.PROTOCOL_ERROR)

IDLE = [
    *(
        case("5.1", f"{name} on an idle stream ends the connection", *first, verdict=BROKEN)
        for name, first in (
            ("DATA", (data(),)),
            ("RST_STREAM", (rst_stream(1),)),
            ("WINDOW_UPDATE", (window_update(1, 1),)),
            ("WINDOW_UPDATE of 0", (window_update(1, 0),)),
            ("CONTINUATION", (frame(Type.CONTINUATION, 1, block(*REQUEST), END_HEADERS),)),
            ("DATA beside an open one", (request(), data(3))),
            ("RST_STREAM beside an open one", (request(), rst_stream(3))),
            ("WINDOW_UPDATE beside an open one", (request(), window_update(3, 1))),
            ("DATA of the server's", (request(), data(2))),
            ("RST_STREAM of the server's", (request(), rst_stream(2))),
        )
    ),
    case("5.1", "PRIORITY on an idle stream is taken", priority(1) + priority(9, 3) + request(), verdict=FINE),
]

HALF_CLOSED = [
    *(
        case(
            "5.1", f"{name} behind END_STREAM is an error of the stream", ASKED, late, verdict=stream_error(1, Code(5))
        )
        for name, late in (
            ("DATA", data()),
            ("empty DATA", data(payload=b"")),
            ("DATA that ends the stream again", data(end=True)),
            ("HEADERS", TRAILERS),
            ("HEADERS of another request", request()),
        )
    ),
    *(
        case("5.1", f"{name} behind END_STREAM is taken", ASKED, late, verdict=FINE)
        for name, late in (
            ("WINDOW_UPDATE", window_update(1, 100)),
            ("PRIORITY", priority(1, 3)),
            ("RST_STREAM", rst_stream(1)),
        )
    ),
    case(
        "5.1",
        "what follows an error of a stream is ignored",
        ASKED,
        data() + data() + TRAILERS + window_update(1, 1) + rst_stream(1),
        verdict=stream_error(1, Code.STREAM_CLOSED),
    ),
]

CLOSED = [
    *(
        case("5.1", f"{name} on a stream that both sides have ended ends the connection", ANSWERED, late, verdict=LATE)
        for name, late in (("DATA", data()), ("HEADERS", TRAILERS), ("HEADERS of another request", request()))
    ),
    case("5.1", "CONTINUATION there too", ANSWERED, frame(Type.CONTINUATION, 1, b"", END_HEADERS), verdict=BROKEN),
    *(
        case("5.1", f"{name} on a closed stream may have crossed its end", ANSWERED, late, verdict=FINE)
        for name, late in (
            ("WINDOW_UPDATE", window_update(1, 1)),
            ("WINDOW_UPDATE over its end", window_update(1, 2**31 - 1)),
            ("PRIORITY", priority(1, 3)),
            ("RST_STREAM", rst_stream(1)),
        )
    ),
    *(
        case(
            "5.1",
            f"{name} behind the client's own RST_STREAM is an error of the stream",
            request() + rst_stream(1),
            late,
            verdict=stream_error(1, Code.STREAM_CLOSED),
        )
        for name, late in (("DATA", data()), ("HEADERS", TRAILERS))
    ),
    case(
        "5.1",
        "HEADERS in the same bytes as the client's own RST_STREAM too",
        request() + rst_stream(1) + TRAILERS,
        verdict=stream_error(1, Code.STREAM_CLOSED),
    ),
    case(
        "5.1",
        "the rest behind it is ignored",
        request() + rst_stream(1),
        window_update(1, 1) + priority(1, 3) + rst_stream(1),
        verdict=FINE,
    ),
    *(
        case("5.1", f"{name} may have crossed the server's RST_STREAM", REFUSED, late, verdict=MALFORMED)
        for name, late in (
            ("DATA", data() + data(payload=bytes(5000), end=True)),
            ("HEADERS", TRAILERS),
            ("WINDOW_UPDATE", window_update(1, 1)),
            ("WINDOW_UPDATE of 0", window_update(1, 0)),
            ("RST_STREAM", rst_stream(1)),
            ("PRIORITY", priority(1)),
        )
    ),
]

NUMBERS = [
    *(
        case("5.1.1", f"a client opens no stream with {name}", first, verdict=BROKEN)
        for name, first in (
            ("an even number", request(2)),
            ("an even number above others", request(5) + request(6)),
            ("the number 0", headers(0, *REQUEST)),
            ("a number below one it has opened", request(5) + request(3)),
        )
    ),
    case("5.1.1", "a stream that was passed over is closed", request(5) + data(3), verdict=BROKEN),
    case("5.1.1", "numbers may be passed over", request(5) + request(9) + request(2**31 - 1), verdict=FINE),
]

FULL = b"".join(request(2 * i + 1) for i in range(limits.MAX_CONCURRENT_STREAMS))
ONE_TOO_MANY = stream_error(501, Code.REFUSED_STREAM)
LIMIT = [
    case(
        "5.1.2",
        "one stream more than announced is refused",
        FULL,
        request(501),
        verdict=ONE_TOO_MANY,
    ),
    case(
        "5.1.2",
        "what belongs to it is ignored",
        FULL,
        request(501) + data(501) + headers(501, (b"x", b"y"), end=True),
        verdict=ONE_TOO_MANY,
    ),
    case("5.1.2", "as many as announced are taken", FULL, verdict=FINE),
    case("5.1.2", "a stream that was reset makes room", FULL, rst_stream(7) + request(501), verdict=FINE),
    case(
        "5.1.2", "half-closed streams count", FULL, data(7, end=True) + request(501), verdict=stream_error(501, Code(7))
    ),
]

#: Section 5.3.2 deprecates priorities; what RFC 7540 section 5.3.1 said of them is still held.
PRIORITIES = [
    case("5.3.2", "priorities mean nothing", request() + priority(1, 5) + priority(1, 0), verdict=FINE),
    case(
        "5.3.2",
        "also those in HEADERS",
        frame(Type.HEADERS, 1, struct.pack(">LB", 0x80000003, 1) + block(*REQUEST), END_HEADERS | 0x20),
        verdict=FINE,
    ),
    case("5.3.2", "a stream does not depend on itself", request(), priority(1, 1), verdict=MALFORMED),
    case(
        "5.3.2",
        "nor by its own HEADERS",
        frame(Type.HEADERS, 1, struct.pack(">LB", 1, 1) + block(*REQUEST), END_HEADERS | 0x20),
        verdict=MALFORMED,
    ),
    case("5.3.2", "an idle stream cannot be reset over that", priority(1, 1), verdict=BROKEN),
]

EXTENSIONS = [
    case(
        "5.5",
        "no extension may stand within a header block",
        headers(1, *REQUEST, flags=0) + frame(Type.UNKNOWN, 1) + frame(Type.CONTINUATION, 1, b"", END_HEADERS),
        verdict=BROKEN,
    ),
    case("5.5", "unknown settings are ignored", settings((0x99, 5), (0xFFFF, 2**32 - 1)), verdict=FINE),
]

CASES = [*IDLE, *HALF_CLOSED, *CLOSED, *NUMBERS, *LIMIT, *PRIORITIES, *EXTENSIONS]


@over(CASES)
def test_rule(case: Case) -> None:
    """A server answers what the rule is about as the rule says."""
    try_core(case)


@over([row for row in CASES if sum(map(len, row.parts)) < 2000])
def test_rule_bytewise(case: Case) -> None:
    """And the same, where the bytes come one by one."""
    try_core(case, bytewise=True)


def test_a_refused_stream_leaves_the_others_alone() -> None:
    """Section 5.1.2: what was refused is known to nobody, its header block has counted, and the others go on."""
    talk = Talk.with_server()
    talk.hear(FULL)
    talk.clear()
    refused = frame(Type.HEADERS, 501, block(*REQUEST) + b"\x40\1a\1b", END_HEADERS)
    talk.hear(refused, rst_stream(9), frame(Type.HEADERS, 503, block(*REQUEST) + b"\xbe", END_HEADERS), data(503))
    (gone, received, messages) = talk.events
    assert isinstance(gone, events.CallReset)
    assert isinstance(received, events.CallReceived)
    assert received.metadata == [("a", "b")]
    assert messages == events.MessagesReceived(503, [b"x"])
    assert talk.core.open_calls == limits.MAX_CONCURRENT_STREAMS


def test_ignored_data_counts_for_the_connection() -> None:
    """Section 5.1: DATA on a stream that the server has reset fills the connection's window, which is given back."""
    talk = Talk.with_server()
    talk.hear(REFUSED)
    talk.clear()
    for _ in range(limits.CONNECTION_WINDOW // limits.MIB):
        talk.hear(data(payload=bytes(limits.MIB)))
    assert talk.error is None
    updates = [frame for frame in talk.frames if frame.type == Type.WINDOW_UPDATE]
    assert {frame.stream_id for frame in updates} == {0}
    assert sum(struct.unpack(">L", frame.payload)[0] for frame in updates) == limits.CONNECTION_WINDOW
    assert len(updates) == len(talk.frames)


def test_an_error_ends_everything() -> None:
    """Section 5.4.1: the GOAWAY of an error names the last stream and the fault; nothing is heard behind it."""
    talk = Talk.with_server()
    talk.hear(request(1), request(3))
    talk.clear()
    (answer,) = talk.hear(data(9), request(11), ping())
    assert answer.type == Type.GOAWAY
    assert struct.unpack(">LL", answer.payload[:8]) == (3, Code.PROTOCOL_ERROR)
    assert answer.payload[8:] == b"a frame on stream 9, which is idle"
    assert talk.events == []
    assert talk.core.terminated


def test_an_error_of_a_stream_is_told() -> None:
    """Section 5.4.2: the call whose stream is reset ends, the others go on."""
    talk = Talk.with_server()
    talk.hear(request(1, end=True), request(3), data(1))
    assert events.CallReset(1, Code.STREAM_CLOSED) in talk.events
    assert talk.core.open_calls == 1


def test_a_reset_is_never_answered_with_one() -> None:
    """Section 5.4.2: no RST_STREAM follows one of the client's, also where the server meant to reset the stream."""
    talk = Talk.with_server()
    talk.hear(request() + rst_stream(1) + rst_stream(1))
    talk.core.reset(1)
    assert talk.hear(rst_stream(1)) == []

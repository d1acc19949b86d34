"""RFC 9113 section 8: requests as HTTP sees them, and section 10.5.1: how large their headers may be."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import hpack
import pytest

from mobysession import limits
from mobysession.protocol import events
from mobysession.protocol.server import ServerConnection
from tests.protocol.wire import (
    END_HEADERS,
    END_STREAM,
    FINE,
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
    headers,
    over,
    request,
    rst_stream,
    stream_error,
    try_core,
    window_update,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Fields = tuple[tuple[bytes, bytes], ...]

MALFORMED = stream_error(1, Code.PROTOCOL_ERROR)
METHOD, SCHEME, PATH, AUTHORITY = REQUEST[:4]
REGULAR = REQUEST[4:]
#: HTTP, but no gRPC.
UPLOAD: Fields = ((b":method", b"PUT"), SCHEME, PATH, AUTHORITY)


def malformed(section: str, rule: str, *fields: tuple[bytes, bytes]) -> Case:
    """Return the case of a request with ``fields``, which is malformed."""
    return case(section, rule, headers(1, *fields, end=True), verdict=MALFORMED)


def well_formed(section: str, rule: str, *fields: tuple[bytes, bytes]) -> Case:
    """Return the case of a request with ``fields``, which is not."""
    return case(section, rule, headers(1, *fields, end=True), verdict=FINE)


def lengths(rule: str, length: bytes, *payloads: bytes, fields: Fields = REQUEST) -> Case:
    """Return the case of a request that announces ``length`` bytes and sends ``payloads``."""
    announced = headers(1, *fields, (b"content-length", length), end=not payloads)
    parts = [data(1, payload, end=index == len(payloads) - 1) for index, payload in enumerate(payloads)]
    return case("8.1.1", rule, announced + b"".join(parts), verdict=MALFORMED)


MESSAGES = [
    case("8.1", "a request may have trailers", request() + data() + headers(1, (b"x", b"y"), end=True), verdict=FINE),
    case("8.1", "trailers end the stream", request() + data() + headers(1, (b"x", b"y")), verdict=MALFORMED),
    case("8.1", "also without DATA before them", request() + headers(1, (b"x", b"y")), verdict=MALFORMED),
    case(
        "8.1",
        "trailers have no pseudo fields",
        request() + headers(1, (b":path", b"/"), end=True),
        verdict=MALFORMED,
    ),
    case("8.1", "trailers are as regular", request() + headers(1, (b"X", b"y"), end=True), verdict=MALFORMED),
    case(
        "8.1",
        "nothing follows trailers",
        request() + headers(1, (b"x", b"y"), end=True),
        data(),
        verdict=stream_error(1, Code.STREAM_CLOSED),
    ),
    lengths("less DATA than announced", b"7", b"\0\0\0\0\1x"),
    lengths("more DATA than announced", b"5", b"\0\0\0\0\1x"),
    lengths("more DATA in two parts", b"7", b"\0\0\0\0\1x", b"\0\0"),
    lengths("no DATA at all", b"1"),
    lengths("less of what is no gRPC", b"7", b"abc", fields=UPLOAD),
    lengths("more of what is no gRPC", b"2", b"abc", fields=UPLOAD),
    malformed("8.1.1", "a length is a number", *REQUEST, (b"content-length", b"+1")),
    malformed("8.1.1", "a length is one number", *REQUEST, (b"content-length", b"0"), (b"content-length", b"1")),
    malformed("8.1.1", "a length fits into 64 bits", *REQUEST, (b"content-length", b"1" * 21)),
    case(
        "8.1.1",
        "the announced length, padded, in two parts",
        request(1, (b"content-length", b"6"))
        + frame(Type.DATA, 1, b"\3\0\0\0\0\0\0\0", 0x8)
        + data(1, b"\1x", end=True),
        verdict=FINE,
    ),
]

NAMES = [
    malformed("8.2", "names have no capitals", *REQUEST, (b"X-a", b"b")),
    malformed("8.2.1", "names are not empty", *REQUEST, (b"", b"b")),
    *(
        malformed("8.2.1", f"no name has {bytes((byte,))!r}", *REQUEST, (b"a" + bytes((byte,)) + b"b", b"c"))
        for byte in (0, 9, 10, 13, 0x20, 0x1F, 0x3A, 0x7F, 0x80, 0xFF)
    ),
    *(
        malformed("8.2.1", f"no value has {bytes((byte,))!r}", *REQUEST, (b"a", b"b" + bytes((byte,)) + b"c"))
        for byte in (0, 10, 13)
    ),
    *(
        malformed("8.2.2", f"{name.decode()} belongs to HTTP/1.1", *REQUEST, (name, b"x"))
        for name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
    ),
    malformed("8.2.2", "te is for trailers", *REQUEST[:5], (b"te", b"gzip")),
    malformed("8.2.2", "and for nothing else", *REQUEST[:5], (b"te", b"trailers, deflate")),
    well_formed("8.2.2", "te may be missing", *REQUEST[:5]),
    well_formed("8.2.3", "cookies may be cut", *REQUEST, (b"cookie", b"a=b"), (b"cookie", b"c=d")),
]

PSEUDO = [
    malformed("8.3", "an unknown pseudo field", *REQUEST[:4], (b":x", b"y"), *REGULAR),
    malformed("8.3", "a pseudo field of responses", *REQUEST[:4], (b":status", b"200"), *REGULAR),
    malformed("8.3", "one of interim responses", (b":status", b"100"), *REQUEST),
    malformed("8.3", "a pseudo field behind a regular one", *REQUEST[:3], *REGULAR, AUTHORITY),
    malformed("8.3", "a pseudo field twice", *REQUEST[:4], AUTHORITY, *REGULAR),
    malformed("8.3.1", "no method", SCHEME, PATH, AUTHORITY, *REGULAR),
    malformed("8.3.1", "no scheme", METHOD, PATH, AUTHORITY, *REGULAR),
    malformed("8.3.1", "no path", METHOD, SCHEME, AUTHORITY, *REGULAR),
    malformed("8.3.1", "an empty path", METHOD, SCHEME, (b":path", b""), AUTHORITY, *REGULAR),
    malformed("8.3.1", "two methods", METHOD, *REQUEST),
    malformed("8.3.1", "two paths", *REQUEST[:3], PATH, *REGULAR),
    malformed("8.3.1", "no fields at all"),
    well_formed("8.3.1", "the authority may be missing", *REQUEST[:3], *REGULAR),
    well_formed("8.5", "a tunnel has neither scheme nor path", (b":method", b"CONNECT"), AUTHORITY),
    malformed("8.5", "a tunnel has an authority", (b":method", b"CONNECT")),
    malformed("8.5", "and no path", (b":method", b"CONNECT"), PATH, AUTHORITY),
]

#: One field that fills the list of headers up to its limit; 32 bytes are what each field costs besides.
_ROOM = limits.MAX_HEADER_LIST - sum(len(name) + len(value) + 32 for name, value in REQUEST)


def large(size: int) -> bytes:
    """Return a call whose header list has ``size`` bytes more than the limit."""
    return request(1, (b"big", b"x" * (_ROOM - 35 + size)))


SIZES = [
    case("10.5.1", "a list of the announced size", large(0), verdict=FINE),
    case("10.5.1", "a larger one is an error of the call", large(1), verdict=FINE),
    case(
        "10.5.1",
        "one of twice that ends the connection",
        frame(Type.HEADERS, 1, block(*REQUEST) + b"\x40\1a\x7f\xa1\x1e" + b"x" * 4000 + b"\xbe" * 600, END_HEADERS),
        verdict=connection_error(Code.ENHANCE_YOUR_CALM),
    ),
]

CASES = [*MESSAGES, *NAMES, *PSEUDO, *SIZES]


@over(CASES)
def test_rule(case: Case) -> None:
    """A server answers what the rule is about as the rule says."""
    try_core(case)


@over([row for row in CASES if sum(map(len, row.parts)) < 1000])
def test_rule_bytewise(case: Case) -> None:
    """And the same, where the bytes come one by one."""
    try_core(case, bytewise=True)


@over([row for row in CASES if row.verdict == MALFORMED])
def test_nobody_hears_of_a_malformed_request(case: Case) -> None:
    """Section 8.1.1: a request that is malformed from the beginning reaches no handler, any other is taken back."""
    talk = Talk.with_server()
    talk.hear(*case.parts)
    calls = [event for event in talk.events if isinstance(event, events.CallReceived)]
    assert talk.core.open_calls == 0
    assert len([event for event in talk.events if isinstance(event, events.CallReset)]) == len(calls)


def responses(frames: Sequence[Seen]) -> list[dict[bytes, bytes]]:
    """Return the header lists that a server has sent."""
    decoder = hpack.Decoder()
    return [
        {bytes(name): bytes(value) for name, value in decoder.decode(frame.payload, raw=True)}
        for frame in frames
        if frame.type == Type.HEADERS
    ]


def test_headers_that_are_too_large() -> None:
    """Section 10.5.1: a call over the limit is told so by its status, another request by HTTP's 431."""
    talk = Talk.with_server()
    talk.hear(large(1))
    (answer,) = responses(talk.frames)
    assert answer[b"grpc-status"] == b"8"
    assert answer[b"grpc-message"] == b"the call has more than 1048896 bytes of metadata"
    assert talk.frames[-1] == Seen(Type.RST_STREAM, 0, 1, bytes(4))
    assert talk.core.open_calls == 0
    other = Talk.with_server()
    other.hear(large(1).replace(b"application/grpc", b"application/xxxx"))
    assert responses(other.frames) == [{b":status": b"431"}]


def test_an_answer_before_the_request_has_ended() -> None:
    """Section 8.1: a whole answer may come first; then a RST_STREAM without an error asks for no more."""
    talk = Talk.with_server()
    core = talk.core
    assert isinstance(core, ServerConnection)
    talk.hear(request(), data())
    talk.clear()
    core.send_trailers(1)
    talk.flush()
    trailers, reset = talk.frames
    assert (trailers.type, trailers.flags) == (Type.HEADERS, END_HEADERS | END_STREAM)
    assert (reset.type, reset.payload) == (Type.RST_STREAM, bytes(4))
    assert talk.hear(data(), data(end=True), window_update(1, 5), rst_stream(1)) == []
    assert talk.error is None


@pytest.mark.parametrize("late", [(), (data(1, b"abc"), data(1, b"d", end=True)), (rst_stream(1),)])
def test_an_answer_to_what_is_no_grpc(late: tuple[bytes, ...]) -> None:
    """It is whole at once, with a reason in words; the request may go on and end as it likes, unseen."""
    talk = Talk.with_server()
    talk.hear(headers(1, *UPLOAD, (b"content-length", b"4"), end=False))
    answer, body, end = talk.frames[-3:]
    assert responses([answer])[0][b":status"] == b"405"
    assert b"POST" in body.payload
    assert (end.payload, end.flags) == (b"", END_STREAM)
    talk.clear()
    assert talk.hear(*late) == []
    assert talk.events == []
    assert talk.core.open_calls == (0 if late else 1)


def test_what_is_no_grpc_waits_for_its_window_too() -> None:
    """The body of such an answer is DATA as any other."""
    talk = Talk.with_server((4, 0))
    talk.hear(headers(1, *UPLOAD, end=True))
    assert [frame.type for frame in talk.frames] == [Type.HEADERS]
    talk.hear(window_update(1, 1000))
    assert talk.frames[-1].flags & END_STREAM
    assert talk.core.open_calls == 0


def test_the_same_bytes_may_take_such_a_request_back() -> None:
    """A request that is reset in the bytes that brought it is not answered."""
    talk = Talk.with_server()
    assert talk.hear(headers(1, *UPLOAD) + rst_stream(1)) == []
    assert (talk.core.open_calls, talk.events) == (0, [])


def test_malformed_trailers_end_their_call() -> None:
    """Section 8.1.1: the handler hears of a reset, and messages before it stay."""
    talk = Talk.with_server()
    talk.hear(request(), data(), headers(1, (b":path", b"/"), end=True))
    assert talk.events[-2:] == [events.MessagesReceived(1, [b"x"]), events.CallReset(1, Code.PROTOCOL_ERROR)]
    assert talk.frames[-1] == Seen(Type.RST_STREAM, 0, 1, struct.pack(">L", Code.PROTOCOL_ERROR))

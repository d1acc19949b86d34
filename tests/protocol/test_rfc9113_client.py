"""RFC 9113 where it concerns us as a client: what a server may not do, and what becomes of the call."""

from __future__ import annotations

import struct

import pytest

from mobysession.errors import RpcError, StatusCode
from mobysession.protocol import events
from mobysession.protocol.client import ClientConnection
from tests.protocol.wire import (
    END_HEADERS,
    RESPONSE,
    Code,
    Seen,
    Talk,
    Type,
    block,
    data,
    frame,
    goaway,
    headers,
    ping,
    priority,
    rst_stream,
    settings,
    window_update,
)

TRAILERS = headers(1, (b"grpc-status", b"0"), end=True)
INTERIM = headers(1, (b":status", b"103"))


@pytest.mark.parametrize(
    ("rule", "said", "code"),
    [
        ("5.1.1 a server opens no streams", headers(2, *RESPONSE), Code.PROTOCOL_ERROR),
        ("5.1.1 nor those of the client", headers(3, *RESPONSE), Code.PROTOCOL_ERROR),
        ("5.1 DATA on an idle stream", data(3), Code.PROTOCOL_ERROR),
        ("5.1 RST_STREAM on an idle stream", rst_stream(3), Code.PROTOCOL_ERROR),
        ("5.1 WINDOW_UPDATE on an idle stream", window_update(3, 1), Code.PROTOCOL_ERROR),
        ("5.1 DATA of a push that was never promised", data(2), Code.PROTOCOL_ERROR),
        ("6.5.2 a server cannot push", settings((2, 1)), Code.PROTOCOL_ERROR),
        ("6.5.2 a window out of range", settings((4, 2**31)), Code.FLOW_CONTROL_ERROR),
        ("6.6 pushes were refused", frame(5, 1, b"\0\0\0\2" + block(*RESPONSE), END_HEADERS), Code.PROTOCOL_ERROR),
        ("6.6 on idle streams too", frame(5, 3, b"\0\0\0\2", END_HEADERS), Code.PROTOCOL_ERROR),
        ("6.7 PING on a stream", frame(6, 1, bytes(8)), Code.PROTOCOL_ERROR),
        ("6.9 an increment of 0", window_update(0, 0), Code.PROTOCOL_ERROR),
        ("6.9.1 a window over 2^31", window_update(0, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
        ("6.10 a part without a beginning", frame(9, 1, b"", END_HEADERS), Code.PROTOCOL_ERROR),
        ("RFC 7541 an index that means nothing", frame(1, 1, b"\xff\x7f", END_HEADERS), Code.COMPRESSION_ERROR),
    ],
)
def test_errors_of_the_connection(rule: str, said: bytes, code: Code) -> None:
    """What a server may never do ends the connection, with the error that the rule names."""
    talk = Talk.with_client()
    (answer,) = talk.hear(said)
    assert (answer.type, answer.payload[4:8]) == (Type.GOAWAY, struct.pack(">L", code)), rule
    assert talk.error is not None
    assert talk.error.error_code == code


@pytest.mark.parametrize(
    ("rule", "said", "code"),
    [
        ("8.1 DATA before headers", data(), Code.PROTOCOL_ERROR),
        (
            "8.1 an interim response at the end",
            headers(1, (b":status", b"103"), end=True),
            Code.PROTOCOL_ERROR,
        ),
        ("8.1 trailers that do not end the stream", headers(1, *RESPONSE) + headers(1, (b"x", b"y")), Code(1)),
        ("8.1 an interim response behind the final one", headers(1, *RESPONSE) + INTERIM, Code.PROTOCOL_ERROR),
        ("6.9 an increment of 0", window_update(1, 0), Code.PROTOCOL_ERROR),
        ("6.9.1 a window over 2^31", window_update(1, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
        ("6.3 PRIORITY of 4 bytes", frame(2, 1, bytes(4)), Code.FRAME_SIZE_ERROR),
    ],
)
def test_errors_of_a_stream(rule: str, said: bytes, code: Code) -> None:
    """What a server may not do on a stream resets it and ends the call; others go on."""
    talk = Talk.with_client()
    (answer,) = talk.hear(said)
    assert answer == Seen(Type.RST_STREAM, 0, 1, struct.pack(">L", code)), rule
    assert talk.events[-1] == events.CallReset(1, code)
    assert talk.core.open_calls == 0
    # What was on its way is ignored.
    assert talk.hear(data(), TRAILERS, rst_stream(1), window_update(1, 1)) == []
    assert talk.hear(ping()) == [Seen(Type.PING, 1, 0, b"12345678")]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("8.3.2 a response has a status", headers(1, (b"content-type", b"application/grpc"))),
        ("8.3.2 and only one", headers(1, (b":status", b"200"), *RESPONSE)),
        ("8.3 no pseudo field of requests", headers(1, (b":path", b"/"), *RESPONSE)),
        ("8.3 no pseudo field behind others", headers(1, (b"a", b"b"), *RESPONSE)),
        ("8.2 no capitals", headers(1, *RESPONSE, (b"A", b"b"))),
        ("8.2.2 nothing of HTTP/1.1's", headers(1, *RESPONSE, (b"connection", b"close"))),
        ("8.1 no pseudo field in trailers", headers(1, *RESPONSE) + headers(1, (b":status", b"200"), end=True)),
        ("8.1.1 more DATA than announced", headers(1, *RESPONSE, (b"content-length", b"1")) + data()),
    ],
)
def test_malformed_responses(rule: str, said: bytes) -> None:
    """Section 8.1.1: a malformed response resets the stream with PROTOCOL_ERROR, and the call ends with INTERNAL."""
    talk = Talk.with_client()
    talk.hear(said)
    ended = talk.events[-1]
    assert isinstance(ended, events.CallEnded), rule
    assert ended.code is StatusCode.INTERNAL
    assert {frame.payload for frame in talk.frames if frame.type == Type.RST_STREAM} <= {b"\0\0\0\1"}
    assert talk.error is None


def test_what_a_client_takes() -> None:
    """Sections 8.1 and 5.3.2: interim responses, priorities, padding and unknown frames change no answer."""
    talk = Talk.with_client()
    core = talk.core
    assert isinstance(core, ClientConnection)
    core.end_request(1)
    talk.flush()
    talk.hear(INTERIM, INTERIM, priority(1), frame(Type.UNKNOWN, 1), headers(1, *RESPONSE))
    talk.hear(frame(Type.DATA, 1, b"\2\0\0\0\0\1x\0\0", 0x8), TRAILERS)
    begun, messages, ended = talk.events
    assert isinstance(begun, events.InitialMetadata)
    assert messages == events.MessagesReceived(1, [b"x"])
    assert isinstance(ended, events.CallEnded)
    assert ended.code is StatusCode.OK


def test_headers_that_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 10.5.1: an answer whose header list is over the limit ends its call only."""
    monkeypatch.setattr("mobysession.limits.MAX_RESPONSE_HEADER_LIST", 1000)
    talk = Talk.with_client()
    talk.hear(headers(1, *RESPONSE, (b"a", b"b" * 900)))
    (ended,) = talk.events
    assert isinstance(ended, events.CallEnded)
    assert (ended.code, ended.message) == (
        StatusCode.RESOURCE_EXHAUSTED,
        "the response has more than 1000 bytes of headers",
    )
    assert talk.error is None


def test_a_server_that_leaves() -> None:
    """Section 6.8: calls up to the last stream go on, those above are refused, and no new ones are opened."""
    talk = Talk.with_client()
    core = talk.core
    assert isinstance(core, ClientConnection)
    core.start_call("/a.B/C")
    core.end_request(1)
    talk.flush()
    talk.hear(goaway(2**31 - 1, 0, b"soon"))
    assert talk.events == [events.GoAwayReceived(0, 2**31 - 1, b"soon")]
    talk.hear(goaway(0x80000001, 0, b"now"))  # the reserved bit means nothing
    assert talk.events[1:] == [events.GoAwayReceived(0, 1, b"now"), events.CallReset(3, Code.REFUSED_STREAM)]
    with pytest.raises(RpcError) as caught:
        core.start_call("/a.B/C")
    assert caught.value.code is StatusCode.UNAVAILABLE
    assert not core.exhausted
    talk.hear(headers(1, *RESPONSE) + TRAILERS)
    assert core.exhausted


def test_a_request_keeps_to_the_limits() -> None:
    """Section 5.1.2: no more calls are open than the server allows, and one that ends makes room."""
    talk = Talk.with_client()
    core = talk.core
    assert isinstance(core, ClientConnection)
    talk.hear(settings((3, 1)))
    with pytest.raises(RpcError):
        core.start_call("/a.B/C")
    talk.hear(rst_stream(1))
    assert core.start_call("/a.B/C") == 3

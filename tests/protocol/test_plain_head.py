"""Plain heads: what is understood here h11 understands in the same way, and what is not is left to it."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobysession import limits
from mobysession.protocol.plain_head import PlainAnswer, parse_answer, serialize_request

ENGINES = {
    "28.5.2 ping": b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nBuilder-Version: 2\r\nContent-Length: 0\r\n\r\n",
    "28.5.2 upgrade": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n\0\0\0\4",
    "20.10 upgrade": b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "no reason": b"HTTP/1.1 101 \r\nUpgrade:h2c\r\n\r\n",
    "no space either": b"HTTP/1.1 101\r\nUpgrade: \t h2c \r\nX:\r\n\r\n",
}


def by_h11(data: bytes) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
    """Return what h11 reads: as an upgrade where it is one, else as the answer to a HEAD."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.MAX_HEAD)
    upgrade = data[9:12] == b"101"
    lines = [("Host", "x"), *([("Connection", "Upgrade"), ("Upgrade", "h2c")] if upgrade else [])]
    connection.send(h11.Request(method="POST" if upgrade else "HEAD", target="/", headers=lines))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    event = connection.next_event()
    assert isinstance(event, h11.Response | h11.InformationalResponse)
    headers = tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers)
    return event.status_code, headers, connection.trailing_data[0]


@pytest.mark.parametrize("name", ENGINES)
def test_what_engines_answer_is_plain(name: str) -> None:
    """And is read as h11 reads it."""
    answer = parse_answer(ENGINES[name])
    assert isinstance(answer, PlainAnswer)
    assert (answer.status, answer.headers, answer.rest) == by_h11(ENGINES[name])
    assert answer.status_line == ENGINES[name].partition(b"\r\n")[0].decode().rstrip()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n",  # not there to its end
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 200 O\tK\r\n\r\n",
        b"HTTP/1.1 200 OK\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nUpgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nUp grade: h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nUpgrade : h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: x\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: x\0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: x\nB: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: x\rB: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"1" * 21 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * limits.MAX_HEAD + b"\r\n\r\n",
    ],
)
def test_what_is_unusual_is_left_to_h11(data: bytes) -> None:
    """Whether h11 takes it or not."""
    assert parse_answer(data) is None


_PIECES = b"HTTP/1.1 |101|200| OK|\r\n|\r\n\r\n|A|-|:| |\t|x|1|Content-Length: |Transfer-Encoding: ".split(b"|")
_HEADS = st.lists(st.one_of(st.sampled_from(_PIECES), st.binary(max_size=2)), max_size=14).map(b"".join)
# Whole lines of the kind that decides how long a message is: pieces seldom make one.
_NAMES = st.sampled_from([b"Content-Length", b"transfer-encoding", b"Transfer-Encoding", b"Connection", b"Upgrade"])
_VALUES = st.sampled_from([b"", b"0", b"00", b"5", b"-1", b"1,1", b"1" * 20, b"1" * 21, b"chunked", b"close", b"h2c"])
_LINES = st.lists(st.tuples(_NAMES, _VALUES).map(b": ".join), max_size=3).map(b"\r\n".join)
_STATUS = st.sampled_from([b"200 OK", b"204 No Content", b"304 Not Modified", b"101 Switching Protocols"])


def _head(status: bytes, lines: bytes) -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + lines + (b"\r\n\r\n" if lines else b"\r\n")


@given(st.one_of(_HEADS, st.builds(_head, _STATUS, _HEADS), st.builds(_head, _STATUS, _LINES)))
@settings(max_examples=300)
def test_h11_reads_the_same_whatever_it_is(data: bytes) -> None:
    """Of any bytes: what is read here h11 reads too, and finds the same in it."""
    answer = parse_answer(data)
    if answer is not None and (answer.status == 101 or answer.status >= 200):
        assert (answer.status, answer.headers, answer.rest) == by_h11(data)


@pytest.mark.parametrize("fields", [[], [(b"X-A", b"b c"), (b"x-a", b"")], [(b"Content-Length", b"0")]])
def test_a_request_is_written_as_h11_writes_it(fields: list[tuple[bytes, bytes]]) -> None:
    """Byte by byte."""
    lines = [(b"Host", b"h"), *fields]
    request = h11.Request(method="POST", target="/grpc?a=b", headers=lines)
    assert serialize_request("POST", "/grpc?a=b", lines) == h11.Connection(h11.CLIENT).send(request)


@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        ("PO ST", "/", []),
        ("", "/", []),
        ("POST", "", []),
        ("POST", "http://x/", []),
        ("POST", "/a b", []),
        ("POST", "/\r\n", []),
        ("POST", "/\N{LATIN SMALL LETTER E WITH ACUTE}", []),
        ("POST", "/", [(b"", b"x")]),
        ("POST", "/", [(b"A b", b"x")]),
        ("POST", "/", [(b"A", b"x\r\nB: y")]),
        ("POST", "/", [(b"A", b"\xff")]),
        ("POST", "/", [(b"A", b" x")]),
    ],
)
def test_a_request_that_is_unusual_is_left_to_h11(method: str, target: str, fields: list[tuple[bytes, bytes]]) -> None:
    """Which writes it, or says what is wrong with it."""
    assert serialize_request(method, target, [(b"Host", b"h"), *fields]) is None

"""The upgrade handshake, byte by byte."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from mobysession import errors, limits
from mobysession.protocol.handshake import Upgraded, UpgradeHandshake

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


def refusal(status: str, body: bytes, content_type: str = "application/json") -> bytes:
    """Write an answer of an error status."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def pieces(answer: bytes) -> Iterator[list[bytes]]:
    """All ways to cut once, and the one that cuts everywhere."""
    yield [answer]
    for place in range(1, len(answer)):
        yield [answer[:place], answer[place:]]
    yield [answer[place : place + 1] for place in range(len(answer))]


def shake(chunks: list[bytes]) -> Upgraded | None:
    """Feed the answer in these pieces, and then its end, to a handshake."""
    handshake = UpgradeHandshake("/session", peer="the daemon")
    handshake.data_to_send()
    upgraded = None
    for position, chunk in enumerate(chunks):
        upgraded = handshake.receive_data(chunk)
        if upgraded is not None:
            # What was not fed yet is still on the wire: whoever reads on gets it.
            upgraded.leftover += b"".join(chunks[position + 1 :])
            return upgraded
    return handshake.receive_data(b"")


def test_request_is_what_the_daemon_expects_and_nothing_follows_it() -> None:
    """The request upgrades to h2c, keeps the order and the repetition of header lines, and is all that is sent."""
    handshake = UpgradeHandshake(
        "/session", [("X-A", "1"), ("X-M", "/a/b"), ("X-M", "/c/d"), ("X-Empty", "")], host="h"
    )
    expected = (
        b"POST /session HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"X-A: 1\r\nX-M: /a/b\r\nX-M: /c/d\r\nX-Empty: \r\nContent-Length: 0\r\n\r\n"
    )
    assert handshake.data_to_send() == expected
    assert handshake.data_to_send() == b""


def test_header_lines_that_frame_the_message_are_not_taken_from_the_user() -> None:
    """A Host, Connection, Upgrade, Content-Length or Transfer-Encoding among the user's lines is dropped."""
    names = ("Host", "connection", "UPGRADE", "Content-Length", "Transfer-Encoding", "Keep-Alive")
    plain, crowded = UpgradeHandshake("/session"), UpgradeHandshake("/session", [(name, "x") for name in names])
    assert crowded.data_to_send() == plain.data_to_send()


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/a b", []),
        ("/ä", []),
        ("", []),
        ("/session", [("Na me", "x")]),
        ("/session", [("", "x")]),
        ("/session", [("Name", "a\r\nEvil: b")]),
        ("/session", [("Name", "a\0")]),
    ],
)
def test_what_cannot_be_written_is_refused_without_showing_values(target: str, fields: list[tuple[str, str]]) -> None:
    """A target or a header line that would break the request is the caller's error, and no value is in the message."""
    with pytest.raises(errors.UsageError) as caught:
        UpgradeHandshake(target, fields)
    assert "Evil" not in str(caught.value)


@pytest.mark.parametrize(
    "head",
    [
        ACCEPTED,
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nUpgrade: H2C\r\n\r\n",
        b"HTTP/1.1 101\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + ACCEPTED,
    ],
    ids=["plain", "docker-phrase", "no-phrase", "after-100"],
)
@pytest.mark.parametrize("behind", [b"", b"P", PREFACE], ids=["alone", "one-byte", "preface"])
def test_every_split_of_an_acceptance_gives_the_same_leftover(head: bytes, behind: bytes) -> None:
    """However the answer is cut, the handshake ends with the head and every byte behind it is kept."""
    for chunks in pieces(head + behind):
        upgraded = shake(chunks)
        assert upgraded is not None
        assert upgraded.leftover == behind


def test_an_acceptance_in_pieces_needs_no_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines write its lines one by one, and what reads it first may get them so: loading h11 would cost 20 ms."""
    monkeypatch.setitem(sys.modules, "h11", None)
    for chunks in pieces(ACCEPTED + PREFACE):
        assert shake(chunks) is not None


def test_acceptance_shows_the_status_line_and_the_header_lines() -> None:
    """Status line and header lines are as the daemon wrote them, the names in lower case."""
    upgraded = shake([b"HTTP/1.1 101 UPGRADED\r\nX-Thing: One\r\nUpgrade: h2c\r\n\r\n"])
    assert upgraded is not None
    assert upgraded.status_line == "HTTP/1.1 101 UPGRADED"
    assert upgraded.headers == (("x-thing", "One"), ("upgrade", "h2c"))


CHUNKED = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5\r\n{"mes\r\nc\r\nsage":"no"}\n\r\n0\r\n\r\n'
)
REFUSALS = {
    "bad-request": (
        refusal("400 Bad Request", b'{"message":"no upgrade proto in request"}\n'),
        400,
        "no upgrade proto",
    ),
    "not-found": (refusal("404 Not Found", b'{"message":"page not found"}'), 404, "page not found"),
    "forbidden": (refusal("403 Forbidden", b'{"message":"authorization denied by x"}'), 403, "authorization denied"),
    "chunked": (CHUNKED, 500, "no"),
    "plain": (refusal("400 Bad Request", b"client is too old\n", "text/plain"), 400, "client is too old"),
    "html": (refusal("502 Bad Gateway", b"<html><b>oh</b></html>", "text/html"), 502, "Bad Gateway"),
    "empty": (refusal("503 Service Unavailable", b""), 503, "Service Unavailable"),
    "no-phrase": (b"HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n", 503, "no reason given"),
    "until-close": (b'HTTP/1.0 500 Oops\r\n\r\n{"message":"up to\n the end"}', 500, "up to the end"),
    "body-cut-off": (b"HTTP/1.1 500 Oops\r\nContent-Length: 50\r\n\r\nhalf a sent", 500, "half a sent"),
    "broken-chunk": (b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwhy\r\nzz\r\n", 500, "why"),
    "odd-json": (refusal("500 Oops", b'{"message": 3}'), 500, '{"message": 3}'),
    "broken-json": (refusal("500 Oops", b'{"mess'), 500, '{"mess'),
    "escapes": (refusal("500 Oops", b'{"message":"a\\u001b[31mb\\nc"}'), 500, "a[31mb c"),
    "redirect": (b"HTTP/1.1 301 Moved Permanently\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 301, "Moved"),
    "ok": (b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n", 200, "OK"),
    "websocket": (ACCEPTED.replace(b"h2c", b"websocket"), 101, "'websocket'"),
    "upgrade-to-nothing": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", 101, "does not say to what"),
}


@pytest.mark.parametrize(("answer", "status", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_every_split_of_a_refusal_gives_the_daemons_own_words(answer: bytes, status: int, reason: str) -> None:
    """However the refusal is cut, its status and the daemon's words are in the error, in one line."""
    for chunks in pieces(answer):
        with pytest.raises(errors.UpgradeRefused) as caught:
            shake(chunks)
        assert type(caught.value) is errors.UpgradeRefused
        assert caught.value.status == status
        assert reason in caught.value.reason
        assert caught.value.reason in str(caught.value)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (refusal("400 Bad Request", b'{"message":"no"}'), "Connection and Upgrade"),
        (refusal("404 Not Found", b'{"message":"page not found"}'), "18.09 or newer"),
        (refusal("500 Oops", b'{"message":"no"}'), "log says more"),
        (refusal("507 Oops", b'{"message":"no"}'), "log says more"),
        (refusal("401 Unauthorized", b"", "text/html"), "HttpHeaders"),
        (refusal("502 Bad Gateway", b"<html>", "text/html"), "cannot reach it"),
        (b"HTTP/1.1 500 Oops\r\nServer: Docker/28.5.2 (linux)\r\n\r\n", "log says more"),
        (b"HTTP/1.1 500 Oops\r\nApi-Version: 1.51\r\n\r\n", "log says more"),
        (refusal("405 Not Allowed", b"<html>", "text/html"), "Nothing in its answer tells of a Docker daemon"),
        (b"HTTP/1.0 501 No\r\nServer: SimpleHTTP/0.6\r\n\r\n", "It says that it is SimpleHTTP/0.6, and nothing in"),
        (
            b"HTTP/1.1 200 OK\r\nServer: a\x1b[31m\r\nContent-Length: 1\r\n\r\nx",
            "is a\\[31m, and",
        ),
    ],
)
def test_a_refusal_ends_in_a_hint(answer: bytes, hint: str) -> None:
    """On what stands in between, on the daemon's log, or that this seems to be no Docker daemon at all."""
    with pytest.raises(errors.TransportError) as caught:
        shake([answer, b""])
    assert re.search(hint, caught.value.hint or "")
    assert (caught.value.hint or "").isprintable()


def test_what_is_no_http_is_not_told_in_the_words_of_a_library() -> None:
    """The message speaks of the answer, the hint of what to check; the detail is the cause's."""
    with pytest.raises(errors.HandshakeError) as caught:
        shake([b"HTTP/1.1 abc\r\n\r\n"])
    assert caught.value.message == "the answer of the daemon to POST /session is not valid HTTP/1.1"
    assert caught.value.hint
    assert "illegal status line" in str(caught.value.__cause__)


def test_a_taken_session_id_is_an_error_of_its_own() -> None:
    """The daemon's ``already exists`` is told from other refusals, so that a caller can wait or choose another ID."""
    with pytest.raises(errors.SessionIdInUse) as caught:
        shake([refusal("400 Bad Request", b'{"message":"session abc already exists"}\n')])
    assert caught.value.status == 400
    assert "session abc already exists" in str(caught.value)


def test_a_refusals_body_is_read_up_to_its_bound_only() -> None:
    """An endless explanation ends at the bound; one of exactly that size is read to its end."""
    head = b"HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\n\r\n"
    handshake = UpgradeHandshake("/session")
    assert handshake.receive_data(head + b"x" * limits.MAX_REFUSAL_BODY) is None
    with pytest.raises(errors.UpgradeRefused, match="xxx"):
        handshake.receive_data(b"x")


def test_a_head_may_be_as_long_as_the_bound_and_no_longer() -> None:
    """A long head is read up to the bound; beyond it the daemon is not worth listening to."""
    line = b"X-Long: %s\r\n\r\n"
    fits = limits.MAX_HEAD - len(ACCEPTED) - len(line)
    handshake = UpgradeHandshake("/session")
    assert handshake.receive_data(ACCEPTED[:-2] + (line % (b"a" * fits))[:-4]) is None
    assert handshake.receive_data(b"\r\n\r\n") is not None
    handshake = UpgradeHandshake("/session")
    with pytest.raises(errors.HandshakeError, match="not valid HTTP"):
        handshake.receive_data(ACCEPTED[:-2] + (line % (b"a" * (fits + 64)))[:-4])


NOT_DAEMONS = {
    "tls-alert": (b"\x15\x03\x01\x00\x02\x02\x46", errors.TLSError, "speaks TLS"),
    "http2": (b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00", errors.HandshakeError, "HTTP/2"),
    "ssh": (b"SSH-2.0-OpenSSH_9.2p1\r\n", errors.HandshakeError, "SSH-2.0"),
    "short": (b"no", errors.HandshakeError, "b'no'"),
    "old-http": (b"HTTP/2 101 Switching\r\n\r\n", errors.HandshakeError, "HTTP/2 10"),
    "bad-head": (b"HTTP/1.1 abc\r\n\r\n", errors.HandshakeError, "not valid HTTP"),
    "bad-line": (b"HTTP/1.1 101 Sw\r\nno colon\r\n\r\n", errors.HandshakeError, "not valid HTTP"),
    "go-tls": (
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
        errors.TLSError,
        "speaks TLS",
    ),
    "nothing": (b"", errors.ConnectionLost, "without an answer"),
    "half-a-head": (b"HTTP/1.1 101 Switching Protocols\r\nUpgr", errors.ConnectionLost, "in the middle"),
}


@pytest.mark.parametrize(("answer", "kind", "words"), NOT_DAEMONS.values(), ids=NOT_DAEMONS)
def test_every_split_of_what_is_no_daemon_is_told_for_what_it_is(
    answer: bytes, kind: type[errors.MobysessionError], words: str
) -> None:
    """However it is cut, an answer that no daemon gives is named after what it is."""
    for chunks in pieces(answer):
        with pytest.raises(kind) as caught:
            shake(chunks)
        assert type(caught.value) is kind
        assert words in str(caught.value)
        assert "the daemon" in str(caught.value)


def test_garbage_is_refused_before_it_ends() -> None:
    """What cannot become HTTP is refused at once, and not when its first line or the connection ends."""
    with pytest.raises(errors.HandshakeError, match="does not speak HTTP"):
        UpgradeHandshake("/session").receive_data(b"220 mail.example.com ESMTP")


@pytest.mark.parametrize(
    ("heard", "kind", "words"),
    [
        (b"", errors.HandshakeTimeout, "did not answer"),
        (b"HTTP/1.1 101 Switching", errors.HandshakeTimeout, "did not end its answer"),
        (b"\x15\x03\x01", errors.TLSError, "speaks TLS"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\nhalf", errors.UpgradeRefused, "half"),
    ],
)
def test_an_answer_that_never_ends_is_judged_by_what_was_heard(
    heard: bytes, kind: type[errors.MobysessionError], words: str
) -> None:
    """At the end of patience, the error says the most that is known."""
    handshake = UpgradeHandshake("/session")
    if heard:
        assert handshake.receive_data(heard) is None
    failure = handshake.timed_out(20)
    assert type(failure) is kind
    assert words in str(failure)

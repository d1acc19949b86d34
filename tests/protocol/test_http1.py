"""What all HTTP/1.1 answers have in common."""

from __future__ import annotations

import pytest

from mobysession import errors
from mobysession.protocol.http1 import encode_fields, error_message, one_line


def test_header_lines_are_sent_in_order_as_utf8() -> None:
    """Order and repetition are kept, values are trimmed and may hold any character that is no control."""
    fields = [("X-B", " two "), ("X-A", "ö"), ("x-b", "again")]
    assert encode_fields(fields) == [(b"X-B", b"two"), (b"X-A", "ö".encode()), (b"x-b", b"again")]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ä", "a\n", "a(b"])
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    """The name of a header line must be a token."""
    with pytest.raises(errors.UsageError, match="cannot be the name"):
        encode_fields([(name, "x")])


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b'{"message":"no"}\n', "application/json", "no"),
        (b'{"message":"no"}\n', "", "no"),
        (b'{"other":"no"}', "application/json", '{"other":"no"}'),
        (b"[1]", "application/json", "[1]"),
        (b'{"a":' * 12000, "application/json", ('{"a":' * 12000)[:2000]),
        (b"plain words\n", "text/plain", "plain words"),
        (b"<h1>no</h1>", "", ""),
        (b"words", "text/html; charset=utf-8", ""),
        (b"\xff\xfe", "", "\ufffd\ufffd"),
        (b"", "application/json", ""),
    ],
)
def test_an_error_body_is_read_for_its_own_words(body: bytes, content_type: str, message: str) -> None:
    """JSON gives its message, plain text itself, HTML nothing."""
    assert error_message(body, content_type, peer="x") == message


def test_gos_answer_to_plain_text_on_a_tls_port_is_a_tls_error() -> None:
    """The sentence of Go's server leads to the advice to use TLS."""
    with pytest.raises(errors.TLSError, match="box speaks TLS") as caught:
        error_message(b"Client sent an HTTP request to an HTTPS server.\n", "", peer="box")
    assert "DOCKER_TLS_VERIFY" in str(caught.value.hint)


def test_a_peers_text_becomes_one_printable_line_of_bounded_length() -> None:
    """Line ends become spaces, control characters vanish, and endless text is cut."""
    assert one_line(" a\r\n\tb\x1b[2J\x00c ") == "a b[2Jc"
    assert len(one_line("x" * 10_000)) == 2000

"""The end of a call in trailers, and what stands in where trailers are missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobysession import limits
from mobysession.errors import StatusCode
from mobysession.protocol.status import (
    decode_message,
    encode_message,
    parse_status,
    serialize_status,
    status_from_http,
    status_from_reset,
)


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("plain text ~", b"plain text ~"),
        ("100%", b"100%25"),
        ("ä\n", b"%C3%A4%0A"),
        ("\x7f\x1f", b"%7F%1F"),
        ("", b""),
        ("\udcff", b"%FF"),
        (" both ends ", b"%20both ends%20"),
        (" ", b"%20"),
    ],
)
def test_percent_encoding(text: str, encoded: bytes) -> None:
    """Bytes outside printable ASCII, and the percent sign, are escaped."""
    assert encode_message(text) == encoded


@given(st.text(st.characters(codec="utf-8"), max_size=2000))
def test_message_round_trip(text: str) -> None:
    """Every text comes back as it went."""
    assert decode_message(encode_message(text)) == text


def test_long_messages_are_cut() -> None:
    """Trailers must fit into the peer's header list: 8 KiB of text are sent and no more."""
    assert encode_message("x" * 8192) == b"x" * 8192
    assert encode_message("x" * 8193) == b"x" * 8192


def test_long_messages_are_cut_between_characters() -> None:
    """The encoded form stays within the bound, and no character is cut in two."""
    assert encode_message("ä" * 8192) == b"%C3%A4" * (8192 // 6)
    assert encode_message("x\ud800") == b"x?"


def test_details_that_are_too_long_are_left_out() -> None:
    """Details over the bound do not cost the status."""
    fits = limits.MAX_STATUS_DETAILS // 4 * 3
    assert len(serialize_status(StatusCode.ABORTED, details=bytes(fits))) == 2
    assert serialize_status(StatusCode.ABORTED, details=bytes(fits + 1)) == [(b"grpc-status", b"10")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"a%20b", "a b"),
        (b"%zz", "%zz"),
        (b"100%", "100%"),
        (b"%2", "%2"),
        (b"%%41", "%A"),
        (b"%c3%a4", "ä"),
        (b"%ff", "�"),
        (b"\xff", "�"),
    ],
)
def test_decoding_is_lenient(value: bytes, text: str) -> None:
    """An invalid escape stays as it is, bytes that are no UTF-8 are replaced."""
    assert decode_message(value) == text


@given(st.binary(max_size=100))
def test_decoding_never_fails(value: bytes) -> None:
    """A status message is for reading; whatever it holds must not hide the status."""
    assert isinstance(decode_message(value), str)


@pytest.mark.parametrize("code", list(StatusCode))
@pytest.mark.parametrize(("message", "details"), [("", b""), ("wörds", b""), ("", b"\x00\x01"), ("x", bytes(100))])
def test_status_round_trip(code: StatusCode, message: str, details: bytes) -> None:
    """Code, message and details come back as they went."""
    assert parse_status(dict(serialize_status(code, message, details))) == (code, message, details)


def test_only_what_is_there_is_sent() -> None:
    """An empty message and empty details take no header field."""
    assert serialize_status(StatusCode.OK) == [(b"grpc-status", b"0")]


@pytest.mark.parametrize("raw", [b"17", b"-1", b"x", b"", b"1.0", b"+0", b" 0", b"0_0"])
def test_codes_that_grpc_does_not_define(raw: bytes) -> None:
    """An unknown code is UNKNOWN with its own message, or else says what it was."""
    parsed = parse_status({b"grpc-status": raw, b"grpc-message": b"words"})
    assert parsed == (StatusCode.UNKNOWN, "words", b"")
    parsed = parse_status({b"grpc-status": raw})
    assert parsed == (StatusCode.UNKNOWN, f"malformed grpc-status {raw!r}", b"")


def test_missing_status() -> None:
    """Trailers without a status have none."""
    assert parse_status({b"other": b"x"}) is None


def test_broken_details() -> None:
    """Details that are no base64 are left out; the status counts."""
    fields = {b"grpc-status": b"5", b"grpc-message": b"gone", b"grpc-status-details-bin": b"!"}
    assert parse_status(fields) == (StatusCode.NOT_FOUND, "gone", b"")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, StatusCode.INTERNAL),
        (401, StatusCode.UNAUTHENTICATED),
        (403, StatusCode.PERMISSION_DENIED),
        (404, StatusCode.UNIMPLEMENTED),
        (429, StatusCode.UNAVAILABLE),
        (502, StatusCode.UNAVAILABLE),
        (503, StatusCode.UNAVAILABLE),
        (504, StatusCode.UNAVAILABLE),
        (500, StatusCode.UNKNOWN),
        (200, StatusCode.UNKNOWN),
    ],
)
def test_status_of_http(status: int, code: StatusCode) -> None:
    """HTTP's status stands in where there is no gRPC status, by gRPC's own table."""
    assert status_from_http(status) is code


@pytest.mark.parametrize(
    ("error_code", "code"),
    [
        (0, StatusCode.INTERNAL),
        (1, StatusCode.INTERNAL),
        (7, StatusCode.UNAVAILABLE),
        (8, StatusCode.CANCELLED),
        (11, StatusCode.RESOURCE_EXHAUSTED),
        (12, StatusCode.PERMISSION_DENIED),
        (255, StatusCode.INTERNAL),
    ],
)
def test_status_of_a_reset(error_code: int, code: StatusCode) -> None:
    """A reset's error code stands in where there are no trailers, by gRPC's own table."""
    assert status_from_reset(error_code) is code

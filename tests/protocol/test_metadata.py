"""Metadata as header fields, and BuildKit's escaped values."""

from __future__ import annotations

import base64
import binascii

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobysession.errors import LocalProtocolError, RpcError, StatusCode
from mobysession.protocol.metadata import (
    RESERVED_KEYS,
    decode_base64,
    decode_metadata,
    encode_metadata,
    encoded_values,
    values,
)


def test_order_and_repetition_are_kept() -> None:
    """Text and bytes come back as they went, in order, with repeated keys."""
    metadata: list[tuple[str, str | bytes]] = [("b", "2"), ("a", "1"), ("x-bin", b"\x00\xff"), ("b", "3"), ("e", "")]
    assert decode_metadata(encode_metadata(metadata)) == metadata


@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.from_regex(r"[a-z0-9._-]{1,10}", fullmatch=True).filter(
                    lambda key: not key.endswith("-bin") and not key.startswith("grpc-") and key not in RESERVED_KEYS
                ),
                st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)).map(lambda text: text.strip(" ")),
            ),
            st.tuples(st.just("x-bin"), st.binary()),
        )
    )
)
def test_round_trip(metadata: list[tuple[str, str | bytes]]) -> None:
    """Whatever may be encoded is decoded to the same."""
    assert decode_metadata(encode_metadata(metadata)) == metadata


def test_reserved_keys_are_left_out() -> None:
    """What HTTP/2 forbids, and what it and gRPC say themselves, is passed over wherever metadata are sent."""
    names = "connection content-length content-type host keep-alive proxy-connection te transfer-encoding upgrade"
    reserved = [*names.split(), "user-agent"]
    assert encode_metadata([("a", "1"), *((name, "x") for name in reserved), ("b", "2")]) == [
        (b"a", b"1"),
        (b"b", b"2"),
    ]


@pytest.mark.parametrize("key", ["", "Upper", "grpc-status", "sp ace", "ä", ":path", "new\nline"])
def test_bad_keys(key: str) -> None:
    """A key outside gRPC's alphabet, or of gRPC itself, is the caller's mistake."""
    with pytest.raises(LocalProtocolError, match="cannot be a metadata key"):
        encode_metadata([(key, "x")])


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("a-bin", "text", "takes bytes"),
        ("a", b"bytes", "takes text"),
        ("a", "ä", "outside printable ASCII"),
        ("a", "a\nb", "outside printable ASCII"),
        ("a", "a\x7f", "outside printable ASCII"),
    ],
)
def test_bad_values(key: str, value: str | bytes, text: str) -> None:
    """Values of the wrong type or with the wrong characters are refused by the name of their key."""
    with pytest.raises(LocalProtocolError, match=text):
        encode_metadata([(key, value)])


def test_surrounding_spaces_are_not_sent() -> None:
    """gRPC lets peers strip spaces around values, and some hang up over them."""
    assert encode_metadata([("a", "  x y ")]) == [(b"a", b"x y")]


def test_fields_that_are_no_metadata() -> None:
    """Pseudo fields, gRPC's own and HTTP's are left out."""
    names = (b":path", b"te", b"content-type", b"user-agent", b"grpc-timeout", b"grpc-accept-encoding")
    assert decode_metadata([(name, b"x") for name in names] + [(b"tea", b"y")]) == [("tea", "y")]


@pytest.mark.parametrize("size", range(7))
def test_binary_padded_and_unpadded(size: int) -> None:
    """Base64 is read with and without padding, and written without."""
    value = bytes(range(size))
    padded = base64.b64encode(value)
    assert decode_metadata([(b"x-bin", padded)]) == [("x-bin", value)]
    assert decode_metadata([(b"x-bin", padded.rstrip(b"="))]) == [("x-bin", value)]
    assert encode_metadata([("x-bin", value)]) == [(b"x-bin", padded.rstrip(b"="))]


def test_binary_joined_by_commas() -> None:
    """A comma separates values, with or without a space behind it."""
    assert decode_metadata([(b"x-bin", b"YQ==,Yg, Yw==")]) == [("x-bin", b"a"), ("x-bin", b"b"), ("x-bin", b"c")]


@pytest.mark.parametrize("value", [b"a", b"ab=c", b"!!!!", b"YQ===", b"Y\nQ", b"\xff\xff\xff"])
def test_invalid_binary(value: bytes) -> None:
    """What is not base64 ends the call, naming the key and not the value."""
    with pytest.raises(RpcError, match=r"metadata 'x-bin' is not base64") as caught:
        decode_metadata([(b"x-bin", value)])
    assert caught.value.code is StatusCode.INTERNAL
    with pytest.raises(binascii.Error):
        decode_base64(value)


def test_raw_bytes_in_text() -> None:
    """Older engines send file names raw: UTF-8 is decoded, other bytes survive."""
    assert decode_metadata([(b"a", "ä".encode()), (b"a", b"\xff")]) == [("a", "ä"), ("a", "\udcff")]


def test_values() -> None:
    """All text values of a key are found, in order, and no bytes."""
    assert values([("a", "1"), ("b", "2"), ("a", "3"), ("a", b"4")], "a") == ["1", "3"]
    assert values([], "a") == []


@pytest.mark.parametrize("companion", ["1", "t", "T", "TRUE", "true", "True"])
def test_escaped_values(companion: str) -> None:
    """With a true companion every value is unescaped; one with an invalid escape becomes empty."""
    metadata = [
        ("p", "a+b"),
        ("p", "a%20b%2Bc%c3%a4"),
        ("p", "%FF"),
        ("p-encoded", companion),
        ("p", "100%"),
        ("p", "%g0"),
        ("p", "%2"),
        ("p", "plain"),
        ("p", "ä%20ö"),
        ("p", "\udcfe%41"),
    ]
    expected = ["a b", "a b+cä", "\udcff", "", "", "", "plain", "ä ö", "\udcfeA"]
    assert encoded_values(metadata, "p") == expected


@pytest.mark.parametrize("companion", [[], [("p-encoded", "false")], [("p-encoded", "yes")], [("p-encoded", "")]])
def test_values_that_are_not_escaped(companion: list[tuple[str, str | bytes]]) -> None:
    """Without a true companion values are what they are."""
    assert encoded_values([("p", "a+b%20c"), *companion], "p") == ["a+b%20c"]

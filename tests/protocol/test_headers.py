"""Header lists that HTTP/2 calls malformed, and requests that are no gRPC."""

from __future__ import annotations

import pytest

from mobysession.protocol.headers import is_malformed, refuse_request

REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C"), (b"te", b"trailers")]


def test_well_formed() -> None:
    """What gRPC sends passes, also with spaces around a value and with raw bytes."""
    assert not is_malformed([(b":authority", b"x"), *REQUEST, (b"a", b" x "), (b"a", b"\xff\t")], "request")
    assert not is_malformed([(b":status", b"200"), (b"content-type", b"application/grpc")], "response")
    assert not is_malformed([(b"grpc-status", b"0")], "trailers")


@pytest.mark.parametrize("missing", range(3))
def test_missing_pseudo_fields(missing: int) -> None:
    """A request needs its method, scheme and path, a response its status."""
    assert is_malformed(REQUEST[:missing] + REQUEST[missing + 1 :], "request")
    assert is_malformed([(b"a", b"x")], "response")


@pytest.mark.parametrize(
    "fields",
    [
        [(b":method", b"POST")],
        [(b":status", b"200")],
        [(b":unknown", b"x")],
        [(b"a", b"x"), (b":authority", b"x")],
        [(b"", b"x")],
        [(b"Upper", b"x")],
        [(b"with space", b"x")],
        [(b"\xff", b"x")],
        [(b"connection", b"close")],
        [(b"transfer-encoding", b"chunked")],
        [(b"te", b"gzip")],
        [(b"a", b"x\r\ny: z")],
        [(b"a", b"x\0")],
        [(b"content-length", b"-1")],
        [(b"content-length", b"9" * 21)],
        [(b"content-length", b"1"), (b"content-length", b"2")],
    ],
)
def test_malformed(fields: list[tuple[bytes, bytes]]) -> None:
    """Repeated, late and foreign pseudo fields, bad names and values, and HTTP/1.1's own fields are malformed."""
    assert is_malformed(REQUEST[:3] + fields, "request")


def test_pseudo_fields_in_trailers() -> None:
    """Trailers have no pseudo fields."""
    assert is_malformed([(b":status", b"200")], "trailers")


@pytest.mark.parametrize(
    "content_type", [b"application/grpc", b"application/grpc+proto", b"application/grpc;charset=x"]
)
def test_grpc_is_not_refused(content_type: bytes) -> None:
    """Every spelling of gRPC's content type is taken."""
    assert refuse_request({b":method": b"POST", b"content-type": content_type}) is None


@pytest.mark.parametrize("content_type", [None, b"", b"text/plain", b"application/grpcweb", b"application/grp"])
def test_other_content_is_refused(content_type: bytes | None) -> None:
    """Anything else is answered 415."""
    fields = {b":method": b"POST"} | ({} if content_type is None else {b"content-type": content_type})
    refusal = refuse_request(fields)
    assert refusal is not None
    headers, body = refusal
    assert headers[0] == (b":status", b"415")
    assert (b"content-length", b"%d" % len(body)) in headers
    assert b"application/grpc" in body


def test_other_methods_are_refused() -> None:
    """Only POST is a call; the answer says so."""
    get, head = refuse_request({b":method": b"GET"}), refuse_request({b":method": b"HEAD"})
    assert get is not None
    assert head is not None
    assert get[0] == head[0]
    assert get[0][:2] == [(b":status", b"405"), (b"allow", b"POST")]
    assert get[1].endswith(b"POST\n")
    assert head[1] == b""

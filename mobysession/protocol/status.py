"""How a gRPC call ends: ``grpc-status``, ``grpc-message`` and ``grpc-status-details-bin`` in the trailers.

The message is percent-encoded: bytes 0x20 to 0x7E except ``%`` stand for themselves. Where the trailers are missing,
HTTP's own status or the reset's error code has to do (grpc/grpc doc/PROTOCOL-HTTP2.md and
doc/http-grpc-status-mapping.md).
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from mobysession import limits
from mobysession.errors import StatusCode
from mobysession.protocol.metadata import decode_base64

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "decode_message",
    "encode_message",
    "parse_status",
    "serialize_status",
    "status_from_http",
    "status_from_reset",
]

_FROM_HTTP = {
    400: StatusCode.INTERNAL,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.UNIMPLEMENTED,
    429: StatusCode.UNAVAILABLE,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.UNAVAILABLE,
}

_FROM_RESET = {
    0x7: StatusCode.UNAVAILABLE,  # REFUSED_STREAM
    0x8: StatusCode.CANCELLED,  # CANCEL
    0xB: StatusCode.RESOURCE_EXHAUSTED,  # ENHANCE_YOUR_CALM
    0xC: StatusCode.PERMISSION_DENIED,  # INADEQUATE_SECURITY
}


def encode_message(text: str) -> bytes:
    """Return ``text`` percent-encoded; the characters that go over `limits.MAX_STATUS_MESSAGE` are left out."""
    encoded = bytearray()
    for character in text[: limits.MAX_STATUS_MESSAGE]:
        escaped = _escape(character)
        if len(encoded) + len(escaped) > limits.MAX_STATUS_MESSAGE:
            break
        encoded += escaped
    return _without_edges(bytes(encoded))


def _without_edges(encoded: bytes) -> bytes:
    """Escape a space at either end: a field's value has none there (RFC 9113 section 8.2.1)."""
    if encoded.startswith(b" "):
        encoded = b"%20" + encoded[1:]
    return encoded[:-1] + b"%20" if encoded.endswith(b" ") else encoded


def _escape(character: str) -> bytes:
    try:
        raw = character.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raw = b"?"
    return b"".join(bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in raw)


def decode_message(value: bytes) -> str:
    """Return the text of a ``grpc-message``; an invalid escape stays as it is."""
    first, *rest = value.split(b"%")
    decoded = bytearray(first)
    for part in rest:
        try:
            # Nothing behind the percent sign is invalid too, but nothing is valid hexadecimal.
            decoded += binascii.unhexlify(part[:2] or b"?")
            decoded += part[2:]
        except binascii.Error:
            decoded += b"%" + part
    return decoded.decode("utf-8", "replace")


def serialize_status(code: StatusCode, message: str = "", details: bytes = b"") -> list[tuple[bytes, bytes]]:
    """Return the header fields that end a call; ``details`` is a serialized ``google.rpc.Status``.

    Details over `limits.MAX_STATUS_DETAILS` are left out: they only explain, and must not cost the status.
    """
    fields = [(b"grpc-status", b"%d" % code)]
    if message:
        fields.append((b"grpc-message", encode_message(message)))
    encoded = binascii.b2a_base64(details, newline=False).rstrip(b"=")
    if 0 < len(encoded) <= limits.MAX_STATUS_DETAILS:
        fields.append((b"grpc-status-details-bin", encoded))
    return fields


def parse_status(headers: Mapping[bytes, bytes]) -> tuple[StatusCode, str, bytes] | None:
    """Return code, message and details from the trailers' fields; None where they hold no ``grpc-status``.

    A code that gRPC does not define is UNKNOWN, and the message stays; details that are no base64 are simply missing:
    they only explain.
    """
    raw = headers.get(b"grpc-status")
    if raw is None:
        return None
    message = decode_message(headers.get(b"grpc-message", b""))
    try:
        # `int` alone takes signs, spaces and underscores, and what is no number must not mean OK.
        code = StatusCode(int(raw) if raw.isdigit() else -1)
    except ValueError:
        code = StatusCode.UNKNOWN
        message = message or f"malformed grpc-status {raw[:32]!r}"
    try:
        details = decode_base64(headers.get(b"grpc-status-details-bin", b""))
    except ValueError:
        details = b""
    return code, message, details


def status_from_http(status: int) -> StatusCode:
    """Return the code that stands for an HTTP status other than 200."""
    return _FROM_HTTP.get(status, StatusCode.UNKNOWN)


def status_from_reset(error_code: int) -> StatusCode:
    """Return the code that stands for a RST_STREAM."""
    return _FROM_RESET.get(error_code, StatusCode.INTERNAL)

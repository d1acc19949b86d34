"""gRPC metadata as header fields, and BuildKit's encoding of values that headers cannot carry.

Keys ending in ``-bin`` hold bytes, as base64 with or without padding, several values possibly joined by commas; all
others hold text. Order and repetition are kept (grpc/grpc doc/PROTOCOL-HTTP2.md). BuildKit adds a convention of its
own: when the companion ``<key>-encoded`` is true, every value of ``<key>`` is URL query escaped (moby/buildkit
    session/filesync).
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, TypeAlias

from mobysession.errors import LocalProtocolError, RpcError, StatusCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "RESERVED_KEYS",
    "Metadata",
    "decode_base64",
    "decode_metadata",
    "encode_metadata",
    "encoded_values",
    "values",
]

Metadata: TypeAlias = "Sequence[tuple[str, str | bytes]]"

_KEY_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
#: Header fields of gRPC itself that are no metadata.
_RESERVED = frozenset((b"te", b"content-type", b"user-agent"))
#: What gRPC and HTTP/2 say themselves, or what HTTP/2 forbids (RFC 9113 section 8.2.2).
RESERVED_KEYS = frozenset(
    {"connection", "content-length", "content-type", "host", "keep-alive", "proxy-connection", "te"}
    | {"transfer-encoding", "upgrade", "user-agent"}
)
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))


def encode_metadata(metadata: Sequence[tuple[str, str | bytes]]) -> list[tuple[bytes, bytes]]:
    """Return ``metadata`` as header fields, without `RESERVED_KEYS`, which are passed over.

    Whoever passes on the metadata of another call has such keys in it and does not mean them; a peer would reset the
    call over some, and believe others.

    Raises:
        LocalProtocolError: a key or a value that gRPC does not allow.

    Source: grpc/grpc-go internal/transport/http_util.go, isReservedHeader; our list is longer.
    """
    return [(_encode_key(key), _encode_value(key, value)) for key, value in metadata if key not in RESERVED_KEYS]


def _encode_key(key: str) -> bytes:
    if not key or key.startswith("grpc-") or not _KEY_CHARACTERS.issuperset(key):
        raise LocalProtocolError(f"{key!r} cannot be a metadata key")
    return key.encode("ascii")


def _encode_value(key: str, value: str | bytes) -> bytes:
    if key.endswith("-bin"):
        if isinstance(value, str):
            raise LocalProtocolError(f"metadata {key!r} takes bytes")
        return binascii.b2a_base64(value, newline=False).rstrip(b"=")
    if isinstance(value, bytes):
        raise LocalProtocolError(f"metadata {key!r} takes text; keys that end in -bin take bytes")
    if not (value.isascii() and value.isprintable()):
        raise LocalProtocolError(f"metadata {key!r} has a value with characters outside printable ASCII")
    # Spaces around a value mean nothing in gRPC, and some peers end the connection over them.
    return value.strip(" ").encode("ascii")


def decode_metadata(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str | bytes]]:
    """Return the metadata among ``headers``, in their order.

    Text is decoded as UTF-8 with surrogateescape: engines before BuildKit 0.12 send file names raw.

    Raises:
        RpcError: INTERNAL for a ``-bin`` value that is not base64.
    """
    metadata: list[tuple[str, str | bytes]] = []
    for key, value in headers:
        if key[0] == 0x3A or key in _RESERVED or key.startswith(b"grpc-"):
            continue
        name = key.decode("ascii", "replace")
        if key.endswith(b"-bin"):
            metadata.extend((name, _decode_base64(name, part)) for part in value.split(b","))
        else:
            metadata.append((name, value.decode("utf-8", "surrogateescape")))
    return metadata


def decode_base64(text: bytes) -> bytes:
    """Return the bytes of base64 ``text``, padded or not; raise ValueError where it is neither."""
    text = text.strip()
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)


def _decode_base64(name: str, text: bytes) -> bytes:
    try:
        return decode_base64(text)
    except ValueError as error:
        raise RpcError(StatusCode.INTERNAL, f"metadata {name!r} is not base64") from error


def values(metadata: Sequence[tuple[str, str | bytes]], key: str) -> list[str]:
    """Return the text values of ``key``, in order; may be empty."""
    return [value for name, value in metadata if name == key and isinstance(value, str)]


def encoded_values(metadata: Sequence[tuple[str, str | bytes]], key: str) -> list[str]:
    """Return the values of ``key``, unescaped when its companion ``<key>-encoded`` says that they are escaped.

    A value with an invalid escape becomes empty, as in moby/buildkit session/filesync/filesync.go.
    """
    found = values(metadata, key)
    companion = values(metadata, f"{key}-encoded")
    if not companion or companion[0] not in _TRUE:
        return found
    return [_query_unescape(value) for value in found]


def _query_unescape(value: str) -> str:
    first, *rest = value.replace("+", " ").encode("utf-8", "surrogateescape").split(b"%")
    decoded = bytearray(first)
    for part in rest:
        try:
            # Nothing behind the percent sign is invalid too, but nothing is valid hexadecimal.
            decoded += binascii.unhexlify(part[:2] or b"?")
        except binascii.Error:
            return ""
        decoded += part[2:]
    return decoded.decode("utf-8", "surrogateescape")

"""Which header lists HTTP/2 calls malformed (RFC 9113 sections 8.2 and 8.3), as far as gRPC can meet them.

h2 has such checks of its own, but it ends the whole connection over them, and it also refuses values with spaces around
them. BuildKit sends those: a ``COPY`` of a file whose name begins with a space arrives as such a value.
"""

from __future__ import annotations

from mobysession.errors import LocalProtocolError

__all__ = ["ACCEPT_ENCODING", "Headers", "content_length", "encode_pseudo", "is_malformed", "refuse_request"]

Headers = list[tuple[bytes, bytes]]

#: What we can decompress, for the peer to know.
ACCEPT_ENCODING = (b"grpc-accept-encoding", b"identity, gzip")

_REQUEST = frozenset((b":method", b":scheme", b":path"))
_PSEUDO = {
    "request": (_REQUEST, _REQUEST | {b":authority"}),
    "response": (frozenset((b":status",)), frozenset((b":status",))),
    "trailers": (frozenset[bytes](), frozenset[bytes]()),
}
#: What belongs to HTTP/1.1's connections (RFC 9113 section 8.2.2).
_CONNECTION = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
#: As many as 64 bits have.
_LENGTH_DIGITS = 20
_FORBIDDEN_IN_VALUE = b"\0\r\n"


def is_malformed(headers: Headers, kind: str) -> bool:
    """Tell whether ``headers`` break the rules for a "request", a "response" or for "trailers"."""
    required, allowed = _PSEUDO[kind]
    pseudo: set[bytes] = set()
    regular = False
    for name, value in headers:
        if name.startswith(b":"):
            if regular or name in pseudo or name not in allowed:
                return True
            pseudo.add(name)
        else:
            regular = True
            if _is_bad_name(name) or (name == b"te" and value != b"trailers"):
                return True
        if len(value.translate(None, _FORBIDDEN_IN_VALUE)) != len(value):
            return True
    return not required <= pseudo or _has_bad_length(headers)


def _has_bad_length(headers: Headers) -> bool:
    values = [value for name, value in headers if name == b"content-length"]
    return any(not value.isdigit() or len(value) > _LENGTH_DIGITS for value in values) or len(set(map(int, values))) > 1


def content_length(fields: dict[bytes, bytes]) -> int | None:
    """Return the bytes of DATA that well-formed ``fields`` announce; None where they announce none."""
    value = fields.get(b"content-length")
    return int(value) if value is not None else None


def _is_bad_name(name: bytes) -> bool:
    return not name or name in _CONNECTION or name != name.lower() or not name.isascii() or len(name.split()) != 1


def refuse_request(fields: dict[bytes, bytes]) -> Headers | None:
    """Return the HTTP answer to a request that is no gRPC; None for one that is."""
    if fields[b":method"] != b"POST":
        return [(b":status", b"405"), (b"allow", b"POST")]
    content_type = fields.get(b"content-type", b"")
    if content_type != b"application/grpc" and content_type[:17] not in (b"application/grpc+", b"application/grpc;"):
        return [(b":status", b"415")]
    return None


def encode_pseudo(what: str, value: str) -> bytes:
    """Return ``value`` for a pseudo field; LocalProtocolError, saying ``what`` it is, where no field can hold it."""
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise LocalProtocolError(f"{what} {value!r} has characters outside printable ASCII, or spaces")
    return value.encode("ascii")

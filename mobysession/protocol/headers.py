"""Which header lists HTTP/2 calls malformed (RFC 9113 sections 8.2 and 8.3), as far as gRPC can meet them.

h2 has such checks of its own, but it ends the whole connection over them, and it also refuses values with spaces around
them. BuildKit sends those: a ``COPY`` of a file whose name begins with a space arrives as such a value.
"""

from __future__ import annotations

from itertools import chain

from mobysession.errors import LocalProtocolError

__all__ = ["ACCEPT_ENCODING", "Headers", "content_length", "encode_path", "encode_pseudo", "header_list_size"]
__all__ += ["is_grpc", "is_malformed", "refuse_request"]

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
#: Visible ASCII without capitals, and without the colon, which only begins a pseudo field (RFC 9113 section 8.2.1).
_ALLOWED_IN_NAME = bytes(set(range(0x21, 0x7F)) - set(range(0x41, 0x5B)) - {0x3A})
#: What a request for a tunnel has instead of scheme and path (RFC 9113 section 8.5).
_TUNNEL = frozenset((b":method", b":authority"))


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
        if len(value.translate(None, _FORBIDDEN_IN_VALUE)) != len(value) or (not value and name == b":path"):
            return True
    if not required <= pseudo and not (pseudo == _TUNNEL and (b":method", b"CONNECT") in headers):
        return True
    return _has_bad_length(headers)


def _has_bad_length(headers: Headers) -> bool:
    values = [value for name, value in headers if name == b"content-length"]
    return any(not value.isdigit() or len(value) > _LENGTH_DIGITS for value in values) or len(set(map(int, values))) > 1


def header_list_size(headers: Headers) -> int:
    """Return the bytes of a list as HTTP/2 counts them (RFC 9113 section 6.5.2)."""
    return sum(map(len, chain.from_iterable(headers))) + 32 * len(headers)


def content_length(fields: dict[bytes, bytes]) -> int | None:
    """Return the bytes of DATA that well-formed ``fields`` announce; None where they announce none."""
    value = fields.get(b"content-length")
    return int(value) if value is not None else None


def _is_bad_name(name: bytes) -> bool:
    return not name or name in _CONNECTION or bool(name.translate(None, _ALLOWED_IN_NAME))


def refuse_request(fields: dict[bytes, bytes]) -> tuple[Headers, bytes] | None:
    """Return the HTTP answer to a request that is no gRPC, its headers and its body; None for one that is."""
    method = fields[b":method"]
    if method != b"POST":
        headers, text = [(b":status", b"405"), (b"allow", b"POST")], b"gRPC calls are made with POST\n"
    elif not is_grpc(fields):
        headers, text = [(b":status", b"415")], b"gRPC calls have the content type application/grpc\n"
    else:
        return None
    headers += (b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))
    return headers, b"" if method == b"HEAD" else text


def is_grpc(fields: dict[bytes, bytes]) -> bool:
    """Tell whether ``fields`` have a content type of gRPC's."""
    content_type = fields.get(b"content-type", b"")
    return content_type == b"application/grpc" or content_type[:17] in (b"application/grpc+", b"application/grpc;")


def encode_path(method: str) -> bytes:
    """Return the path of a request for ``method``; LocalProtocolError where it is none."""
    if not method.startswith("/"):
        raise LocalProtocolError(f"method {method!r} does not look like /package.Service/Method")
    return encode_pseudo("method", method)


def encode_pseudo(what: str, value: str) -> bytes:
    """Return ``value`` for a pseudo field; LocalProtocolError, saying ``what`` it is, where no field can hold it."""
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise LocalProtocolError(f"{what} {value!r} has characters outside printable ASCII, or spaces")
    return value.encode("ascii")

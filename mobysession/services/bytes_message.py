"""``BytesMessage``, in which BuildKit carries plain streams: one field of bytes, number 1.

Written and read by hand, for its content is the whole of an output or an upload and should not be copied.

Source: moby/buildkit session/filesync/filesync.proto, session/upload/upload.proto.
"""

from __future__ import annotations

from typing import Final

from mobysession.errors import RemoteProtocolError
from mobysession.filesync.packet_fields import decode_varint, encode_varint

__all__ = ["decode_bytes_message", "encode_bytes_message"]

_DATA: Final = 0x0A
#: Bytes of a number of a fixed size, by its wire type.
_FIXED: Final = {1: 8, 5: 4}
_VARINT: Final = 0
_LENGTH: Final = 2


def encode_bytes_message(data: bytes | memoryview) -> bytes:
    """Return ``data`` as a message."""
    return b"".join((bytes((_DATA,)), encode_varint(len(data)), data)) if len(data) else b""


def decode_bytes_message(message: bytes) -> memoryview:
    """Return the data of a message, a view of it; fields that nobody knows are skipped.

    Raises:
        RemoteProtocolError: it is no such message.
    """
    data = memoryview(b"")
    at, end = 0, len(message)
    while at < end:
        tag, at = decode_varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            size, at = 0, _behind_varint(message, at)
        elif kind == _LENGTH:
            size, at = decode_varint(message, at)
        else:
            size = _FIXED.get(kind, end)
        if at + size > end:
            raise RemoteProtocolError("the daemon sent something that is no BytesMessage")
        if tag == _DATA:
            data = memoryview(message)[at : at + size]
        at += size
    return data


def _behind_varint(message: bytes, at: int) -> int:
    while at < len(message) and message[at] >= 0x80:
        at += 1
    return at + 1

"""gRPC's header fields as grpc-go writes and reads them: metadata, timeouts.

Written anew, and not taken from `mobysession.protocol`, for the reason that `mobysession.testing.peer` gives.
"""

from __future__ import annotations

import base64
import binascii

__all__ = ["format_timeout", "from_base64", "Metadata", "metadata", "wire_value"]

Metadata = list[tuple[str, str | bytes]]


def metadata(headers: list[tuple[bytes, bytes]]) -> Metadata:
    """Return what is metadata among header fields, in order."""
    found: Metadata = []
    for key, value in headers:
        if key.startswith((b":", b"grpc-")) or key in (b"content-type", b"trailer"):
            continue
        name = key.decode("ascii")
        found.append((name, from_base64(value) if name.endswith("-bin") else value.decode("utf-8", "replace")))
    return found


def wire_value(key: str, value: str | bytes) -> bytes:
    """Return a value of metadata as it is sent."""
    if isinstance(value, bytes):
        return base64.b64encode(value).rstrip(b"=") if key.endswith("-bin") else value
    return value.encode("utf-8", "surrogateescape")


def from_base64(text: bytes) -> bytes:
    """Return the bytes of base64 with or without padding; empty where it is none."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return b""


def format_timeout(seconds: float) -> bytes:
    """Return a ``grpc-timeout``: the finest unit in which eight digits do."""
    count = max(1, round(seconds * 10**9))
    for unit, size in (("n", 1), ("u", 10**3), ("m", 10**6), ("S", 10**9)):
        scaled = -(-count // size)
        if scaled < 10**8:
            return f"{scaled}{unit}".encode()
    return b"99999999S"

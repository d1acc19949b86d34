"""A stream on which gRPC is spoken at once, with the header lines that its user wants on every request.

Over HTTP/1.1 they stand in the one request that is upgraded. Here each call is a request, and they are metadata, which
is narrower: keys in lower case, values in printable ASCII, and what HTTP/2 and gRPC say themselves is not to be said
again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from mobysession.protocol.metadata import RESERVED_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HeadedStream", "to_metadata"]

_log = logging.getLogger("mobysession.transport")

_KEY_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


def to_metadata(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str | bytes], ...]:
    """Return header lines as metadata; what cannot be metadata is left out, with a warning that names no value."""
    metadata = []
    for name, value in headers:
        key, value = name.lower(), value.strip(" \t")
        if key in RESERVED_KEYS:
            continue
        fits = key and _KEY_CHARACTERS.issuperset(key) and not key.startswith("grpc-") and not key.endswith("-bin")
        if fits and value.isascii() and value.isprintable():
            metadata.append((key, value))
        else:
            _log.warning("the header %r cannot be sent in gRPC, and is left out", name)
    return tuple(metadata)


class HeadedStream(trio.abc.Stream):
    """A stream, and metadata for every call on it, which `mobysession.rpc.client.Channel` looks for."""

    def __init__(self, transport_stream: trio.abc.Stream, headers: Iterable[tuple[str, str]]) -> None:
        self.transport_stream = transport_stream
        self.metadata = to_metadata(headers)

    @property
    def plain_socket(self) -> trio.SocketStream | None:
        """The socket that takes what is written as it is; None where something stands between."""
        return self.transport_stream if isinstance(self.transport_stream, trio.SocketStream) else None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read. Cancel: nothing is lost."""
        return bytes(await self.transport_stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of it. Cancel: any part may have been sent."""
        await self.transport_stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until ``send_all`` might not block."""
        await self.transport_stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the connection. Cancel: it is closed all the same."""
        await self.transport_stream.aclose()

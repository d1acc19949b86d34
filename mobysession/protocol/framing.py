"""gRPC's length-prefixed messages.

Each message is preceded by one byte that says whether it is compressed and four bytes of big-endian length; a stream
is a sequence of those, cut into HTTP/2 DATA frames wherever it pleases the sender (grpc/grpc doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import TYPE_CHECKING

from mobysession.errors import RpcError, StatusCode
from mobysession.limits import MAX_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ENCODINGS", "PREFIX_SIZE", "Buffer", "MessageReader", "encode_chunks", "encode_messages"]

Buffer = bytes | bytearray | memoryview

_PREFIX = Struct(">BL")
PREFIX_SIZE = _PREFIX.size
#: What a ``grpc-encoding`` may say.
ENCODINGS = ("identity", "gzip")
#: Bytes of a message from which on it is cheaper to pass it on than to copy it together with its neighbours.
_LARGE = 4096
#: Messages of the largest size that the bytes of one receive may inflate to.
_MAX_INFLATED = 2
#: zlib's window bits for a gzip wrapper.
_GZIP = 31


def encode_messages(messages: Sequence[Buffer], *, compress: bool = False) -> bytes:
    """Return ``messages`` with their prefixes as one piece of bytes; ``compress`` applies gzip to each."""
    pack = _PREFIX.pack
    parts: list[Buffer] = []
    for message in messages:
        body = zlib.compress(message, wbits=_GZIP) if compress else message
        parts.append(pack(compress, len(body)))
        parts.append(body)
    return b"".join(parts)


def encode_chunks(messages: Sequence[Buffer], *, compress: bool = False) -> list[Buffer]:
    """Return the same bytes as `encode_messages` in pieces, in which large messages are the objects that were given."""
    if compress:
        return [encode_messages(messages, compress=True)]
    chunks: list[Buffer] = []
    small = bytearray()
    for message in messages:
        size = len(message)
        small += _PREFIX.pack(False, size)
        if size < _LARGE:
            small += message
        else:
            chunks += (small, message)
            small = bytearray()
    if small:
        chunks.append(small)
    return chunks


class MessageReader:
    """Cut a stream of bytes into messages.

    Args:
        encoding: the stream's ``grpc-encoding``; ``identity`` and ``gzip`` are known.
        limit: bytes of one message, before and after decompression, that are accepted.
    """

    def __init__(self, encoding: str = "identity", *, limit: int = MAX_MESSAGE) -> None:
        self._encoding = encoding
        self._limit = limit
        #: The incomplete message, prefix and all: small parts put together, large ones as they came.
        self._parts: list[Buffer] = []
        #: Bytes of that, and how many of them tell or make the whole message.
        self.buffered = 0
        self._wanted = PREFIX_SIZE
        #: What is wrong behind the messages that were returned last; nothing more is read.
        self.failure: RpcError | None = None

    @property
    def inflates(self) -> bool:
        """True where messages may have more bytes than what was received."""
        return self._encoding != "identity"

    def receive_data(self, data: Buffer) -> list[bytes]:
        """Take more bytes and return the messages that are complete now, oldest first.

        After: look at ``failure``, where messages were returned.

        Raises:
            RpcError: the status to end the call with: RESOURCE_EXHAUSTED for a message over the limit, INTERNAL for a
                malformed prefix or compressed body. Messages before such a one are returned first,
                unless all together inflate to too much.
        """
        if self.failure is not None:
            raise self.failure
        messages: list[bytes] = []
        start = 0
        if self.buffered:
            self._keep(data)
            if self.buffered < self._wanted:
                return messages
            data, start = self._put_together(messages)
        self._cut(bytes(data), start, messages)
        return messages

    def finish(self) -> None:
        """Check that the stream did not end within a message; raise RpcError INTERNAL if it did."""
        if self.failure is not None:
            raise self.failure
        if self.buffered:
            raise RpcError(StatusCode.INTERNAL, f"the stream ended {self.buffered} bytes into a message")

    def _keep(self, data: Buffer) -> None:
        """Add to the incomplete message."""
        parts = self._parts
        self.buffered += len(data)
        if len(data) >= _LARGE:
            parts.append(bytes(data))
        elif parts and isinstance(parts[-1], bytearray):
            parts[-1] += data
        else:
            parts.append(bytearray(data))

    def _put_together(self, messages: list[bytes]) -> tuple[bytes, int]:
        """Add the message that was incomplete, if it is whole; return where to read on: in what, and from where."""
        parts, self._parts = self._parts, []
        wanted, self._wanted = self._wanted, PREFIX_SIZE
        more, self.buffered = self.buffered - wanted, 0
        if wanted == PREFIX_SIZE or parts[0][0]:
            # Its length is known only now, or it has to be inflated anyway.
            return b"".join(parts), 0
        last = bytes(parts[-1])
        rest = len(last) - more
        parts[-1] = memoryview(last)[:rest]
        parts[0] = memoryview(parts[0])[PREFIX_SIZE:]
        messages.append(b"".join(parts))
        return last, rest

    def _cut(self, data: bytes, start: int, messages: list[bytes]) -> None:
        """Add the messages that ``data`` has from ``start`` on, and keep what is left."""
        end, inflated = len(data), 0
        while end - start >= PREFIX_SIZE:
            try:
                flag, length = self._length(data, start)
                body_start = start + PREFIX_SIZE
                if end - body_start < length:
                    self._wanted = PREFIX_SIZE + length
                    break
                start = body_start + length
                body = data[body_start:start]
                if flag:
                    body = self._decompress(body)
            except RpcError as error:
                self.failure = error
                if not messages:
                    raise
                return
            inflated += len(body) if flag else 0
            if inflated > (most := _MAX_INFLATED * self._limit):
                text = f"messages that arrived at once inflate to too much ({inflated} vs. {most} bytes)"
                raise RpcError(StatusCode.RESOURCE_EXHAUSTED, text)
            messages.append(body)
        if start < end:
            self._keep(data[start:])

    def _length(self, buffer: Buffer, offset: int) -> tuple[int, int]:
        flag: int
        length: int
        flag, length = _PREFIX.unpack_from(buffer, offset)
        if length > self._limit:
            raise RpcError(
                StatusCode.RESOURCE_EXHAUSTED, f"received message larger than max ({length} vs. {self._limit})"
            )
        if flag > 1:
            raise RpcError(StatusCode.INTERNAL, f"invalid compressed flag {flag} in a message prefix")
        if flag and self._encoding == "identity":
            raise RpcError(StatusCode.INTERNAL, "compressed message on a stream without grpc-encoding")
        return flag, length

    def _decompress(self, body: bytes) -> bytes:
        inflater = zlib.decompressobj(wbits=_GZIP)
        try:
            message = inflater.decompress(body, self._limit + 1)
        except zlib.error as error:
            raise RpcError(StatusCode.INTERNAL, f"message is not valid gzip: {error}") from error
        if len(message) > self._limit:
            raise RpcError(StatusCode.RESOURCE_EXHAUSTED, f"message inflates to more than {self._limit} bytes")
        if not inflater.eof or inflater.unused_data:
            raise RpcError(StatusCode.INTERNAL, "message is not one whole gzip member")
        return message

"""The messages of the SSH agent protocol: a length of four bytes, a type of one, the rest.

An agent answers each request with one message, in order. Only what a forwarded agent needs is named here; everything
else is known by its number and passed on, or refused, unread.

Source: draft-miller-ssh-agent (now RFC 9987), sections 3 to 5.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from mobysession.errors import RemoteProtocolError
from mobysession.limits import MAX_AGENT_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "EXTENSION",
    "EXTENSION_FAILURE",
    "FAILURE",
    "IDENTITIES_ANSWER",
    "REMOVE_ALL_RSA_IDENTITIES",
    "REQUEST_IDENTITIES",
    "REQUEST_RSA_IDENTITIES",
    "RSA_IDENTITIES_ANSWER",
    "SIGN_REQUEST",
    "SIGN_RESPONSE",
    "SUCCESS",
    "AgentFrames",
    "Identity",
    "encode_frame",
    "encode_identities",
    "encode_string",
    "parse_identities",
    "read_string",
]

REQUEST_RSA_IDENTITIES: Final = 1
RSA_IDENTITIES_ANSWER: Final = 2
FAILURE: Final = 5
SUCCESS: Final = 6
REMOVE_ALL_RSA_IDENTITIES: Final = 9
REQUEST_IDENTITIES: Final = 11
IDENTITIES_ANSWER: Final = 12
SIGN_REQUEST: Final = 13
SIGN_RESPONSE: Final = 14
EXTENSION: Final = 27
EXTENSION_FAILURE: Final = 28

_UINT32 = Struct(">L")


class Identity(NamedTuple):
    """A key that an agent holds: its public key as SSH encodes it, and what its owner called it."""

    blob: bytes
    comment: str

    @property
    def kind(self) -> str:
        """The key's type, e.g. ``ssh-ed25519``; ``unknown`` where the agent listed something else than a key."""
        try:
            return read_string(self.blob, 0)[0].decode("ascii", "replace")
        except RemoteProtocolError:
            return "unknown"

    @property
    def fingerprint(self) -> str:
        """The key's fingerprint as ``ssh-add -l`` prints it."""
        import base64
        import hashlib

        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode("ascii").rstrip("=")

    def __str__(self) -> str:
        """Describe the key as ``ssh-add -l`` does; what its owner called it may come from anywhere."""
        words = f"{self.kind} {self.fingerprint} {self.comment}"
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in words)


class AgentFrames:
    """Cut a stream of bytes into agent messages.

    Args:
        limit: bytes of one message, without its length.
    """

    def __init__(self, limit: int = MAX_AGENT_MESSAGE) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes of the incomplete message received so far."""
        return len(self._buffer)

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take more bytes and return the messages that are complete, each without its length.

        Raises:
            RemoteProtocolError: a message is empty or over the limit; the connection must be closed.
        """
        buffer = self._buffer
        buffer += data
        messages = []
        start = 0
        while len(buffer) - start >= _UINT32.size:
            (size,) = _UINT32.unpack_from(buffer, start)
            if not 0 < size <= self._limit:
                raise RemoteProtocolError(f"an SSH agent message of {size} bytes; 1 to {self._limit} are allowed")
            end = start + _UINT32.size + size
            if end > len(buffer):
                break
            messages.append(bytes(buffer[start + _UINT32.size : end]))
            start = end
        del buffer[:start]
        return messages


def encode_frame(kind: int, body: bytes = b"") -> bytes:
    """Return one message with its length."""
    return _UINT32.pack(1 + len(body)) + bytes((kind,)) + body


def encode_string(value: bytes) -> bytes:
    """Return SSH's ``string``: a length of four bytes, then the bytes (RFC 4251 section 5)."""
    return _UINT32.pack(len(value)) + value


def read_string(data: bytes, offset: int) -> tuple[bytes, int]:
    """Return the ``string`` at ``offset`` and the offset behind it.

    Raises:
        RemoteProtocolError: it reaches beyond the end.
    """
    start = offset + _UINT32.size
    if start <= len(data):
        end = start + _UINT32.unpack_from(data, offset)[0]
        if end <= len(data):
            return data[start:end], end
    raise RemoteProtocolError("an SSH agent message ends within a field")


def encode_identities(identities: Iterable[Identity]) -> bytes:
    """Return the body of an answer that lists ``identities``."""
    entries = [encode_string(key.blob) + encode_string(key.comment.encode()) for key in identities]
    return _UINT32.pack(len(entries)) + b"".join(entries)


def parse_identities(message: bytes) -> list[Identity]:
    """Return the keys that an IDENTITIES_ANSWER lists.

    Raises:
        RemoteProtocolError: the message is another one, or broken.
    """
    if len(message) < 1 + _UINT32.size or message[0] != IDENTITIES_ANSWER:
        raise RemoteProtocolError("the SSH agent did not answer with the keys it holds")
    (count,) = _UINT32.unpack_from(message, 1)
    offset = 1 + _UINT32.size
    identities = []
    # Bounded by the message, whatever the count says: each entry has eight bytes at least.
    for _ in range(count):
        blob, offset = read_string(message, offset)
        comment, offset = read_string(message, offset)
        identities.append(Identity(blob, comment.decode("utf-8", "replace")))
    return identities

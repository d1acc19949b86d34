"""The packets of DiffCopy.

Five kinds share one message: STAT announces an entry, and without one ends the listing; REQ asks for the file of an
id; DATA carries a piece of it, and an empty piece ends it; FIN says that all is there; ERR that it never will be.

DATA is written by hand: its content is the bulk of a transfer and should be copied as seldom as possible. Everything
else goes through the generated messages, which measured faster than encoding in Python.

Source: tonistiigi/fsutil types/wire.proto and types/stat.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mobysession._pb import fsutil_pb2
from mobysession.errors import ContextError
from mobysession.filesync.naming import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mobysession.filesync.source import Entry

__all__ = [
    "DATA",
    "END_OF_LISTING",
    "ERR",
    "FIN",
    "FIN_PACKET",
    "REQ",
    "STAT",
    "StatEncoder",
    "data_header",
    "decode_requests",
    "end_of_file",
    "error_packet",
    "whole_file",
]

STAT: Final = 0
REQ: Final = 1
DATA: Final = 2
FIN: Final = 3
ERR: Final = 4

#: A STAT without an entry; in proto3 that is no bytes at all.
END_OF_LISTING: Final = b""
FIN_PACKET: Final = b"\x08\x03"

_DATA_TYPE: Final = b"\x08\x02"
_ID_TAG: Final = b"\x18"
_CONTENT_TAG: Final = b"\x22"
_INT64_MIN: Final = -(1 << 63)
_UINT64_MAX: Final = (1 << 64) - 1


class StatEncoder:
    """Encode entries as STAT packets, with one message that is used again and again.

    Args:
        reset_owner: send 0 as uid and gid, as every client does for build contexts.
    """

    def __init__(self, *, reset_owner: bool) -> None:
        self._reset_owner = reset_owner
        self.renew()

    def renew(self) -> None:
        """Take a fresh message, every thousand entries or so: a message never frees what was set in it."""
        self._packet = fsutil_pb2.Packet()
        self._stat = self._packet.stat

    def encode(self, path: bytes, entry: Entry, link: bytes, xattrs: Mapping[str, bytes]) -> bytes:
        """Return the packet of ``entry`` at ``path``; ``link`` is its target, or the first path of a hard link.

        Raises:
            ContextError: an attribute is none that a packet can have.
        """
        stat = self._stat
        try:
            _, stat.mode, size, stat.modTime, uid, gid, device, _, _ = entry
            stat.size = max(size, 0)
            stat.path = path
            if not self._reset_owner:
                stat.uid, stat.gid = uid, gid
            if not (link or xattrs or device != (0, 0)):
                return self._packet.SerializeToString()
            stat.linkname = link
            stat.devmajor, stat.devminor = device
            stat.xattrs.update(xattrs)
            packet = self._packet.SerializeToString(deterministic=True)
        except (ValueError, TypeError) as error:
            self.renew()
            return self.encode(path, _expressible(path, entry, error), link, xattrs)
        stat.linkname = b""
        stat.devmajor = stat.devminor = 0
        stat.xattrs.clear()
        return packet


def _expressible(path: bytes, entry: Entry, error: Exception) -> Entry:
    """Return ``entry`` with an mtime of 64 bits: as Go's ``UnixNano`` does, times before 1678 or after 2262 wrap."""
    mtime: object = entry.mtime
    if not isinstance(mtime, int) or _INT64_MIN <= mtime < -_INT64_MIN:
        raise ContextError(f"{quote(path)} has an attribute that cannot be sent: {error}") from error
    return entry._replace(mtime=(mtime - _INT64_MIN & _UINT64_MAX) + _INT64_MIN)


def whole_file(entry_id: int, content: bytes) -> tuple[bytes, bytes]:
    """Return the two packets of a file of one piece, which is not empty: its content, and its end."""
    end = end_of_file(entry_id)
    return b"".join((end, _CONTENT_TAG, _varint(len(content)), content)), end


def data_header(entry_id: int, length: int) -> bytes:
    """Return what goes before ``length`` bytes of the file ``entry_id`` to make a DATA packet; length is at least 1."""
    return end_of_file(entry_id) + _CONTENT_TAG + _varint(length)


def end_of_file(entry_id: int) -> bytes:
    """Return the empty DATA packet that ends the file ``entry_id``."""
    return _DATA_TYPE + _ID_TAG + _varint(entry_id) if entry_id else _DATA_TYPE


def error_packet(text: str) -> bytes:
    """Return the packet that tells the other side why this one gave up."""
    return fsutil_pb2.Packet(
        type=fsutil_pb2.Packet.PACKET_ERR, data=text.encode("utf-8", "replace")
    ).SerializeToString()


def decode_requests(messages: Iterable[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, id and data of each packet, as a sender needs them.

    Raises:
        google.protobuf.message.DecodeError: a message is no packet.
    """
    packet = fsutil_pb2.Packet()
    for message in messages:
        packet.ParseFromString(message)
        kind = packet.type
        yield kind, packet.ID, packet.data if kind == ERR else b""


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    if number < 0x200000:
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)

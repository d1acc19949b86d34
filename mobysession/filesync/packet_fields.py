"""The packets that a receiver meets most, DATA and REQ, without a copy of the content.

DATA is taken apart by hand where it looks as every known sender writes it, fields in the order of their numbers; any
other packet goes through the generated messages.

Source: tonistiigi/fsutil types/wire.proto.
"""

from __future__ import annotations

from typing import Final

__all__ = ["decode_varint", "encode_varint", "request_packet", "split_data"]

_DATA: Final = b"\x08\x02"
_ID: Final = 0x18
_CONTENT: Final = 0x22


def request_packet(entry_id: int) -> bytes:
    """Return the packet that asks for the content of an entry."""
    return b"\x08\x01\x18" + encode_varint(entry_id) if entry_id else b"\x08\x01"


def split_data(message: bytes) -> tuple[int, int] | None:
    """Return the id of a DATA packet and where its content starts, which goes to its end; None where it must be parsed.

    Where there is no content, that is the packet's length.
    """
    if not message.startswith(_DATA):
        return None
    entry_id, at, end = 0, 2, len(message)
    if at < end and message[2] == _ID:
        entry_id, at = decode_varint(message, 3)
    if at >= end:
        return (entry_id, end) if at == end else None
    if message[at] != _CONTENT:
        return None
    size, at = decode_varint(message, at + 1)
    return (entry_id, at) if at + size == end else None


def decode_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number at ``at``, of at most 32 bits, and where it ends; beyond the message where there is none."""
    # Not a loop: this is done for every file that arrives, and most numbers are short.
    try:
        number = message[at]
        if number < 0x80:
            return number, at + 1
        byte = message[at + 1]
        number += (byte << 7) - 0x80
        if byte < 0x80:
            return number, at + 2
        byte = message[at + 2]
        number += (byte << 14) - (0x80 << 7)
        if byte < 0x80:
            return number, at + 3
        number -= 0x80 << 14
        for place, shift in ((at + 3, 21), (at + 4, 28)):
            byte = message[place]
            number += (byte & 0x7F) << shift
            if byte < 0x80 and number < 1 << 32:
                return number, place + 1
    except IndexError:
        pass
    return 0, len(message) + 1


def encode_varint(number: int) -> bytes:
    """Return a number as protobuf writes it, seven bits a byte."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)

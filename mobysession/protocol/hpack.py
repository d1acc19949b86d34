"""Header blocks: RFC 7541, over the tables and Huffman codes of the hpack library.

The library's decoder copies what is left of a block for every field of it, and gives up on a list that is too long.
This one reads in place, and reads to the end: whoever stops in the middle of a block has lost the table that the next
one is built on, and with it the connection, while a list that is too long concerns one stream only.
"""

from __future__ import annotations

import logging
from typing import Any

import h2.errors
import h2.exceptions
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError
from hpack.huffman_table import decode_huffman

from mobysession import limits

__all__ = ["TOO_LARGE", "Fields", "HeaderDecoder", "HeaderEncoder"]

#: The library logs the values of fields, which may be tokens, for whoever has everything logged.
if (_library := logging.getLogger("hpack")).level == logging.NOTSET:
    _library.setLevel(logging.INFO)

#: Bytes of a field from which on it is sent as it is: the library's Huffman coder takes four times as long for twice as
#: much, half a second for 64 KiB.
_LONG = 1024

#: How many blocks are remembered with their lists, and of how many bytes at most: what a client says again and again.
_KNOWN_BLOCKS = 32
_KNOWN_SIZE = 512

#: Stands last in a list whose end was left out because it is larger than the limit.
TOO_LARGE = (b":too-large", b"")

#: What an entry of a header list counts besides its name and value (RFC 9113 section 6.5.2).
_OVERHEAD = 32
#: Bytes of an integer: its prefix, and as many as 32 bits need.
_INTEGER = 6


class _CompressionError(h2.exceptions.ProtocolError):
    """A header block that cannot be decoded; no block after it could be (RFC 9113 section 4.3)."""

    error_code = h2.errors.ErrorCodes.COMPRESSION_ERROR


class HeaderEncoder(Encoder):
    """hpack's encoder with a bounded table, or a peer that offers gigabytes would make us remember all we ever said."""

    def add(self, to_add: tuple[bytes, bytes], sensitive: bool, huffman: bool = False) -> bytes:
        """Return one field as it is sent."""
        name, value = to_add
        return super().add(to_add, sensitive, huffman and len(name) + len(value) < _LONG)

    @property
    def header_table_size(self) -> int:
        """Bytes of the table in use."""
        return int(self.header_table.maxsize)

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        table = self.header_table
        # The table forgets that it was resized when it is told its present size again.
        before, table.resized = table.resized, False
        table.maxsize = min(value, limits.HEADER_TABLE)
        if table.resized:
            # The smallest and the last size is all that the next block says (RFC 7541 section 4.2).
            smallest = min(self.table_size_changes, default=table.maxsize)
            self.table_size_changes = [*([smallest] if smallest < table.maxsize else []), table.maxsize]
        table.resized = table.resized or before


class Fields(list[tuple[bytes, bytes]]):
    """A header list, which nobody changes: the same block gives the same list as long as the table stays as it is.

    Clients say the same in most of their calls. What others have found out about the list can be noted on it.
    """

    __slots__ = ("notes",)

    def __init__(self) -> None:
        super().__init__()
        self.notes: Any = None


class HeaderDecoder(Decoder):
    """Header lists out of header blocks.

    Args:
        max_header_list_size: bytes of a list, as RFC 9113 section 6.5.2 counts them, that are kept.
    """

    def __init__(self, max_header_list_size: int) -> None:
        super().__init__(max_header_list_size)
        #: By block, the lists of blocks that left the table as it is now.
        self._known: dict[bytes, Fields] = {}

    def decode(self, data: bytes, raw: bool = True) -> Fields:  # type: ignore[override]  # plain tuples; always raw
        """Return the fields of ``data``, in order; with `TOO_LARGE` as the last one if they are more than the limit.

        Raises:
            h2.exceptions.ProtocolError: the connection is lost, with COMPRESSION_ERROR, or with ENHANCE_YOUR_CALM for
                a list of more than twice the limit.
        """
        known = self._known.get(data)
        if known is not None:
            return known
        try:
            headers, changed = self._decode(data)
        except (HPACKError, IndexError) as error:
            raise _CompressionError(f"a header block cannot be decoded: {error}") from error
        if changed or len(self._known) >= _KNOWN_BLOCKS:
            self._known.clear()
        if not changed and len(data) <= _KNOWN_SIZE:
            self._known[data] = headers
        return headers

    def _decode(self, data: bytes) -> tuple[Fields, bool]:
        """Return the fields, and whether the table has changed."""
        headers = Fields()
        changed = False
        table = self.header_table
        limit = self.max_header_list_size
        position = size = 0
        end = len(data)
        while position < end:
            first = data[position]
            if first & 0x80:
                index, position = _integer(data, position, 0x7F)
                name, value = table.get_by_index(index)
            elif first & 0xE0 == 0x20:
                if size:
                    raise HPACKError("the size of the table changes behind a field")
                position = self._resize(data, position)
                changed = True
                continue
            else:
                index, position = _integer(data, position, 0x3F if first & 0x40 else 0x0F)
                if index:
                    name = table.get_by_index(index)[0]
                else:
                    name, position = _string(data, position)
                value, position = _string(data, position)
                if first & 0x40:
                    table.add(name, value)
                    changed = True
            size += len(name) + len(value) + _OVERHEAD
            if size <= limit:
                headers.append((name, value))
            elif size > 2 * limit:
                raise h2.exceptions.DenialOfServiceError(f"a header list of more than {2 * limit} bytes")
        if size > limit:
            headers.append(TOO_LARGE)
        return headers, changed

    def _resize(self, data: bytes, position: int) -> int:
        size, position = _integer(data, position, 0x1F)
        if size > self.max_allowed_table_size:
            raise HPACKError(f"a table of {size} bytes; {self.max_allowed_table_size} are allowed")
        self.header_table_size = size
        return position


def _integer(data: bytes, position: int, mask: int) -> tuple[int, int]:
    """Return the integer at ``position``, whose prefix is under ``mask``, and the position behind it (section 5.1)."""
    value = data[position] & mask
    start = position
    position += 1
    if value < mask:
        return value, position
    shift = 0
    while True:
        byte = data[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        if position - start >= _INTEGER:
            raise HPACKError("an integer of more than 32 bits")
        shift += 7


def _string(data: bytes, position: int) -> tuple[bytes, int]:
    """Return the string at ``position`` and the position behind it (section 5.2)."""
    huffman = data[position] & 0x80
    length, start = _integer(data, position, 0x7F)
    end = start + length
    if end > len(data):
        raise HPACKError("a string that ends behind its block")
    value = data[start:end]
    return (decode_huffman(value) if huffman else value), end

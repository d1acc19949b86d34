"""What was offered to the receiver: an entry's id is its position among all STATs, and a file is asked for by it.

A tree may have a million entries, so they are columns of numbers and one string of names, 13 bytes an entry
beside the name itself: parent id, end of the name, size, state. A path is put together when its file is requested.
"""

from __future__ import annotations

from array import array
from typing import Final

from mobysession.errors import RemoteProtocolError

__all__ = ["ROOT", "Offers"]

#: The parent of the entries at the top.
ROOT: Final = 0xFFFF_FFFF

_LARGE: Final = 0xFFFF_FFFF
_OPEN: Final = 1
_REQUESTED: Final = 2


class Offers:
    """The entries offered in one transfer, in order."""

    def __init__(self) -> None:
        self._parents = array("I")
        self._ends = array("I")
        self._sizes = array("I")
        #: The sizes that do not fit there, or are not known.
        self._large: dict[int, int] = {}
        self._states = bytearray()
        self._names = bytearray()
        self._last_directory = (ROOT, b"")

    def __len__(self) -> int:
        return len(self._states)

    def add(self, parent: int, name: bytes, size: int, requestable: bool) -> int:
        """Add an entry below the entry ``parent``; return its id."""
        entry_id = len(self._states)
        self._parents.append(parent)
        self._names += name
        self._ends.append(len(self._names))
        if not 0 <= size < _LARGE:
            self._large[entry_id] = size
            size = _LARGE
        self._sizes.append(size)
        self._states.append(requestable)
        return entry_id

    def request(self, entry_id: int) -> None:
        """Mark a file as requested.

        Raises:
            RemoteProtocolError: there is no such entry, it is no file, or it was requested before.
        """
        if entry_id >= len(self._states) or self._states[entry_id] != _OPEN:
            raise RemoteProtocolError(f"invalid file id {entry_id}")
        self._states[entry_id] = _REQUESTED

    def size(self, entry_id: int) -> int:
        """Return the size an entry was offered with, in bytes; negative where it was not known."""
        size = self._sizes[entry_id]
        return size if size != _LARGE else self._large[entry_id]

    def path(self, entry_id: int) -> bytes:
        """Return the path of an entry."""
        parent = self._parents[entry_id]
        if parent == ROOT:
            return self._name(entry_id)
        known, directory = self._last_directory
        if known != parent:
            directory = self._join(parent)
            self._last_directory = (parent, directory)
        return directory + b"/" + self._name(entry_id)

    def _join(self, entry_id: int) -> bytes:
        parts = []
        while entry_id != ROOT:
            parts.append(self._name(entry_id))
            entry_id = self._parents[entry_id]
        return b"/".join(reversed(parts))

    def _name(self, entry_id: int) -> bytes:
        start = self._ends[entry_id - 1] if entry_id else 0
        return bytes(self._names[start : self._ends[entry_id]])

"""What a receiver checks of a listing before it believes any of it.

Paths are clean and stay inside; they come in the order of the walk, each below a directory that was announced; a hard
link names a file that came before it. Entries are numbered here, because only their position says which is which.

Source: tonistiigi/fsutil validator.go and hardlinks.go.
"""

from __future__ import annotations

import posixpath
from array import array
from typing import TYPE_CHECKING, Final

from mobysession.errors import RemoteProtocolError
from mobysession.filesync import modes
from mobysession.filesync.naming import quote

if TYPE_CHECKING:
    from mobysession._pb.fsutil_pb2 import Stat

__all__ = ["Validator"]

_NO_NAMES: Final = frozenset((b"", b".", b".."))
#: The highest major or minor number of a device: Linux's C libraries take 32 bits of each.
_MAX_DEVICE: Final = 0xFFFF_FFFF
#: The combinations of type bits that stand for something a file system can hold, beside regular files. Sockets are
#: sent as regular files.
_KINDS: Final = frozenset(
    (
        0,
        modes.DIRECTORY,
        modes.SYMLINK,
        modes.DEVICE,
        modes.DEVICE | modes.CHAR_DEVICE,
        modes.NAMED_PIPE,
    )
)


class Validator:
    """Check the entries of one listing, in the order in which they arrive.

    Attributes:
        count: entries so far.
    """

    def __init__(self) -> None:
        self.count = 0
        #: The directories that lead to the last entry, each with the name last seen in it.
        self._branch: list[tuple[bytes, bytes]] = [(b"", b"")]
        self._files: dict[bytes, _Names] = {}

    def check(self, path: bytes, mode: int, link: bytes) -> int | None:
        """Check the next entry and return the number of the file that it is another name of; None where it is none.

        Raises:
            RemoteProtocolError: the peer must not have sent it.
        """
        directory, slash, name = path.rpartition(b"/")
        if name in _NO_NAMES or b"\0" in path or (slash and not directory):
            raise _unclean(path)
        kind = mode & modes.TYPE
        if kind not in _KINDS:
            raise RemoteProtocolError(f"{quote(path)} is of no kind that can be made: mode {mode:#x}")
        known, last = self._branch[-1]
        if known == directory and last < name:  # as nearly always
            self._branch[-1] = (directory, name)
        else:
            self._check_order(path, directory, name)
        if kind == modes.DIRECTORY:
            self._branch.append((path, b""))
        elif kind == modes.SYMLINK and (not link or b"\0" in link):
            raise RemoteProtocolError(f"{quote(path)} is a link that cannot be made, to {quote(link)}")
        number, self.count = self.count, self.count + 1
        if kind or not link:
            if not kind:
                self._add_file(directory, name, number)
            return None
        first = self.find(link)
        if first is None:
            shown = path.decode("utf-8", "backslashreplace")
            raise RemoteProtocolError(f"invalid link {shown} to unknown path: {quote(link)}")
        return first

    def check_attributes(self, wanted: Stat) -> None:
        """Check what goes with an entry beside its mode.

        Raises:
            RemoteProtocolError: the peer must not have sent it.
        """
        if wanted.mode & modes.DEVICE and not (
            0 <= wanted.devmajor <= _MAX_DEVICE and 0 <= wanted.devminor <= _MAX_DEVICE
        ):
            raise RemoteProtocolError(
                f"{quote(wanted.path)} is a device of no number there is: {wanted.devmajor}, {wanted.devminor}"
            )
        for name in wanted.xattrs:
            if "\0" in name:
                raise RemoteProtocolError(f"{quote(wanted.path)} has an extended attribute of no name: {quote(name)}")

    def find(self, path: bytes) -> int | None:
        """Return the number of the regular file that was announced as ``path``; None where none was."""
        directory, _, name = path.rpartition(b"/")
        names = self._files.get(directory)
        return None if names is None or path.startswith(b"/") else names.find(name)

    def _add_file(self, directory: bytes, name: bytes, number: int) -> None:
        names = self._files.get(directory)
        if names is None:
            names = self._files[directory] = _Names()
        names.add(name, number)

    def _check_order(self, path: bytes, directory: bytes, name: bytes) -> None:
        branch = self._branch
        while len(branch) > 1 and not _leads_to(branch[-1][0], directory):
            branch.pop()
        known, last = branch[-1]
        if known != directory or last >= name:
            if posixpath.normpath(path) != path or path.startswith((b"/", b"../")):
                raise _unclean(path)
            before = known + b"/" + last if known else last
            raise RemoteProtocolError(f"changes out of order: {quote(path)} {quote(before)}")
        branch[-1] = (known, name)


class _Names:
    """The files of one directory with their numbers, in little memory: they arrive sorted, and are looked up seldom."""

    __slots__ = ("_ends", "_numbers", "_text")

    def __init__(self) -> None:
        self._text = bytearray()
        self._ends = array("Q")
        self._numbers = array("Q")

    def add(self, name: bytes, number: int) -> None:
        """Add a name that comes after all others."""
        self._text += name
        self._ends.append(len(self._text))
        self._numbers.append(number)

    def find(self, name: bytes) -> int | None:
        """Return the number of a name."""
        low, high = 0, len(self._ends)
        while low < high:
            middle = (low + high) // 2
            found = self._text[self._ends[middle - 1] if middle else 0 : self._ends[middle]]
            if found == name:
                return self._numbers[middle]
            if found < name:
                low = middle + 1
            else:
                high = middle
        return None


def _unclean(path: bytes) -> RemoteProtocolError:
    fault = "unclean path"
    if b"\0" not in path and (posixpath.normpath(path) == path) and not path.startswith(b"//"):
        fault = "absolute path" if path.startswith(b"/") else "escape check"
    return RemoteProtocolError(f"{fault} {quote(path)}: invalid argument")


def _leads_to(directory: bytes, path: bytes) -> bool:
    return path == directory or path.startswith(directory + b"/")

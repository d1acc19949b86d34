"""A directory of this machine as a source.

Others may change it while it is sent. No path is given to the system as a whole: a name is looked up in the open
directory it is in, see `mobysession.filesync.anchor`, so that nothing outside the root is ever read.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from mobysession import limits
from mobysession.errors import ContextError
from mobysession.filesync.anchor import Anchor
from mobysession.filesync.modes import DEVICE, SOCKET, from_posix
from mobysession.filesync.naming import changed, quote, reason
from mobysession.filesync.source import Content, Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

__all__ = ["Directory"]

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOREIGN_XATTRS: Final = "com.apple."
_NO_XATTRS: Final = (errno.ENOTSUP, errno.ENOSYS)
#: Files up to this size are read in one go; larger ones in chunks that need not be copied.
_SMALL: Final = 128 * limits.KIB
#: Bytes read at once from a file of size 0; nearly all of them are just empty.
_UNSIZED_READ: Final = 4096
#: And how often: 64 MiB, so that a file that never ends does.
_UNSIZED_READS: Final = 16384


class Directory:
    """Offer a directory of this machine.

    Args:
        path: the directory; a symbolic link to one will do. It is not touched before `check`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._anchor = Anchor(os.fsencode(self.path))

    def __repr__(self) -> str:
        return f"Directory({self.path!r})"

    def check(self) -> None:
        """Resolve the directory and see that it can be listed.

        Raises:
            ContextError: it is missing, not a directory, or not readable; the user must act.
        """
        try:
            root = os.path.realpath(os.fsencode(self.path), strict=True)
            os.close(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            os.lstat(root + b"/.")
        except OSError as error:
            raise _unusable(self.path, error) from error
        self._anchor.settle(root)

    def keeping(self) -> AbstractContextManager[None]:
        """Keep the directory used last open for this thread, while it reads many."""
        return self._anchor.keeping()

    def entries(self, directory: bytes) -> Iterator[Entry]:
        """Yield what is in ``directory`` in the order of the transfer; see `Source.entries`."""
        names = self._names(directory)
        # Popped, so that the names of a huge directory go as the entries come.
        while names:
            name = names.pop()
            try:
                found = self._lstat(directory, name)
            except FileNotFoundError:
                # Never offered, so nothing is missing: it is as if the walk had come a moment later.
                continue
            except OSError as error:
                relative = directory + b"/" + name if directory else name
                raise OSError(error.errno, error.strerror, relative) from error
            yield _entry(name, found)

    def lookup(self, path: bytes) -> Entry | None:
        """Return the entry at ``path``, None when there is none; see `Source.lookup`."""
        directory, name = os.path.split(path)
        try:
            found = self._lstat(directory, name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _entry(name, found)

    def readlink(self, path: bytes) -> bytes:
        """Return where a symbolic link points."""
        directory, name = os.path.split(path)
        parent = self._anchor.take(directory)
        try:
            return os.readlink(name, dir_fd=parent)
        finally:
            self._anchor.done(parent)

    def xattrs(self, path: bytes) -> Mapping[str, bytes]:
        """Return the extended attributes that are sent: all but Apple's, and none where there cannot be any.

        Source: tonistiigi/fsutil stat_unix.go, loadXattr.
        """
        if not hasattr(os, "listxattr"):  # only Linux's Python has it
            return _NONE
        directory, _, name = path.rpartition(b"/")
        parent = self._anchor.take(directory)
        # There is no call that takes an open directory and a name, but a path that begins with one.
        full = b"/proc/self/fd/%d/%b" % (parent, name)
        try:
            names = os.listxattr(full, follow_symlinks=False)
            return _values(full, names) if names else _NONE
        except OSError as error:
            if error.errno in _NO_XATTRS or not os.path.exists("/proc/self/fd"):
                return _NONE
            raise
        finally:
            self._anchor.done(parent)

    def fetch(self, path: bytes, offered: int) -> bytes | Content:
        """Read a small regular file, open a large one; see `Source.fetch`. A socket, offered as a file, is empty."""
        directory, _, name = path.rpartition(b"/")
        parent = self._anchor.take(directory)
        try:
            descriptor = os.open(name, _OPEN, dir_fd=parent)
        except OSError as error:
            if error.errno == errno.ENXIO and not offered and stat.S_ISSOCK(self._lstat(directory, name).st_mode):
                return b""
            raise
        finally:
            self._anchor.done(parent)
        keep = False
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise changed(path, "was replaced by something that is not a file")
            size = found.st_size
            keep = size > _SMALL
            if keep:
                return _File(descriptor, size)
            return os.read(descriptor, size) if size else _read_unsized(descriptor)
        finally:
            if not keep:
                os.close(descriptor)

    def _names(self, directory: bytes) -> list[bytes]:
        """Return the names in ``directory``, last ones first."""
        parent = self._anchor.take(directory)
        try:
            listed = os.open(b".", _LIST, dir_fd=parent)
        except OSError as error:
            raise OSError(error.errno, error.strerror, directory) from error
        finally:
            self._anchor.done(parent)
        try:
            names = os.listdir(listed)
        finally:
            os.close(listed)
        return sorted(map(os.fsencode, names), reverse=True)

    def _lstat(self, directory: bytes, name: bytes) -> os.stat_result:
        parent = self._anchor.take(directory)
        try:
            return os.stat(name or b".", dir_fd=parent, follow_symlinks=False)
        finally:
            self._anchor.done(parent)


_NONE: Final[Mapping[str, bytes]] = {}


def _values(full: bytes, names: list[str]) -> dict[str, bytes]:
    values = {}
    for name in names:
        if name.startswith(_FOREIGN_XATTRS) or not name.isprintable():
            continue
        try:
            values[name] = os.getxattr(full, name, follow_symlinks=False)
        except OSError:
            # Some can be listed and not read (trusted.*, security.*); the reference leaves them out too.
            continue
    return values


def _entry(name: bytes, found: os.stat_result) -> Entry:
    mode = from_posix(found.st_mode)
    identity, links = None, 1
    if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
        # One number and no pair: a tree may have a million of them. Unlike the reference we do not take two files of
        # different devices for one.
        identity, links = found.st_dev << 64 | found.st_ino, found.st_nlink
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    device = _device(found.st_rdev) if mode & DEVICE else (0, 0)
    # The reference clears this bit, and so a socket travels as an empty file.
    mode &= ~SOCKET
    return Entry(name, mode, size, found.st_mtime_ns, found.st_uid, found.st_gid, device, identity, links)


def _device(rdev: int) -> tuple[int, int]:
    """Split a device number as tonistiigi/fsutil stat_unix.go does."""
    return rdev >> 8 & 0xFFF, rdev & 0xFF | rdev >> 12 & 0xFFF00


def _unusable(path: str, error: OSError) -> ContextError:
    name = quote(path)
    if isinstance(error, FileNotFoundError):
        return ContextError(
            f"directory {name} does not exist", hint="check the path; it is taken from the working directory"
        )
    if isinstance(error, NotADirectoryError):
        return ContextError(f"{name} is not a directory", hint="give the directory that the files are in")
    if isinstance(error, PermissionError):
        return ContextError(f"directory {name} cannot be read: {reason(error)}", hint="make it readable for this user")
    return ContextError(f"directory {name} cannot be used: {reason(error)}")


def _read_unsized(descriptor: int) -> bytes:
    """Read a file of size 0: an empty one, or one that does not say its size, as in /proc."""
    parts: list[bytes] = []
    while len(parts) < _UNSIZED_READS and (data := os.read(descriptor, _UNSIZED_READ)):
        parts.append(data)
    return b"".join(parts)


class _File:
    """A regular file, read up to the size it had when it was opened.

    The bound ends the reading of a file that somebody appends to faster than it can be sent.
    """

    __slots__ = ("_descriptor", "_left")

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._left = size

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` and return how many bytes that were."""
        if not self._left:
            return 0
        count = os.readv(self._descriptor, [buffer[: self._left]])
        self._left -= count
        return count

    def close(self) -> None:
        """Close the descriptor; more than once does no harm."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

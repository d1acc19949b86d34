"""A directory of this machine as a source.

Others may change it while it is sent. No path is given to the system as a whole: a name is looked up in the open
directory it is in, see `mobysession.filesync.anchor`, so that nothing outside the root is ever read.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from mobysession.errors import ContextError
from mobysession.filesync.anchor import Anchor
from mobysession.filesync.disk_file import OPEN_FLAGS, read_or_keep
from mobysession.filesync.modes import DEVICE, DIRECTORY, SOCKET, TYPE, from_posix
from mobysession.filesync.naming import blamed, cannot, quote, reason
from mobysession.filesync.source import Entry

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping
    from contextlib import AbstractContextManager

    from mobysession.filesync.source import Content

__all__ = ["Directory", "entry_of"]

_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOREIGN_XATTRS: Final = "com.apple."
_NO_XATTRS: Final = (errno.ENOTSUP, errno.ENOSYS)
_READABLE_BY_OWNER: Final = 0o400
_READABLE_BY_ALL: Final = 0o444


class Directory:
    """Offer a directory of this machine.

    Args:
        path: the directory; a symbolic link to one will do. It is not touched before `check`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._anchor = Anchor(os.fsencode(self.path))
        self._reader = os.geteuid()

    def __repr__(self) -> str:
        return f"Directory({self.path!r})"

    @property
    def location(self) -> str:
        """The absolute path, links resolved."""
        return os.path.realpath(self.path)

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
        except ValueError as error:  # a NUL in the path
            raise ContextError(f"directory {quote(self.path)} cannot be used: {error}") from error
        self._anchor.settle(root)
        self._reader = os.geteuid()

    def keeping(self) -> AbstractContextManager[None]:
        """Keep the directory used last open for this thread, while it reads many."""
        return self._anchor.keeping()

    def entries(self, directory: bytes) -> Iterator[Entry]:
        """Yield what is in ``directory`` in the order of the transfer; see `Source.entries`."""
        return self._entries(directory, self._names(directory))

    def entries_named(self, directory: bytes, names: Container[bytes]) -> Iterator[Entry]:
        """Yield those of `entries` with one of ``names``; nothing else is looked at."""
        return self._entries(directory, [name for name in self._names(directory) if name in names])

    def _entries(self, directory: bytes, names: list[bytes]) -> Iterator[Entry]:
        lstat = self._anchor.lstat
        # Popped, so that the names of a huge directory go as the entries come.
        while names:
            name = names.pop()
            try:
                found = lstat(directory, name)
            except FileNotFoundError:
                # Never offered, so nothing is missing: it is as if the walk had come a moment later.
                continue
            except OSError as error:
                relative = directory + b"/" + name if directory else name
                raise OSError(error.errno, error.strerror, relative) from error
            yield entry_of(name, found)

    def lookup(self, path: bytes) -> Entry | None:
        """Return the entry at ``path``, None when there is none; see `Source.lookup`."""
        directory, name = os.path.split(path)
        try:
            found = self._anchor.lstat(directory, name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return entry_of(name, found)

    def check_readable(self, path: bytes, entry: Entry) -> None:
        """Raise `ContextError` for a file that this user may not read, before anything of it is promised.

        Most modes tell enough; where they do not, the system is asked, which knows of access lists and capabilities.
        """
        if not self._reader or entry.mode & _READABLE_BY_ALL == _READABLE_BY_ALL:
            return
        if entry.mode & _READABLE_BY_OWNER and entry.uid == self._reader:
            return
        directory, _, name = path.rpartition(b"/")
        parent = self._anchor.take(directory)
        try:
            if not os.access(name, os.R_OK, dir_fd=parent, effective_ids=True):
                denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
                raise cannot("read", path, blamed(denied, found, path))
        except FileNotFoundError:
            # It will be noticed when it is asked for.
            return
        finally:
            self._anchor.done(parent)

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
        if _listxattr is None:
            return _NONE
        directory, _, name = path.rpartition(b"/")
        parent = self._anchor.take(directory)
        # There is no call that takes an open directory and a name, but a path that begins with one.
        full = b"/proc/self/fd/%d/%b" % (parent, name)
        try:
            names = _listxattr(full, follow_symlinks=False)
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
            descriptor = os.open(name, OPEN_FLAGS, dir_fd=parent)
        except OSError as error:
            if error.errno == errno.ENXIO and not offered:
                if stat.S_ISSOCK(self._anchor.lstat(directory, name).st_mode):
                    return b""
            elif isinstance(error, PermissionError):
                raise blamed(error, self._anchor.lstat(directory, name), path) from error
            raise
        finally:
            self._anchor.done(parent)
        return read_or_keep(descriptor, path)

    def _names(self, directory: bytes) -> list[bytes]:
        """Return the names in ``directory``, last ones first."""
        parent = self._anchor.take(directory)
        try:
            try:
                # As bytes, and without a copy of each name: there may be a million.
                names = os.listdir(b"/proc/self/fd/%d" % parent)
            except (FileNotFoundError, NotADirectoryError):
                names = _listdir(parent)
        except PermissionError as error:
            raise blamed(error, os.fstat(parent), directory) from error
        except OSError as error:
            raise OSError(error.errno, error.strerror, directory) from error
        finally:
            self._anchor.done(parent)
        names.sort(reverse=True)
        return names


def _listdir(parent: int) -> list[bytes]:
    """List an open directory where there is no /proc."""
    listed = os.open(b".", _LIST, dir_fd=parent)
    try:
        return list(map(os.fsencode, os.listdir(listed)))
    finally:
        os.close(listed)


_NONE: Final[Mapping[str, bytes]] = {}
#: Only Linux's Python has it.
_listxattr: Final = getattr(os, "listxattr", None)


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


def entry_of(name: bytes, found: os.stat_result) -> Entry:
    """Return the entry of a name with these attributes."""
    mode = from_posix(found.st_mode)
    size, device, identity, links = found.st_size, (0, 0), None, found.st_nlink
    if mode & DIRECTORY:
        size, links = 0, 1
    elif links > 1:
        # One number and no pair: a tree may have a million of them. Unlike the reference we do not take two files of
        # different devices for one.
        identity = found.st_dev << 64 | found.st_ino
    if mode & TYPE:
        if mode & DEVICE:
            device = _device(found.st_rdev)
        # The reference clears this bit, and so a socket travels as an empty file.
        mode &= ~SOCKET
    # Past the function in Python that a named tuple has for this: it is done for every entry of a tree.
    return _entry(Entry, (name, mode, size, found.st_mtime_ns, found.st_uid, found.st_gid, device, identity, links))


#: Makes an entry of a tuple of all its fields.
_entry: Final = tuple.__new__


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
    if error.errno == errno.ELOOP:
        return ContextError(
            f"{name} leads to itself: {reason(error)}", hint="give the directory itself, or mend the symbolic link"
        )
    return ContextError(f"directory {name} cannot be used: {reason(error)}")

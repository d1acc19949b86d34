"""A directory being made equal to a listing.

Every path is opened component by component below the root, never through a symbolic link, whoever made it: the names
come from a peer. All methods are called in a worker thread.

Source: tonistiigi/fsutil diskwriter.go and diff_containerd.go.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from typing import TYPE_CHECKING, Final

from mobysession.filesync import modes

if TYPE_CHECKING:
    from mobysession._pb.fsutil_pb2 import Stat

__all__ = ["Replica"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_UNFINISHED: Final = 0o600


class Replica:
    """The receiving directory.

    Args:
        root: an existing directory; `close` gives it back.
        owner: who is to own everything; None to take the listing's word for it, which needs root's rights.
    """

    def __init__(self, root: str | os.PathLike[str], *, owner: tuple[int, int] | None) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._owner = owner
        self._open: tuple[bytes, int] = (b"", self._root)

    def close(self) -> None:
        """Close what is open."""
        self._forget()
        os.close(self._root)

    def names(self, directory: bytes) -> set[bytes]:
        """Return what is in ``directory``."""
        return {os.fsencode(name) for name in os.listdir(self._directory(directory))}

    def find(self, path: bytes) -> os.stat_result | None:
        """Return the attributes of what is at ``path``; None when nothing is."""
        try:
            return self._stat(path)
        except FileNotFoundError:
            return None

    def same(self, found: os.stat_result, wanted: Stat) -> bool:
        """Tell whether what was found is what the listing wants, by its metadata."""
        mode = modes.from_posix(found.st_mode)
        if mode != wanted.mode or (found.st_uid, found.st_gid) != self._owner_of(wanted):
            return False
        if mode & modes.DIRECTORY:
            return True
        if found.st_size != wanted.size or found.st_mtime_ns != wanted.modTime:
            return False
        if mode & modes.DEVICE and found.st_rdev != os.makedev(wanted.devmajor, wanted.devminor):
            return False
        if mode & modes.SYMLINK:
            return self._readlink(wanted.path) == wanted.linkname
        if not wanted.linkname:
            return True
        first = self.find(wanted.linkname)
        return first is not None and (first.st_dev, first.st_ino) == (found.st_dev, found.st_ino)

    def remove(self, path: bytes) -> None:
        """Remove what is at ``path``, with all below it."""
        self._forget()
        directory, name = self._place(path)
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            shutil.rmtree(os.fsdecode(name), dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)

    def make(self, wanted: Stat, found: os.stat_result | None) -> None:
        """Make an entry, in the place of what was found; a file stays empty and unfinished until `finish`."""
        path = wanted.path
        is_directory = bool(wanted.mode & modes.DIRECTORY)
        if found is not None and stat.S_ISDIR(found.st_mode) is not is_directory:
            self.remove(path)
            found = None
        if is_directory:
            if found is None:
                directory, name = self._place(path)
                os.mkdir(name, 0o700, dir_fd=directory)
            self._describe(wanted)
            return
        directory, name = self._place(path)
        made = name if found is None else b".tmp.%09d" % secrets.randbelow(10**9)
        self._create(wanted, directory, made)
        if made != name:
            os.rename(made, name, src_dir_fd=directory, dst_dir_fd=directory)
            # Renaming one name of a file onto another one of it does nothing, and leaves both.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(made, dir_fd=directory)
        if wanted.mode & modes.TYPE:
            self._describe(wanted)

    def writer(self, path: bytes) -> int:
        """Open a file that was made, for writing; the caller closes the descriptor."""
        directory, name = self._place(path)
        return os.open(name, _WRITE, dir_fd=directory)

    def finish(self, wanted: Stat) -> None:
        """Give an entry its attributes, after the last write into it."""
        self._describe(wanted)

    def _create(self, wanted: Stat, directory: int, name: bytes) -> None:
        mode = wanted.mode
        if mode & modes.SYMLINK:
            os.symlink(wanted.linkname, name, dir_fd=directory)
        elif wanted.linkname:
            self._link(wanted.linkname, wanted.path, name)
        elif mode & modes.DEVICE:
            kind = stat.S_IFCHR if mode & modes.CHAR_DEVICE else stat.S_IFBLK
            os.mknod(name, kind | _UNFINISHED, os.makedev(wanted.devmajor, wanted.devminor), dir_fd=directory)
        elif mode & modes.NAMED_PIPE:
            os.mkfifo(name, _UNFINISHED, dir_fd=directory)
        else:
            os.close(os.open(name, _WRITE | os.O_CREAT | os.O_EXCL, _UNFINISHED, dir_fd=directory))

    def _link(self, first: bytes, path: bytes, name: bytes) -> None:
        # Two places are needed at once, so one of them is kept apart from the cached directory.
        source, source_name = self._place(first)
        source = os.dup(source)
        try:
            directory, _ = self._place(path)
            os.link(source_name, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(source)

    def _describe(self, wanted: Stat) -> None:
        directory, name = self._place(wanted.path)
        uid, gid = self._owner_of(wanted)
        os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
        if not wanted.mode & modes.SYMLINK:
            # Without a following variant on Linux; the name was made by us, and is not a link.
            os.chmod(name, modes.permissions_to_posix(wanted.mode), dir_fd=directory)
        self._set_xattrs(wanted, directory, name)
        os.utime(name, ns=(wanted.modTime, wanted.modTime), dir_fd=directory, follow_symlinks=False)

    def _set_xattrs(self, wanted: Stat, directory: int, name: bytes) -> None:
        if not wanted.xattrs or wanted.mode & modes.TYPE & ~modes.DIRECTORY:
            return
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            for key, value in wanted.xattrs.items():
                # Which ones may be set depends on the file system and on who asks; the reference does not insist
                # either.
                with contextlib.suppress(OSError):
                    os.setxattr(descriptor, key, value)
        finally:
            os.close(descriptor)

    def _owner_of(self, wanted: Stat) -> tuple[int, int]:
        return self._owner if self._owner is not None else (wanted.uid, wanted.gid)

    def _stat(self, path: bytes) -> os.stat_result:
        directory, name = self._place(path)
        return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def _readlink(self, path: bytes) -> bytes:
        directory, name = self._place(path)
        return os.readlink(name, dir_fd=directory)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        """Return the descriptor of the directory that ``path`` is in, valid until the next call, and the name there."""
        directory, _, name = path.rpartition(b"/")
        return self._directory(directory), name

    def _directory(self, path: bytes) -> int:
        known, descriptor = self._open
        if known == path:
            return descriptor
        self._forget()
        if not path:
            return self._root
        descriptor = self._root
        for part in path.split(b"/"):
            inner = os.open(part, _DIRECTORY, dir_fd=descriptor)
            if descriptor != self._root:
                os.close(descriptor)
            descriptor = inner
        self._open = (path, descriptor)
        return descriptor

    def _forget(self) -> None:
        _, descriptor = self._open
        self._open = (b"", self._root)
        if descriptor != self._root:
            os.close(descriptor)

"""A directory that takes the shape of a listing.

Every operation is on a name in a directory that `Folders` opened, and never follows a link, whoever made it: names come
from a peer, and others may write to the tree at the same time. What gets attributes is opened first, without following
anything, looked at, and changed through that descriptor: a name that was exchanged in between is noticed, not changed.

Nothing that is there is overwritten or emptied: what replaces it is made under another name and moved over it, so that
a reader, or whoever looks after an interrupted transfer, finds the old or the new. All methods are called in a worker
thread, one at a time.

Source: tonistiigi/fsutil diskwriter.go.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mobysession.filesync import modes
from mobysession.filesync.folders import Folders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mobysession._pb.fsutil_pb2 import Stat

__all__ = ["Attributes", "Replica", "finish_file"]

_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Opens anything, also a link or a device, as something that can be looked at and given attributes. Systems without it
#: can do both to a name without following it.
_HANDLE: Final = getattr(os, "O_PATH", None)
_UNFINISHED: Final = 0o600


class Attributes(NamedTuple):
    """What an entry is given when it is complete.

    ``mode`` is Go's, ``mtime`` nanoseconds.
    """

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: Mapping[str, bytes]


class Replica:
    """The receiving directory.

    Args:
        root: an existing directory; `close` gives it back.
        owner: who is to own everything; None to take the listing's word for it, which needs root's rights.
    """

    def __init__(self, root: str | os.PathLike[str], *, owner: tuple[int, int] | None) -> None:
        self._folders = Folders(root)
        self._owner = owner
        # Unknown to the peer, who could otherwise announce an entry of that name.
        self._scratch = b".tmp." + secrets.token_hex(6).encode() + b"."
        self._scratches = 0

    def close(self) -> None:
        """Close what is open."""
        self._folders.close()

    def attributes(self, wanted: Stat) -> Attributes:
        """Return what a listed entry is to be given."""
        uid, gid = self._owner if self._owner is not None else (wanted.uid, wanted.gid)
        return Attributes(wanted.mode, uid, gid, wanted.modTime, dict(wanted.xattrs) if wanted.xattrs else {})

    # -- looking -------------------------------------------------------------------------------------------------------

    def names(self, directory: bytes) -> set[bytes]:
        """Return what is in ``directory``."""
        descriptor = os.open(b".", _LIST, dir_fd=self._folders.open(directory))
        try:
            return {os.fsencode(name) for name in os.listdir(descriptor)}
        finally:
            os.close(descriptor)

    def find(self, path: bytes) -> os.stat_result | None:
        """Return the attributes of what is at ``path``; None when nothing is."""
        directory, name = self._place(path)
        try:
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def readlink(self, path: bytes) -> bytes:
        """Return where the symbolic link at ``path`` points."""
        directory, name = self._place(path)
        return os.readlink(name, dir_fd=directory)

    # -- making --------------------------------------------------------------------------------------------------------

    def make_directory(self, path: bytes, wanted: Attributes) -> bool:
        """Make a directory, or take the one that is there; return whether one was there.

        It can be written to by its owner until `finish_directory`, whatever its mode is to be.
        """
        directory, name = self._place(path)
        there = False
        try:
            os.mkdir(name, 0o700, dir_fd=directory)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                there = True
            else:
                self._unlink(directory, name)
                os.mkdir(name, 0o700, dir_fd=directory)
        self._describe(directory, name, wanted, extra=stat.S_IRWXU)
        return there

    def finish_directory(self, path: bytes, mode: int, mtime: int) -> None:
        """Give a directory the mode and time that filling it would have prevented or changed."""
        directory, name = self._place(path)
        with _handle(directory, name, modes.DIRECTORY) as place:
            if mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(place.path, modes.permissions_to_posix(mode), **place.how)
            os.utime(place.path, ns=(mtime, mtime), **place.how)

    def make_special(self, wanted: Stat) -> None:
        """Make a symbolic link, a device or a named pipe, in the place of whatever is there."""
        mode = wanted.mode
        directory, name = self._place(wanted.path)
        with self._replacing(wanted.path) as made:
            if mode & modes.SYMLINK:
                os.symlink(wanted.linkname, made, dir_fd=directory)
            elif mode & modes.DEVICE:
                kind = stat.S_IFCHR if mode & modes.CHAR_DEVICE else stat.S_IFBLK
                os.mknod(made, kind | _UNFINISHED, os.makedev(wanted.devmajor, wanted.devminor), dir_fd=directory)
            else:
                os.mkfifo(made, _UNFINISHED, dir_fd=directory)
            self._describe(directory, made, self.attributes(wanted))
            self._put(wanted.path, directory, made, name)

    def make_link(self, path: bytes, first: bytes, first_name: bytes, identity: tuple[int, int] | None) -> None:
        """Make ``path`` another name of the file called ``first_name`` in the directory of ``first``.

        Args:
            identity: device and inode that the file must have; None for any regular file.
        """
        directory, name = self._place(path)
        directory = os.dup(directory)  # two places are needed at once
        try:
            with self._replacing(path) as made:
                source = self._folders.open(first.rpartition(b"/")[0])
                os.link(first_name, made, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
                linked = os.stat(made, dir_fd=directory, follow_symlinks=False)
                if not stat.S_ISREG(linked.st_mode) or identity not in (None, (linked.st_dev, linked.st_ino)):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                self._put(path, directory, made, name)
                # Renaming one name of a file onto another one of it does nothing, and leaves both.
                self._unlink(directory, made)
        finally:
            os.close(directory)

    def make_file(self, path: bytes, content: bytes | memoryview, wanted: Attributes) -> None:
        """Make a file with all its content and attributes, in the place of whatever is there."""
        directory, name = self._place(path)
        made = self._scratch_name()
        descriptor = os.open(made, _WRITE, _UNFINISHED, dir_fd=directory)
        try:
            try:
                while content:
                    content = content[os.write(descriptor, content) :]
                finish_file(descriptor, wanted)
            finally:
                os.close(descriptor)
            self._put(path, directory, made, name)
        except BaseException:
            self.discard(path, made)
            raise

    def create(self, path: bytes) -> tuple[int, bytes]:
        """Open a new file for what is to be at ``path``; return its descriptor, the caller's, and its name there."""
        directory, _ = self._place(path)
        made = self._scratch_name()
        return os.open(made, _WRITE, _UNFINISHED, dir_fd=directory), made

    def publish(self, path: bytes, made: bytes) -> None:
        """Move a file that was created for ``path`` there."""
        directory, name = self._place(path)
        self._put(path, directory, made, name)

    def discard(self, path: bytes, made: bytes) -> None:
        """Remove a file that was created for ``path`` and will not be published, if it can still be found."""
        with contextlib.suppress(OSError):
            directory, _ = self._place(path)
            os.unlink(made, dir_fd=directory)

    # -- removing ------------------------------------------------------------------------------------------------------

    def remove(self, path: bytes) -> None:
        """Remove what is at ``path``, with all below it; nothing happens when it is gone already."""
        # Not recursive: a tree may be deeper than Python's stack.
        todo = [path]
        while todo:
            place = todo[-1]
            directory, name = self._place(place)
            try:
                os.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                pass
            except (IsADirectoryError, PermissionError):  # POSIX leaves open which
                if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                    raise
                todo += self._emptied(place)
                if todo[-1] is not place:
                    continue
                self._folders.forget(place)
                directory, name = self._place(place)
                os.rmdir(name, dir_fd=directory)
            todo.pop()

    def _emptied(self, path: bytes) -> list[bytes]:
        """Remove the files of a directory and return the directories that are left."""
        directories = []
        descriptor = os.open(b".", _LIST, dir_fd=self._folders.open(path))
        try:
            for name in os.listdir(descriptor):
                try:
                    os.unlink(name, dir_fd=descriptor)
                except (IsADirectoryError, PermissionError):
                    if not stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                        raise
                    directories.append(path + b"/" + os.fsencode(name))
                except FileNotFoundError:
                    continue
        finally:
            os.close(descriptor)
        return directories

    def _unlink(self, directory: int, name: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _place(self, path: bytes) -> tuple[int, bytes]:
        """Return the descriptor of the directory that ``path`` is in, valid until the next call, and the name there."""
        directory, _, name = path.rpartition(b"/")
        return self._folders.open(directory), name

    def _scratch_name(self) -> bytes:
        self._scratches += 1
        return b"%b%d" % (self._scratch, self._scratches)

    @contextlib.contextmanager
    def _replacing(self, path: bytes) -> Iterator[bytes]:
        """Give a name beside ``path`` for what is to be there; what has it at the end of a failed block is removed."""
        made = self._scratch_name()
        try:
            yield made
        except BaseException:
            self.discard(path, made)
            raise

    def _put(self, path: bytes, directory: int, made: bytes, name: bytes) -> None:
        """Move ``made`` to ``name``, in the place of whatever is there."""
        try:
            os.rename(made, name, src_dir_fd=directory, dst_dir_fd=directory)
        except IsADirectoryError:
            self._put_over_directory(path, directory, made, name)

    def _put_over_directory(self, path: bytes, directory: int, made: bytes, name: bytes) -> None:
        aside = self._scratch_name()
        os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
        try:
            os.rename(made, name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            with contextlib.suppress(OSError):
                os.rename(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
            raise
        self._folders.forget(path)
        self.remove(path[: len(path) - len(name)] + aside)

    def _describe(self, directory: int, name: bytes, wanted: Attributes, *, extra: int = 0) -> None:
        with _handle(directory, name, wanted.mode & modes.TYPE) as place:
            os.chown(place.path, wanted.uid, wanted.gid, **place.how)
            _set_xattrs(place.path, wanted.xattrs)
            if not wanted.mode & modes.SYMLINK:
                os.chmod(place.path, modes.permissions_to_posix(wanted.mode) | extra, **place.how)
            os.utime(place.path, ns=(wanted.mtime, wanted.mtime), **place.how)


def finish_file(descriptor: int, wanted: Attributes) -> None:
    """Give an open file that was written its attributes; in this order, for a change of owner takes capabilities."""
    mode, uid, gid, mtime, xattrs = wanted
    os.fchown(descriptor, uid, gid)
    if xattrs:
        _set_xattrs(descriptor, xattrs)
    os.fchmod(descriptor, modes.permissions_to_posix(mode))
    os.utime(descriptor, ns=(mtime, mtime))


class _Place(NamedTuple):
    """How something is named in calls that change it: by its descriptor, or by its name and not following it."""

    path: str | bytes
    how: dict[str, Any]


@contextlib.contextmanager
def _handle(directory: int, name: bytes, kind: int) -> Iterator[_Place]:
    """Hold on to what is called ``name``; raise OSError where it is not of this kind, or has another name too."""
    if _HANDLE is None:
        yield _Place(name, {"dir_fd": directory, "follow_symlinks": False})
        return
    descriptor = os.open(name, _HANDLE | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        same_kind = modes.from_posix(found.st_mode) & modes.TYPE == kind
        if not same_kind or (found.st_nlink > 1 and kind != modes.DIRECTORY):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        yield _Place(f"/proc/self/fd/{descriptor}", {})
    finally:
        os.close(descriptor)


def _set_xattrs(place: int | str | bytes, xattrs: Mapping[str, bytes]) -> None:
    if not xattrs or not hasattr(os, "setxattr"):
        return
    for key, value in xattrs.items():
        # Which ones may be set depends on the file system and on who asks; the reference does not insist either.
        with contextlib.suppress(OSError):
            os.setxattr(place, key, value)

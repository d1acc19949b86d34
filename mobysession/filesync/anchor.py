"""Directories below a root, opened so that no symbolic link on the way is followed.

A path that was a directory when it was listed may be a link when a file in it is asked for, and then the path as text
leads out of the tree. So each directory is opened from the one above it, and what is a link by now is an error.

Every descriptor is closed after use, unless the thread is inside `Anchor.keeping`: there the last directory stays open
for the next name in it.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Anchor"]

# O_PATH, where there is one, needs no permission to list the directory, just as a path does not.
_STEP: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Kept(threading.local):
    """The directory that this thread keeps open."""

    keeping = False
    path: bytes | None = None
    descriptor = -1


class Anchor:
    """A root directory, used by several threads at once.

    Args:
        root: its path; a link will do.
    """

    def __init__(self, root: bytes) -> None:
        self._root = (root, _STEP & ~os.O_NOFOLLOW)
        self._kept = _Kept()

    def settle(self, root: bytes) -> None:
        """Set the root's path after it was freed of links; from now on the root may not be one either.

        Other threads may be at work, with descriptors of theirs that this anchor has to know.
        """
        self._root = (root, _STEP)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Let this thread keep the directory it used last, until the end of the block."""
        kept = self._kept
        kept.keeping = True
        try:
            yield
        finally:
            kept.keeping = False
            self._drop()

    def take(self, directory: bytes) -> int:
        """Return a descriptor of ``directory``, to be given to `done`; it may be good for nothing but a way to names.

        Raises:
            OSError: there is none; ELOOP when a link is in its place or on the way to it. It names ``directory``.
        """
        kept = self._kept
        if kept.path == directory:
            return kept.descriptor
        try:
            descriptor = self._open(directory)
        except OSError as error:
            raise OSError(error.errno, error.strerror, directory) from error
        if kept.keeping:
            self._drop()
            kept.path, kept.descriptor = directory, descriptor
        return descriptor

    def done(self, descriptor: int) -> None:
        """Close a descriptor of `take`, unless it is kept."""
        if descriptor != self._kept.descriptor:
            os.close(descriptor)

    def lstat(self, directory: bytes, name: bytes) -> os.stat_result:
        """Return the attributes of a name in ``directory``, empty for the directory itself; raise as `take`."""
        kept = self._kept
        if kept.path == directory and name:
            return os.stat(name, dir_fd=kept.descriptor, follow_symlinks=False)
        parent = self.take(directory)
        try:
            return os.stat(name or b".", dir_fd=parent, follow_symlinks=False)
        finally:
            self.done(parent)

    def _drop(self) -> None:
        kept = self._kept
        if kept.path is not None:
            descriptor, kept.path, kept.descriptor = kept.descriptor, None, -1
            os.close(descriptor)

    def _open(self, directory: bytes) -> int:
        kept = self._kept
        if kept.path and directory.startswith(kept.path + b"/"):
            return _descend(os.dup(kept.descriptor), directory[len(kept.path) + 1 :])
        root = os.open(*self._root)
        return _descend(root, directory) if directory else root


def _descend(descriptor: int, path: bytes) -> int:
    """Open ``path`` below ``descriptor``, which is closed, name by name."""
    for name in path.split(b"/"):
        try:
            inner = _step(descriptor, name)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def _step(descriptor: int, name: bytes) -> int:
    if name == b"..":
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    try:
        return os.open(name, _STEP, dir_fd=descriptor)
    except NotADirectoryError as error:
        # Linux says this of links too, which are not what a caller expects behind a path that is no directory.
        if stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error
        raise

"""Directories below a root that are written to, opened so that no symbolic link on the way is followed.

Names come from a peer, and whoever else may write to the tree may replace a directory by a link at any moment. So each
directory is opened from the one above it, never as a path, and what is a link by then is an error. The descriptors used
last stay open: a directory that is moved or replaced meanwhile is still the one that was written to before.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Folders"]

# O_PATH, where there is one, needs no permission to list the directory, just as a path does not.
_STEP: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SLASH: Final = 0x2F
#: Descriptors kept open: of the directories that the listing and the files on their way are in.
_KEPT: Final = 32


class Folders:
    """The directories of one tree; used by one thread at a time.

    Args:
        root: an existing directory, a link to one will do; opened at once, and closed by `close`.
    """

    def __init__(self, root: str | bytes | os.PathLike[str]) -> None:
        self._root = os.open(root, _STEP & ~os.O_NOFOLLOW)
        self._kept: dict[bytes, int] = {}

    def close(self) -> None:
        """Close everything."""
        for descriptor in self._kept.values():
            os.close(descriptor)
        self._kept.clear()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def open(self, path: bytes) -> int:
        """Return a descriptor of the directory at ``path``; good for names in it, and until the next call.

        Raises:
            OSError: there is none, or something else is in its place or on the way to it.
        """
        if not path:
            return self._root
        kept = self._kept
        descriptor = kept.pop(path, None)
        if descriptor is not None:
            kept[path] = descriptor  # as the one used last
            return descriptor
        known, descriptor = self._nearest(path)
        for end in _ends(path, known):
            name = path[known + 1 if known else 0 : end]
            if name == b"..":
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            descriptor = os.open(name, _STEP, dir_fd=descriptor)
            self._keep(path[:end], descriptor)
            known = end
        return descriptor

    def forget(self, path: bytes) -> None:
        """Close what is kept of ``path`` and below it, because it is gone."""
        below = path + b"/"
        for kept in [kept for kept in self._kept if kept == path or kept.startswith(below)]:
            os.close(self._kept.pop(kept))

    def _nearest(self, path: bytes) -> tuple[int, int]:
        """Return how much of ``path`` is open already, and its descriptor."""
        known, descriptor = b"", self._root
        for kept, opened in self._kept.items():
            if len(kept) > len(known) and path.startswith(kept) and path[len(kept)] == _SLASH:
                known, descriptor = kept, opened
        return len(known), descriptor

    def _keep(self, path: bytes, descriptor: int) -> None:
        if len(self._kept) >= _KEPT:
            oldest = next(iter(self._kept))
            os.close(self._kept.pop(oldest))
        self._kept[path] = descriptor


def _ends(path: bytes, start: int) -> Iterator[int]:
    """Yield where each component of ``path`` behind ``start`` ends."""
    end = start
    while (end := path.find(b"/", end + 1)) > 0:
        yield end
    yield len(path)

"""What a tree must be able to do to be sent.

A source knows names, attributes and contents. It knows nothing of patterns, packets or ids: walking, filtering and
sending are the same for all of them. All methods are called in worker threads, from several transfers at once, and a
source keeps no state of any of these.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping
    from contextlib import AbstractContextManager

__all__ = ["Content", "Entry", "Source", "keeping"]


class Entry(NamedTuple):
    """One name in a directory.

    Attributes:
        name: the base name, as the file system's bytes.
        mode: Go's mode, see `mobysession.filesync.modes`.
        size: bytes of a file, length of a link's target; 0 for a directory.
        mtime: nanoseconds since the epoch, may be negative.
        uid, gid: the owner.
        device: major and minor number of a device, else (0, 0).
        identity: equal for two names of one file, None for a file that has a single name and for directories.
        links: number of names the file has.
    """

    name: bytes
    mode: int
    size: int = 0
    mtime: int = 0
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)
    identity: Hashable | None = None
    links: int = 1


class Content(Protocol):
    """An open file. ``io.BytesIO`` and raw binary files are some."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill ``buffer`` from its start and return how many bytes that were; 0 at the end of the file."""
        ...

    def close(self) -> None:
        """Give the file back."""
        ...


class Source(Protocol):
    """A tree of files; paths are relative to its root, bytes, ``/``-separated, empty for the root itself."""

    def check(self) -> None:
        """Raise `ContextError` when the tree as a whole cannot be sent; the user must act."""
        ...

    def entries(self, directory: bytes) -> Iterator[Entry]:
        """Yield what is in ``directory``, sorted by the bytes of the names.

        Raises:
            OSError: it cannot be listed, or, where ``filename`` is a path in the tree, that entry cannot be looked at.
        """
        ...

    def readlink(self, path: bytes) -> bytes:
        """Return where the symbolic link at ``path`` points, verbatim; raise OSError when that fails."""
        ...

    def xattrs(self, path: bytes) -> Mapping[str, bytes]:
        """Return the extended attributes of the entry itself, links not followed; raise OSError when that fails."""
        ...

    def lookup(self, path: bytes) -> Entry | None:
        """Return the entry at ``path`` without following a link in its last component; None when there is none."""
        ...

    def fetch(self, path: bytes, offered: int) -> bytes | Content:
        """Return the content of the regular file at ``path``, whose size was given as ``offered`` bytes.

        Returns: the bytes, where they are at hand or few; otherwise the open file, which the caller closes.

        Raises:
            OSError: it cannot be opened or read.
            ContextError: it is not a regular file any more.
        """
        ...


def keeping(source: Source) -> AbstractContextManager[None]:
    """Return a block in which ``source`` may keep what this thread used last; not all have something to keep."""
    keep = getattr(source, "keeping", None)
    return nullcontext() if keep is None else keep()

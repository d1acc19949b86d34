"""What a tree must be able to do to be sent.

A source knows names, attributes and contents. It knows nothing of patterns, packets or ids: walking, filtering and
sending are the same for all of them. All methods are called in worker threads, from several transfers at once, and a
source keeps no state of any of these.

Two entries of one path, one size and one mtime count as the same file: an engine that has the path from an earlier
build does not ask for it again. A source whose contents change must therefore change the mtime with them.

A source may have more than `Source` asks for:

- ``keeping()``, a block in which one thread may hold on to what it used last; entered again and again.
- ``opened()``, a block around each transfer, entered and left in worker threads; what is held open for all transfers
  is closed when the last of them leaves.
- ``entries_named(directory, names)``, those of `Source.entries` with one of these names; called where no others can be
  sent, which then need not be looked at.
- ``check_readable(path, entry)``, called before a file is offered; raises `ContextError` when it cannot be read later.
- ``location``, a text that names the tree on this machine; builds of one location find what the engine keeps of it.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

from mobysession.errors import ContextError
from mobysession.filesync.naming import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Hashable, Iterator, Mapping
    from contextlib import AbstractContextManager

__all__ = ["UNKNOWN_SIZE", "Content", "Entry", "Source", "content_of", "encoded", "entries_of", "keeping", "opened"]

#: The size of a file that is not known before it is read; it is offered as empty and sent as it is.
UNKNOWN_SIZE: Final = -1


class Entry(NamedTuple):
    """One name in a directory.

    Attributes:
        name: the base name, as the file system's bytes.
        mode: Go's mode, see `mobysession.filesync.modes`.
        size: bytes of a file, length of a link's target; 0 for a directory. `UNKNOWN_SIZE` is one as well; the mtime
            must then be one that the path never had.
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
        """Return the entry at ``path``, empty for the root, as `entries` yields it; None when there is none.

        A link in the last component is not followed.
        """
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


def opened(source: Source) -> AbstractContextManager[None]:
    """Return a block around a transfer of ``source``; not all have something to hold open."""
    block = getattr(source, "opened", None)
    return nullcontext() if block is None else block()


def content_of(given: object, path: bytes) -> bytes | Content:
    """Return as a content what a source, or a function of the caller's, gave for the file at ``path``.

    Raises:
        ContextError: it is none of what it may be; whoever wrote the source or the function must act.
    """
    if isinstance(given, bytes):
        return given
    if isinstance(given, (bytearray, memoryview)):
        return bytes(given)
    if isinstance(given, str):
        return encoded(given, path)
    close = getattr(given, "close", None)
    if callable(close):
        if callable(getattr(given, "readinto", None)):
            return cast("Content", given)
        with suppress(Exception):  # a text file is open, and a coroutine waits to be run
            close()
    raise ContextError(
        f"{quote(path)} cannot be read: bytes, text or an open binary file was expected, not {type(given).__name__}"
    )


def encoded(text: str, path: bytes) -> bytes:
    """Return ``text`` as the content of the file at ``path``; raise `ContextError` where no encoding has it."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ContextError(f"{quote(path)} cannot be read: its text is no UTF-8: {error.reason}") from error


def entries_of(source: Source, directory: bytes, names: Container[bytes] | None) -> Iterator[Entry]:
    """Yield those entries of ``directory`` with one of ``names``, or all for None; raise as `Source.entries`."""
    if names is None:
        return source.entries(directory)
    named: Callable[[bytes, Container[bytes]], Iterator[Entry]] | None = getattr(source, "entries_named", None)
    if named is not None:
        return named(directory, names)
    return (entry for entry in source.entries(directory) if entry.name in names)

"""Trees that are known as a whole before they are walked: an index of names and attributes, contents elsewhere.

What an archive or a mapping says of directories may be incomplete, and what it says of names may be hostile. Missing
directories are added, later entries of one path replace earlier ones as unpacking would, and a name that leads out of
the tree is refused.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from mobysession.errors import ContextError, UsageError
from mobysession.filesync.modes import DIRECTORY
from mobysession.filesync.naming import quote
from mobysession.filesync.source import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mobysession.filesync.source import Content

__all__ = ["EPOCH", "NANO", "Branches", "IndexedTree", "Leaf", "archive_location", "check_archive", "content_time"]

#: The mtime of what has none, in seconds: 1980-01-02. Ours: the first day that zip, and so Python's wheels, can express
#: in every time zone.
EPOCH: Final = 315_619_200
#: Nanoseconds in a second.
NANO: Final = 1_000_000_000
#: Nanoseconds over which contents are spread: as many as leave all of them in January 1980.
_SPREAD: Final = 28 * 24 * 3600 * NANO
_DIRECTORY: Final = Entry(b"", DIRECTORY | 0o755, mtime=EPOCH * NANO)
_NONE: Final[Mapping[str, bytes]] = {}


def content_time(digest: int) -> int:
    """Return an mtime in nanoseconds, from `EPOCH` on, that differs with the content.

    An engine takes a file for unchanged when size and mtime are.

    Args:
        digest: a number made of the content in such a way that hardly any two contents share one.
    """
    return EPOCH * NANO + digest % _SPREAD


def archive_location(kind: str, path: str) -> str | None:
    """Return what names an archive of this machine and tells it from others at its path; None when it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return f"{kind}:{os.path.realpath(path)}:{found.st_size}:{found.st_mtime_ns}"


def check_archive(name: str, given: object) -> None:
    """Refuse what is neither a path nor an open binary file, as the argument of ``name``; UsageError."""
    kinds = {kind.__name__ for kind in type(given).__mro__}
    if isinstance(given, (str, os.PathLike)):
        return
    if hasattr(given, "read") and not isinstance(given, io.TextIOBase) and "ZipFile" not in kinds:
        return
    hint = None
    if isinstance(given, (bytes, bytearray, memoryview)):
        hint = f"Give {name}(io.BytesIO(content))."
    elif kinds & {"ZipFile", "TarFile"}:
        hint = "Give the path or the open file that it reads."
    raise UsageError(
        f"{name} takes a path or an open binary file, not an object of type {type(given).__name__}", hint=hint
    )


class Leaf(NamedTuple):
    """What is at one path.

    Attributes:
        entry: its attributes; the name is put in by the tree.
        key: by which the tree finds the content.
        link: where a symbolic link points.
        xattrs: its extended attributes.
    """

    entry: Entry
    key: Any = None
    link: bytes = b""
    xattrs: Mapping[str, bytes] = _NONE


class _Node:
    __slots__ = ("below", "leaf")

    def __init__(self, leaf: Leaf, below: dict[bytes, _Node] | None) -> None:
        self.leaf = leaf
        self.below = below


class Branches(Protocol):
    """Takes entries in any order."""

    def add(self, path: bytes, leaf: Leaf) -> None:
        """Add an entry, in place of one that was added before."""
        ...

    def find(self, path: bytes) -> Leaf | None:
        """Return what was added at ``path``."""
        ...


class _Growing:
    """A tree that is being indexed."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.root = _Node(Leaf(_DIRECTORY), {})

    def add(self, path: bytes, leaf: Leaf) -> None:
        parts = self._parts(path)
        if not parts:
            return
        *above, name = parts
        here = self.root.below
        for part in above:
            node = here.get(part) if here is not None else None
            if here is not None and (node is None or node.below is None):
                node = here[part] = _Node(Leaf(_DIRECTORY._replace(name=part)), {})
            here = node.below if node is not None else None
        if here is None:
            return
        known = here.get(name)
        below: dict[bytes, _Node] | None = None
        if leaf.entry.mode & DIRECTORY:
            below = known.below if known is not None and known.below is not None else {}
        here[name] = _Node(leaf._replace(entry=leaf.entry._replace(name=name)), below)

    def find(self, path: bytes) -> Leaf | None:
        node = _find(self.root, self._parts(path))
        return None if node is None else node.leaf

    def _parts(self, path: bytes) -> list[bytes]:
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if b".." in parts or b"\0" in path:
            raise ContextError(f"{self._what} has an entry {quote(path)}, which no directory can have")
        return parts


def _find(root: _Node, parts: list[bytes]) -> _Node | None:
    node: _Node | None = root
    for part in parts:
        if node is None or node.below is None:
            return None
        node = node.below.get(part)
    return node


class IndexedTree(ABC):
    """A source with an index, which is made by the first `check`.

    Subclasses say what there is in ``_index`` and give contents in ``_read``.

    Args:
        what: what this is, in error messages.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._root: _Node | None = None

    def check(self) -> None:
        """Make the index, where there is none yet; see `Source.check`."""
        with self._lock:
            if self._root is None:
                self._root = self._grow()

    def _grow(self) -> _Node:
        growing = _Growing(self._what)
        self._index(growing)
        _sort(growing.root)
        return growing.root

    @abstractmethod
    def _index(self, branches: Branches) -> None:
        """Add everything to ``branches``; raise `ContextError` when that cannot be done."""

    @abstractmethod
    def _read(self, leaf: Leaf, path: bytes) -> bytes | Content:
        """Return the content of a file; as `Source.fetch`."""

    def entries(self, directory: bytes) -> Iterator[Entry]:
        """Yield what is in ``directory``, in order."""
        node = self._node(directory)
        if node.below is None:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), directory)
        for inner in node.below.values():
            yield inner.leaf.entry

    def readlink(self, path: bytes) -> bytes:
        """Return where a symbolic link points."""
        return self._node(path).leaf.link

    def xattrs(self, path: bytes) -> Mapping[str, bytes]:
        """Return the extended attributes of an entry."""
        return self._node(path).leaf.xattrs

    def lookup(self, path: bytes) -> Entry | None:
        """Return the entry at ``path``, None when there is none."""
        node = _find(self._indexed(), path.split(b"/") if path else [])
        return None if node is None else node.leaf.entry

    def fetch(self, path: bytes, offered: int) -> bytes | Content:
        """Return the content of a file; see `Source.fetch`."""
        return self._read(self._node(path).leaf, path)

    def _node(self, path: bytes) -> _Node:
        node = _find(self._indexed(), path.split(b"/") if path else [])
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return node

    def _indexed(self) -> _Node:
        if self._root is None:
            self.check()
        with self._lock:
            return self._root or self._grow()


def _sort(root: _Node) -> None:
    """Put the names of every directory into the order of a transfer."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.below is not None:
            node.below = dict(sorted(node.below.items()))
            waiting += node.below.values()

"""Files that come with a Python package as a tree, wherever the package was imported from.

A package on disk gives the attributes of its files. One in an archive gives names and contents only; then sizes are not
known before, and files are offered as new each time.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

from mobysession.errors import ContextError, UsageError
from mobysession.filesync.directory import entry_of
from mobysession.filesync.disk_file import OPEN_FLAGS, read_or_keep
from mobysession.filesync.modes import DIRECTORY
from mobysession.filesync.naming import quote
from mobysession.filesync.source import UNKNOWN_SIZE, Entry
from mobysession.filesync.tree import content_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.resources.abc import Traversable

    from mobysession.filesync.source import Content

__all__ = ["Resources"]


class Resources:
    """Offer a directory of package data.

    Args:
        directory: what ``importlib.resources.files`` returns, or something below it.
    """

    def __init__(self, directory: Traversable) -> None:
        if not hasattr(directory, "iterdir") or not hasattr(directory, "joinpath"):
            raise UsageError("resources are given as importlib.resources.files(...) returns them")
        self._directory = directory
        self._now = time.time_ns()

    def __repr__(self) -> str:
        return f"Resources({self._directory!r})"

    def check(self) -> None:
        """See that there is such a directory; see `Source.check`."""
        if not self._directory.is_dir():
            raise ContextError(f"the resources {quote(str(self._directory))} are no directory")

    def entries(self, directory: bytes) -> Iterator[Entry]:
        """Yield what is in ``directory``, in order."""
        found = self._find(directory)
        yield from sorted((self._entry(inner) for inner in found.iterdir()), key=lambda entry: entry.name)

    def readlink(self, path: bytes) -> bytes:
        """There are no links here: they are followed."""
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)

    def xattrs(self, path: bytes) -> Mapping[str, bytes]:
        """There are none."""
        return {}

    def lookup(self, path: bytes) -> Entry | None:
        """Return the entry at ``path``, None when there is none."""
        try:
            return self._entry(self._find(path), root=not path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def fetch(self, path: bytes, offered: int) -> bytes | Content:
        """Return the content of a file; see `Source.fetch`."""
        found = self._find(path)
        if isinstance(found, os.PathLike):
            return read_or_keep(os.open(found, OPEN_FLAGS & ~os.O_NOFOLLOW), path)
        return found.read_bytes()

    def _find(self, path: bytes) -> Traversable:
        found = self._directory
        for part in os.fsdecode(path).split("/") if path else ():
            # Not joinpath, which would take a name like ".." for what it says.
            inner = next((one for one in found.iterdir() if one.name == part), None)
            if inner is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            found = inner
        return found

    def _entry(self, found: Traversable, *, root: bool = False) -> Entry:
        name = b"" if root else os.fsencode(found.name)
        if isinstance(found, os.PathLike):
            return entry_of(name, os.stat(found))._replace(identity=None, links=1)
        if found.is_dir():
            return Entry(name, DIRECTORY | 0o755, mtime=content_time(0))
        return Entry(name, 0o644, UNKNOWN_SIZE, self._now)

"""A mapping as a tree: paths to contents, which are at hand, on disk, or made when they are asked for.

::

    Files({
        "Dockerfile": "FROM scratch\\nCOPY . /\\n",
        "bin/run": File(b"...", mode=0o755),
        "data.json": Path("/elsewhere/data.json"),
        "version": lambda: git_describe(),
        "latest": Link("data.json"),
        "empty": {},
    })
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, Union

from mobysession.errors import ContextError, MobysessionError, UsageError
from mobysession.filesync.directory import entry_of
from mobysession.filesync.disk_file import OPEN_FLAGS, read_or_keep
from mobysession.filesync.modes import DIRECTORY, SYMLINK, from_posix
from mobysession.filesync.naming import quote, reason
from mobysession.filesync.source import UNKNOWN_SIZE, Entry, content_of, encoded
from mobysession.filesync.tree import IndexedTree, Leaf, content_time

if TYPE_CHECKING:
    from mobysession.filesync.source import Content
    from mobysession.filesync.tree import Branches

__all__ = ["File", "FileContent", "Files", "FilesLike", "Link"]

_REGULAR: Final = 0o100000
#: What ``chmod`` takes: permissions, set-user-ID, set-group-ID and sticky.
_SETTABLE: Final = 0o7777

#: What may be in a file: bytes; text, which becomes UTF-8; the path of a file; a function that returns bytes, text or
#: an open binary file.
FileContent = Union[bytes, str, "os.PathLike[str]", "Callable[[], bytes | str | Content]"]


class File(NamedTuple):
    """A file with attributes.

    Attributes:
        content: see `FileContent`.
        mode: permissions and special bits, as ``chmod`` takes them.
        mtime: nanoseconds since the epoch; None is one that differs with the content.
    """

    content: FileContent
    mode: int = 0o644
    mtime: int | None = None


class Link(NamedTuple):
    """A symbolic link."""

    target: str


FilesLike = Mapping[str, "FileContent | File | Link | FilesLike"]


class Files(IndexedTree):
    """Offer what a mapping holds.

    Functions are called, and files of the disk read, when the engine asks for them; from several threads, and for each
    transfer anew. The size of what a function returns is not known before, so the engine always asks for it.

    Args:
        files: by path, ``/``-separated; a mapping in place of a content is a directory.

    Raises:
        UsageError: a path is no path in a directory, is there twice, or lies in what is no directory; or a content is
            none of what it may be.
    """

    def __init__(self, files: FilesLike) -> None:
        super().__init__("the mapping")
        self._files = _unambiguous(_flatten(files, ""))
        #: When functions are said to have been called last.
        self._now = time.time_ns()

    def __repr__(self) -> str:
        return f"Files({len(self._files)} paths)"

    @property
    def location(self) -> str | None:
        """Nothing of its own to be found by; None when there are functions, whose results nobody can compare."""
        contents = (file.content for file in self._files.values() if isinstance(file, File))
        return None if any(callable(content) for content in contents) else ""

    def check(self) -> None:
        """Look at the files of the disk again.

        Raises:
            ContextError: one of them is missing or no file; the user must act.
        """
        root = self._grow()
        with self._lock:
            self._root = root

    def _index(self, branches: Branches) -> None:
        for path, given in self._files.items():
            branches.add(os.fsencode(path), self._leaf(path, given))

    def _leaf(self, path: str, given: File | Link | None) -> Leaf:
        if given is None:
            return Leaf(Entry(b"", DIRECTORY | 0o755, mtime=content_time(0)))
        if isinstance(given, Link):
            target = os.fsencode(given.target)
            mtime = content_time(_digest(target))
            return Leaf(Entry(b"", SYMLINK | 0o777, len(target), mtime), link=target)
        content = given.content
        if isinstance(content, os.PathLike):
            return Leaf(_stat(path, content), content)
        if isinstance(content, str):
            content = encoded(content, os.fsencode(path))
        size, mtime = UNKNOWN_SIZE, self._now
        if isinstance(content, bytes):
            size, mtime = len(content), content_time(_digest(content))
        mtime = mtime if given.mtime is None else given.mtime
        return Leaf(Entry(b"", from_posix(_REGULAR | given.mode & _SETTABLE), size, mtime), content)

    def _read(self, leaf: Leaf, path: bytes) -> bytes | Content:
        content = leaf.key
        if isinstance(content, os.PathLike):
            return read_or_keep(os.open(content, OPEN_FLAGS & ~os.O_NOFOLLOW), path)
        return content_of(_call(content, path) if callable(content) else content, path)


def _call(make: Callable[[], object], path: bytes) -> object:
    try:
        return make()
    except (OSError, MobysessionError):
        raise
    except Exception as error:
        raise ContextError(f"{quote(path)} cannot be made: {type(error).__name__}: {error}") from error


def _flatten(files: FilesLike, above: str) -> list[tuple[str, File | Link | None]]:
    found: list[tuple[str, File | Link | None]] = []
    for name, given in files.items():
        if not _is_path(name):
            raise UsageError(f"{name!r} is no path in a directory", hint="Write it as dir/file, without . and ..")
        path = f"{above}/{name}" if above else name
        if isinstance(given, Mapping):
            found += [(path, None), *_flatten(given, path)]
        elif isinstance(given, (File, Link)):
            _check(path, given)
            found.append((path, given))
        elif isinstance(given, (bytes, str, os.PathLike)) or callable(given):
            found.append((path, File(given)))
        else:
            raise UsageError(f"{path}: bytes, text, a path or a function was expected, not {type(given).__name__}")
    return found


def _is_path(name: object) -> bool:
    if not isinstance(name, str) or {"..", ".", ""}.intersection(name.split("/")) or "\0" in name:
        return False
    return _has_bytes(name)


def _has_bytes(text: str) -> bool:
    """Tell whether the file system has a name for ``text``."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _check(path: str, given: File | Link) -> None:
    if isinstance(given, Link):
        target: object = given.target
        if not (isinstance(target, str) and target and "\0" not in target and _has_bytes(target)):
            raise UsageError(f"{path}: a link cannot lead to {target!r}")
        return
    numbers: tuple[object, ...] = (given.mode, 0 if given.mtime is None else given.mtime)
    if not all(isinstance(number, int) for number in numbers):
        raise UsageError(f"{path}: mode and mtime of a file are whole numbers, the mtime in nanoseconds")


def _unambiguous(given: list[tuple[str, File | Link | None]]) -> dict[str, File | Link | None]:
    files: dict[str, File | Link | None] = {}
    for path, file in given:
        if path in files and (file is not None or files[path] is not None):
            raise UsageError(f"{path!r} is in the mapping twice")
        files[path] = file
    for path in files:
        above = path
        while above := above.rpartition("/")[0]:
            if files.get(above) is not None:
                raise UsageError(f"{above!r} is no directory, and yet the mapping has {path!r} in it")
    return files


def _stat(path: str, file: os.PathLike[str]) -> Entry:
    name = quote(os.fspath(file))
    try:
        entry = entry_of(b"", os.stat(file))
    except OSError as error:
        raise ContextError(f"{quote(path)} cannot be taken from {name}: {reason(error)}") from error
    if entry.mode & DIRECTORY:
        raise ContextError(
            f"{quote(path)} cannot be taken from {name}: it is a directory",
            hint="lay directories over one another with Overlay",
        )
    return entry._replace(identity=None, links=1)


def _digest(content: bytes) -> int:
    import hashlib  # only for who has a mapping: start-up

    return int.from_bytes(hashlib.blake2b(content, digest_size=16).digest())

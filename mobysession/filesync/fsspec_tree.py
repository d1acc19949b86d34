"""A directory of any fsspec file system as a tree: buckets, archives, other machines.

Only fsspec's own listing is used, and files are opened when they are asked for. Sizes are known; a file without an
mtime gets the present, so that nothing old passes for it. Modes are those of `File`: most such systems have none.
"""

from __future__ import annotations

import errno
import os
import posixpath
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from mobysession.errors import ContextError
from mobysession.filesync.modes import DIRECTORY, PERMISSIONS, SYMLINK
from mobysession.filesync.naming import quote
from mobysession.filesync.source import UNKNOWN_SIZE, Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mobysession.filesync.source import Content

__all__ = ["FileSystem", "FsspecTree"]

#: Under which the file systems of fsspec say when a file was changed.
_TIMES: Final = ("mtime", "LastModified", "last_modified", "modified", "updated", "ModTime")
_NANO: Final = 1_000_000_000


class FileSystem(Protocol):
    """What is used of ``fsspec.AbstractFileSystem``."""

    def ls(self, path: str, detail: bool = True) -> Sequence[Mapping[str, Any]]:
        """List a directory."""
        ...

    def info(self, path: str) -> Mapping[str, Any]:
        """Describe one path."""
        ...

    def open(self, path: str, mode: str = "rb") -> Any:
        """Open a file."""
        ...


class FsspecTree:
    """Offer a directory of an fsspec file system; needs the extra ``mobysession[fsspec]``.

    Args:
        system: an instance, ``fsspec.filesystem("s3")`` for example. It is used in worker threads.
        path: the directory.
    """

    def __init__(self, system: FileSystem, path: str) -> None:
        self._system = system
        # The root is "/" where names begin with it, as on a disk, and empty where they do not, as in an archive.
        self._path = path.rstrip("/") or path[:1]
        self._now = time.time_ns()

    def __repr__(self) -> str:
        return f"FsspecTree({self._path!r})"

    @classmethod
    def from_url(cls, url: str, **options: Any) -> FsspecTree:
        """Offer the directory at a URL such as ``s3://bucket/dir``; ``options`` are those of its file system.

        Raises:
            ContextError: fsspec, or what it needs for this kind of URL, is not installed; the user must act.
        """
        try:
            import fsspec.core
        except ImportError as error:
            raise ContextError("fsspec is not installed", hint="pip install 'mobysession[fsspec]'") from error
        try:
            system, path = fsspec.core.url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise ContextError(f"{quote(url)} cannot be opened: {error}") from error
        return cls(system, path)

    def check(self) -> None:
        """See that there is such a directory; see `Source.check`."""
        try:
            kind = self._system.info(self._path).get("type")
            # In an archive that was made of ``.``, every name begins with it.
            names = [] if self._path else [info["name"] for info in self._system.ls("", detail=True)]
        except Exception as error:  # each file system has its own
            raise ContextError(f"{quote(self._path)} cannot be read: {error}") from error
        if kind != "directory":
            raise ContextError(f"{quote(self._path)} is no directory")
        if "." in names:
            if len(names) > 1:
                raise ContextError(
                    "the archive has names with and without ./ before them", hint="Offer a tar archive as TarArchive."
                )
            self._path = "."

    def entries(self, directory: bytes) -> Iterator[Entry]:
        """Yield what is in ``directory``, in order."""
        path = self._full(directory)
        found: dict[bytes, Mapping[str, Any]] = {}
        with _translated("list", directory):
            listed = self._system.ls(path, detail=True)
        for info in listed:
            full = str(info["name"]).strip("/")
            name = full.rpartition("/")[2]
            # Buckets list a directory among its own contents.
            if name and full != path.strip("/"):
                found[os.fsencode(name)] = info
        for key in sorted(found):
            yield self._entry(key, found[key])

    def readlink(self, path: bytes) -> bytes:
        """Return where a link points, on systems that have links."""
        info = self._look(path)
        target = None if info is None else info.get("destination")
        if target is None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return target if isinstance(target, bytes) else os.fsencode(target)

    def xattrs(self, path: bytes) -> Mapping[str, bytes]:
        """There are none."""
        return {}

    def lookup(self, path: bytes) -> Entry | None:
        """Return the entry at ``path``, None when there is none."""
        info = self._look(path)
        return None if info is None else self._entry(path.rpartition(b"/")[2], info)

    def fetch(self, path: bytes, offered: int) -> bytes | Content:
        """Open a file; see `Source.fetch`."""
        with _translated("read", path):
            file = self._system.open(self._full(path), "rb")
        return _Opened(file, path)

    def _look(self, path: bytes) -> Mapping[str, Any] | None:
        full = self._full(path)
        with suppress(FileNotFoundError, NotADirectoryError):
            info = self._system.info(full)
            if not info.get("islink"):
                return info
        # Asked for alone, a link may be described as what it leads to; in its directory it is described itself.
        with suppress(FileNotFoundError, NotADirectoryError):
            listed = self._system.ls(posixpath.dirname(full), detail=True)
            return next((info for info in listed if str(info["name"]).strip("/") == full.strip("/")), None)
        return None

    def _full(self, path: bytes) -> str:
        below = os.fsdecode(path)
        return f"{self._path.rstrip('/')}/{below}" if below and self._path else below or self._path

    def _entry(self, name: bytes, info: Mapping[str, Any]) -> Entry:
        mode, kind = info.get("mode"), info.get("type")
        permissions = mode & PERMISSIONS if isinstance(mode, int) else 0
        mtime = self._mtime(info)
        if info.get("islink") or kind == "link":
            return Entry(name, SYMLINK | 0o777, len(info.get("destination") or b""), mtime)
        if kind == "directory":
            return Entry(name, DIRECTORY | (permissions or 0o755), mtime=mtime)
        size = info.get("size")
        return Entry(name, permissions or 0o644, UNKNOWN_SIZE if size is None else int(size), mtime)

    def _mtime(self, info: Mapping[str, Any]) -> int:
        for name in _TIMES:
            time_of = info.get(name)
            if isinstance(time_of, str):
                time_of = _parse(time_of)
            if isinstance(time_of, datetime):
                aware = time_of if time_of.tzinfo else time_of.replace(tzinfo=UTC)
                return int(aware.timestamp()) * _NANO + aware.microsecond * 1000
            if isinstance(time_of, (int, float)):
                return int(time_of * _NANO)
        return self._now


class _Opened:
    """An open file, whose failures are errors of ours."""

    def __init__(self, file: Content, path: bytes) -> None:
        self._file = file
        self._path = path

    def readinto(self, buffer: memoryview, /) -> int | None:
        with _translated("read", self._path):
            return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()


@contextmanager
def _translated(verb: str, path: bytes) -> Iterator[None]:
    """Make errors of what fsspec wants them to be, and of what the libraries below it raise."""
    try:
        yield
    except (OSError, ContextError):
        raise
    except Exception as error:
        raise ContextError(f"cannot {verb} {quote(path or b'.')}: {error}") from error


def _parse(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None

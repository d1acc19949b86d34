"""A zip archive as a tree.

Modes and symbolic links are taken from archives made on Unix. Times have two seconds in a zip, in whatever zone it was
made in, or one second where an extra field has them; the checksum of the content makes the rest of each mtime. That
does not tell all contents apart, so the state of the archive belongs to its location: what an engine keeps is of this
very archive.
"""

from __future__ import annotations

import calendar
import os
import struct
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from mobysession import limits
from mobysession.errors import ContextError
from mobysession.filesync.held import Held, Holding
from mobysession.filesync.modes import DIRECTORY, SYMLINK, TYPE, from_posix
from mobysession.filesync.naming import quote, reason
from mobysession.filesync.source import Entry
from mobysession.filesync.tree import NANO, IndexedTree, Leaf, archive_location, check_archive

if TYPE_CHECKING:
    import zipfile
    from contextlib import AbstractContextManager

    from mobysession.filesync.source import Content
    from mobysession.filesync.tree import Branches

__all__ = ["ZipArchive"]

_UNIX: Final = 3
_ENCRYPTED: Final = 1
_TIMES: Final = 0x5455
_SMALL: Final = 128 * limits.KIB
#: Bytes of a symbolic link's target; longer ones cannot be made anywhere.
_MAX_TARGET: Final = 4096


class ZipArchive(IndexedTree):
    """Offer what is in a zip archive.

    Args:
        archive: its path, or an open binary file that can be positioned, which stays open and the caller's.

    Raises:
        UsageError: ``archive`` is neither.
    """

    def __init__(self, archive: str | os.PathLike[str] | BinaryIO) -> None:
        check_archive("ZipArchive", archive)
        self._archive = archive
        self._name = os.fspath(archive) if isinstance(archive, (str, os.PathLike)) else "an open file"
        super().__init__(f"the zip archive {quote(self._name)}")
        self._held = Held(self._open)
        self._location: str | None = None

    def __repr__(self) -> str:
        return f"ZipArchive({self._name!r})"

    @property
    def location(self) -> str | None:
        """Path and state of the archive; None for an open file."""
        return self._location or self._locate()

    def opened(self) -> AbstractContextManager[None]:
        """Keep the archive open between two files."""
        return self._held.held()

    def _open(self) -> zipfile.ZipFile:
        import zipfile  # only for who has one: start-up

        try:
            return zipfile.ZipFile(self._archive)
        except OSError as error:
            raise ContextError(f"{self._what} cannot be read: {reason(error)}") from error
        except zipfile.BadZipFile as error:
            raise ContextError(f"{self._what} cannot be read: {error}") from error

    def _index(self, branches: Branches) -> None:
        archive = self._held.acquire()
        try:
            self._location = self._locate()
            for info in archive.infolist():
                if info.flag_bits & _ENCRYPTED:
                    raise ContextError(f"{self._what} is encrypted", hint="Unpack it first.")
                branches.add(info.filename.encode("utf-8", "surrogateescape"), self._leaf(archive, info))
        finally:
            self._held.release()

    def _locate(self) -> str | None:
        return archive_location("zip", self._name) if isinstance(self._archive, (str, os.PathLike)) else None

    def _leaf(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Leaf:
        mode = from_posix(info.external_attr >> 16) if info.create_system == _UNIX and info.external_attr >> 16 else 0
        mtime = _seconds(info) * NANO + info.CRC % NANO
        if info.is_dir():
            return Leaf(Entry(b"", DIRECTORY | (mode & ~TYPE or 0o755), mtime=mtime))
        if mode & SYMLINK:
            target = archive.read(info)[:_MAX_TARGET]
            return Leaf(Entry(b"", mode, len(target), mtime), link=target)
        return Leaf(Entry(b"", mode & ~TYPE or 0o644, info.file_size, mtime), info)

    def _read(self, leaf: Leaf, path: bytes) -> bytes | Content:
        import zipfile
        import zlib

        archive = self._held.acquire()
        content = None
        try:
            if leaf.entry.size <= _SMALL:
                return archive.read(leaf.key)
            content = Holding(_Checked(cast("Content", archive.open(leaf.key)), self._what), self._held)
            return content
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
            raise ContextError(f"{self._what} is damaged at {quote(path)}: {error}") from error
        finally:
            if content is None:
                self._held.release()


class _Checked:
    """A large file of an archive, whose damages are errors of ours."""

    def __init__(self, content: Content, what: str) -> None:
        self._content = content
        self._what = what

    def readinto(self, buffer: memoryview, /) -> int | None:
        import zipfile
        import zlib

        try:
            return self._content.readinto(buffer)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ContextError(f"{self._what} is damaged: {error}") from error

    def close(self) -> None:
        self._content.close()


def _seconds(info: zipfile.ZipInfo) -> int:
    """Return the time of an entry: what Unix programs add to it, or the date, taken for one in UTC."""
    extra, at = info.extra, 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind == _TIMES and size >= 5 and at + 9 <= len(extra) and extra[at + 4] & 1:
            return int(struct.unpack_from("<i", extra, at + 5)[0])
        at += 4 + size
    year, month, day, *time = info.date_time
    # Some archives say month 0 and day 0, among them all that Go's archive/zip makes without being told a time.
    return calendar.timegm((year, min(max(month, 1), 12), max(day, 1), *time, 0, 0, 0))

"""A tar archive as a tree.

A plain archive on disk is read where it lies. One that is compressed, or comes as a stream, is written to an unnamed
temporary file first, for its files are asked for in another order than they have in it. Modes, owners, times to the
nanosecond, hard links, devices, extended attributes and holes are those of the archive.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from mobysession import limits
from mobysession.errors import ContextError
from mobysession.filesync.modes import CHAR_DEVICE, DEVICE, DIRECTORY, NAMED_PIPE, SYMLINK, from_posix
from mobysession.filesync.naming import quote, reason
from mobysession.filesync.source import Entry
from mobysession.filesync.tree import IndexedTree, Leaf, archive_location, check_archive

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Sequence

    from mobysession.filesync.source import Content
    from mobysession.filesync.tree import Branches

__all__ = ["TarArchive"]

_SMALL: Final = 128 * limits.KIB
_XATTR: Final = "SCHILY.xattr."
_NANO: Final = 1_000_000_000
#: Go's archive/tar, too, takes seconds of 64 bits and no more.
_MOST_SECONDS: Final = 1 << 63
_BLOCK: Final = 512
#: How compressed archives begin, and the module that reads them.
_COMPRESSIONS: Final = ((b"\x1f\x8b", "gzip"), (b"BZh", "bz2"), (b"\xfd7zXZ", "lzma"))


class TarArchive(IndexedTree):
    """Offer what is in a tar archive, plain or compressed with gzip, bzip2 or xz.

    Args:
        archive: its path, or an open binary file, which is read once from where it stands, in `check`; it stays the
            caller's.

    Raises:
        UsageError: ``archive`` is neither.
    """

    def __init__(self, archive: str | os.PathLike[str] | BinaryIO) -> None:
        check_archive("TarArchive", archive)
        self._archive = archive
        self._name = os.fspath(archive) if isinstance(archive, (str, os.PathLike)) else "a stream"
        super().__init__(f"the tar archive {quote(self._name)}")
        self._descriptor = -1
        self._location: str | None = None

    def __repr__(self) -> str:
        return f"TarArchive({self._name!r})"

    @property
    def location(self) -> str | None:
        """Path and state of the archive; None for a stream.

        The state belongs to it because two archives may have another content under one name, size and time.
        """
        return self._location or self._locate()

    def _locate(self) -> str | None:
        return archive_location("tar", self._name) if isinstance(self._archive, (str, os.PathLike)) else None

    def _index(self, branches: Branches) -> None:
        import tarfile  # only for who has one: start-up
        import zlib

        try:
            self._take(self._spool())
            with os.fdopen(os.dup(self._descriptor), "rb") as file:
                file.seek(0)
                with tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape") as archive:
                    self._index_members(archive, branches)
                    _check_end(file, archive.offset)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise ContextError(f"{self._what} cannot be read: {error}") from error
        except OSError as error:
            raise ContextError(f"{self._what} cannot be read: {reason(error)}") from error

    def _take(self, descriptor: int) -> None:
        """Own a descriptor for as long as this tree lives."""
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def _spool(self) -> int:
        """Return a descriptor of the archive, uncompressed."""
        import tempfile

        if not isinstance(self._archive, (str, os.PathLike)):
            with tempfile.TemporaryFile() as spool:
                _expand(self._archive, spool)
                return os.dup(spool.fileno())
        with open(self._archive, "rb") as file:
            self._location = self._locate()
            if _compression(file.peek(8)) is None:
                return os.dup(file.fileno())
            with tempfile.TemporaryFile() as spool:
                _expand(file, spool)
                return os.dup(spool.fileno())

    def _index_members(self, archive: tarfile.TarFile, branches: Branches) -> None:
        names: dict[_Extent, list[bytes]] = {}
        while (member := archive.next()) is not None:
            # Otherwise it remembers all of them.
            archive.members.clear()  # type: ignore[attr-defined]  # typeshed does not know it
            path = _bytes(member.name)
            if member.islnk():
                target = _bytes(member.linkname)
                leaf = branches.find(target)
                if leaf is None:
                    raise ContextError(f"{self._what} has a hard link {quote(path)} to what is not in it before")
                branches.add(path, leaf)
                names.setdefault(leaf.key, [target]).append(path)
            else:
                branches.add(path, self._leaf(member))
        for number, (extent, paths) in enumerate(names.items()):
            _mark_links(branches, number, extent, paths)

    def _leaf(self, member: tarfile.TarInfo) -> Leaf:
        mode = from_posix(member.mode & 0o7777 | 0o100000)
        link, device, size = b"", (0, 0), 0
        if member.isdir():
            mode |= DIRECTORY
        elif member.issym():
            mode |= SYMLINK
            link = _bytes(member.linkname)
            size = len(link)
        elif member.isfifo():
            mode |= NAMED_PIPE
        elif member.isdev():
            mode |= DEVICE | (CHAR_DEVICE if member.ischr() else 0)
            device = (member.devmajor, member.devminor)
        elif member.isreg():
            size = member.size
        else:
            raise ContextError(f"{self._what} has an entry of unknown kind {quote(_bytes(member.name))}")
        xattrs = {
            name.removeprefix(_XATTR): _bytes(value)
            for name, value in member.pax_headers.items()
            if name.startswith(_XATTR)
        }
        entry = Entry(b"", mode, size, self._mtime(member), member.uid, member.gid, device)
        return Leaf(
            entry, _Extent(member.offset_data, size, cast("list[tuple[int, int]] | None", member.sparse)), link, xattrs
        )

    def _mtime(self, member: tarfile.TarInfo) -> int:
        try:
            mtime = _mtime(member)
        except (ValueError, OverflowError):  # Python's tarfile takes nan and inf for numbers
            mtime = _MOST_SECONDS * _NANO
        if abs(mtime) < _MOST_SECONDS * _NANO:
            return mtime
        raise ContextError(f"{self._what} has an entry {quote(_bytes(member.name))} whose mtime is none")

    def _read(self, leaf: Leaf, path: bytes) -> bytes | Content:
        content = _Piece(self._descriptor, leaf.key)
        if leaf.entry.size > _SMALL:
            return content
        whole = bytearray(leaf.entry.size)
        view, done = memoryview(whole), 0
        while done < len(whole) and (count := content.readinto(view[done:])):
            done += count
        return bytes(view[:done])


class _Extent:
    """Where the content of a file lies: in one piece, or piece by piece as (offset in the file, length)."""

    __slots__ = ("offset", "pieces", "size")

    def __init__(self, offset: int, size: int, sparse: Sequence[tuple[int, int]] | None) -> None:
        self.offset = offset
        self.size = size
        self.pieces = ((0, size),) if sparse is None else tuple(sparse)


class _Piece:
    """A file inside of the archive; what is in none of its pieces is zeros."""

    def __init__(self, descriptor: int, extent: _Extent) -> None:
        self._descriptor = descriptor
        self._extent = extent
        self._at = 0

    def readinto(self, buffer: memoryview, /) -> int:
        left = self._extent.size - self._at
        if not left or not buffer:
            return 0
        source = self._extent.offset
        for start, length in self._extent.pieces:
            if self._at < start:
                count = min(start - self._at, left, len(buffer))
                buffer[:count] = bytes(count)
                self._at += count
                return count
            if self._at < start + length:
                count = min(start + length - self._at, left, len(buffer))
                return self._read(buffer[:count], source + self._at - start)
            source += length
        count = min(left, len(buffer))
        buffer[:count] = bytes(count)
        self._at += count
        return count

    def _read(self, buffer: memoryview, offset: int) -> int:
        count = os.preadv(self._descriptor, [buffer], offset)
        self._at += count
        return count

    def close(self) -> None:
        """Nothing to be given back: the archive stays open."""


def _check_end(file: BinaryIO, offset: int) -> None:
    """Raise EOFError for an archive that ends at ``offset`` with neither zeros nor the end of the file.

    Python's tarfile takes a damaged header for the end, and what is behind it would be missing without a word.
    """
    file.seek(offset)
    if file.read(_BLOCK).strip(b"\0"):
        raise EOFError(f"bad header at byte {offset}")


def _mark_links(branches: Branches, number: int, extent: _Extent, paths: list[bytes]) -> None:
    """Make the entries at ``paths``, as far as none was replaced later, names of one file."""
    leaves = [(path, leaf) for path in paths if (leaf := branches.find(path)) is not None and leaf.key is extent]
    for path, leaf in leaves:
        branches.add(path, leaf._replace(entry=leaf.entry._replace(identity=number, links=len(leaves))))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _mtime(member: tarfile.TarInfo) -> int:
    """Return the mtime in nanoseconds; a pax header has them as decimal text, of which a float loses the end."""
    whole, _, fraction = member.pax_headers.get("mtime", "").partition(".")
    try:
        seconds, rest = int(whole), int(fraction[:9].ljust(9, "0"))
    except ValueError:
        return int(member.mtime) * _NANO
    return seconds * _NANO - rest if whole.startswith("-") else seconds * _NANO + rest


def _compression(head: bytes) -> str | None:
    return next((name for magic, name in _COMPRESSIONS if head.startswith(magic)), None)


def _expand(file: BinaryIO, spool: BinaryIO) -> None:
    """Copy a stream, uncompressed where it is compressed."""
    import importlib
    import io
    import shutil

    buffered = io.BufferedReader(file) if isinstance(file, io.RawIOBase) else file
    head = buffered.peek(8) if isinstance(buffered, io.BufferedReader) else buffered.read(8)
    name = _compression(head)
    whole: BinaryIO = buffered if isinstance(buffered, io.BufferedReader) else _Prefixed(head, buffered)  # type: ignore[assignment]  # what is read of it
    if name is not None:
        whole = importlib.import_module(name).open(whole, "rb")
    shutil.copyfileobj(whole, spool, limits.MIB)
    spool.flush()


class _Prefixed:
    """A stream, of which the beginning was read already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._rest.read(size)
        if size < 0:
            head, self._head = self._head, b""
            return head + self._rest.read()
        head, self._head = self._head[:size], self._head[size:]
        return head

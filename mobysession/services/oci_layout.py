"""A store of blobs in the directory of an OCI image layout.

::

    <directory>/
        oci-layout              {"imageLayoutVersion": "1.0.0"}
        index.json              what the layout is about: descriptors, by their annotations
        blobs/sha256/<hex>      each blob under the digest of its content
        ingest/<key>/           a blob on its way; <key> is the SHA-256 of the name that its sender gave it

A blob is never changed: it appears, complete and verified, when its ingest is moved into place. Names that come from
outside become digests or hexadecimal keys before they are part of a path, and each directory is opened from the one
above it without following links, so that nothing outside the layout is reached, whatever somebody put into it.

Everything here blocks: it is called in worker threads.

Source: opencontainers/image-spec image-layout.md; containerd/containerd plugins/content/local.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from mobysession.errors import ContextError, DiskFull, MobysessionError, OutputError, RpcError, StatusCode

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BlobInfo", "OciLayout", "OpenBlob", "cannot_store", "parse_digest"]

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not to wait for a writer, should a named pipe be in the place of a blob.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))
_NOT_FOLLOWED: Final = frozenset((errno.ELOOP, errno.ENOTDIR))
#: The algorithms that the image specification registers, and the length of their digests in hexadecimal digits.
_DIGITS: Final = {"sha256": 64, "sha384": 96, "sha512": 128}


class BlobInfo(NamedTuple):
    """What is known of a blob: its digest, bytes, and when it was made and changed, in ns since the epoch."""

    digest: str
    size: int
    created: int
    updated: int


class OpenBlob:
    """A blob that is read; belongs to whoever opened it.

    Attributes:
        size: bytes that it had when it was opened.
    """

    def __init__(self, digest: str, descriptor: int, size: int) -> None:
        self.digest = digest
        self.size = size
        self._descriptor = descriptor
        self._hash = hashlib.new(digest.partition(":")[0], usedforsecurity=False)

    def read(self, start: int, size: int) -> bytes:
        """Return ``size`` bytes from ``start`` on.

        Raises:
            ContextError: it cannot be read, or became shorter.
        """
        try:
            content = os.pread(self._descriptor, size, start)
        except OSError as error:
            raise ContextError(f"blob {self.digest} cannot be read: {_reason(error)}") from error
        if len(content) < size:
            raise ContextError(f"blob {self.digest} ends after {start + len(content)} bytes, of {self.size}")
        return content

    def verify(self, content: bytes, *, last: bool) -> None:
        """Take the next part of the whole content, and after the last one compare it with the digest.

        Raises:
            ContextError: the content is not what the digest says.
        """
        self._hash.update(content)
        if last and self._hash.hexdigest() != self.digest.partition(":")[2]:
            raise ContextError(
                f"blob {self.digest} is damaged: its content has another digest",
                hint="Remove the file, or the directory it is in, and make it anew.",
            )

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class OciLayout:
    """The blobs of one directory.

    Args:
        path: the directory; a link to one will do.
        writable: blobs may be added. The directory is made when the first one comes.
        deletable: blobs may be removed.
    """

    def __init__(self, path: str | os.PathLike[str], *, writable: bool = False, deletable: bool = False) -> None:
        self.path = os.fspath(path)
        self.writable = writable
        self.deletable = deletable

    def __repr__(self) -> str:
        return f"OciLayout({self.path!r})"

    # -- blobs ---------------------------------------------------------------------------------------------------------

    def info(self, digest: str) -> BlobInfo:
        """Return what is known of a blob.

        Raises:
            RpcError: INVALID_ARGUMENT or NOT_FOUND.
            ContextError: it cannot be looked at.
        """
        descriptor, found = self._open_file(digest)
        os.close(descriptor)
        return _info(digest, found)

    def has(self, digest: str) -> bool:
        """Tell whether there is such a blob; what is no digest is none."""
        try:
            self.info(digest)
        except RpcError:
            return False
        return True

    def open_blob(self, digest: str) -> OpenBlob:
        """Open a blob; raises as `info`."""
        descriptor, found = self._open_file(digest)
        return OpenBlob(digest, descriptor, found.st_size)

    def read_all(self, digest: str, *, limit: int) -> bytes:
        """Return the verified content of a small blob.

        Raises:
            RpcError, ContextError: as `info`.
            ContextError: it is damaged, or has more than ``limit`` bytes.
        """
        blob = self.open_blob(digest)
        try:
            if blob.size > limit:
                raise ContextError(f"blob {digest} has {blob.size} bytes, over {limit}")
            content = blob.read(0, blob.size)
            blob.verify(content, last=True)
        finally:
            blob.close()
        return content

    def walk(self) -> Iterator[BlobInfo]:
        """Yield every blob, ordered by digest; ContextError where they cannot be listed."""
        for algorithm, digits in _DIGITS.items():
            try:
                with self.folder("blobs", algorithm) as folder:
                    yield from self._blobs_in(folder, algorithm, digits)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._cannot_read(error) from error

    def delete(self, digest: str) -> None:
        """Remove a blob.

        Raises:
            RpcError: INVALID_ARGUMENT or NOT_FOUND.
            OutputError: it cannot be removed.
        """
        algorithm, name = parse_digest(digest)
        try:
            with self.folder("blobs", algorithm) as folder:
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            raise _not_found(digest) from None
        except OSError as error:
            raise cannot_store(self.path, error) from error

    # -- files ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def folder(self, *names: str, make: bool = False) -> Iterator[int]:
        """Open a directory of the layout for the length of the block; yields its descriptor.

        Args:
            names: of the directories below that of the layout, one in the other; none is the layout's own.
            make: make what is missing.

        Raises:
            OSError: it cannot be opened; a link is in its place.
        """
        if make:
            os.makedirs(self.path, 0o755, exist_ok=True)
        descriptor = os.open(self.path, _FOLDER & ~os.O_NOFOLLOW)
        try:
            for name in names:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=descriptor)
                inner = os.open(name, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def _open_file(self, digest: str) -> tuple[int, os.stat_result]:
        algorithm, name = parse_digest(digest)
        try:
            with self.folder("blobs", algorithm) as folder:
                descriptor = os.open(name, _READ, dir_fd=folder)
        except FileNotFoundError:
            raise _not_found(digest) from None
        except OSError as error:
            raise self._cannot_read(error, digest) from error
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode):
            return descriptor, found
        os.close(descriptor)
        raise ContextError(f"blob {digest} of {self.path!r} is no file")

    def _blobs_in(self, folder: int, algorithm: str, digits: int) -> Iterator[BlobInfo]:
        hexadecimal = re.compile(f"[0-9a-f]{{{digits}}}")
        for name in sorted(os.listdir(folder)):
            if hexadecimal.fullmatch(name) is None:
                continue
            with suppress(FileNotFoundError):  # removed meanwhile
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield _info(f"{algorithm}:{name}", found)

    def _cannot_read(self, error: OSError, digest: str = "") -> ContextError:
        what = f"blob {digest} of {self.path!r}" if digest else repr(self.path)
        if error.errno in _NOT_FOLLOWED:
            return ContextError(
                f"{what} is reached through a link, which is not followed",
                hint="Copy the layout with cp -RL, so that it has files in place of links.",
            )
        return ContextError(f"{what} cannot be read: {_reason(error)}")


def parse_digest(text: str) -> tuple[str, str]:
    """Return algorithm and hexadecimal digits of a digest.

    Raises:
        RpcError: INVALID_ARGUMENT: it is none, or of an algorithm that no image uses.
    """
    algorithm, separator, digits = text.partition(":")
    if not separator or re.fullmatch("[0-9a-f]*", digits) is None or not digits:
        raise RpcError(StatusCode.INVALID_ARGUMENT, f"{_shown(text)}: invalid checksum digest format")
    wanted = _DIGITS.get(algorithm)
    if wanted is None:
        raise RpcError(StatusCode.INVALID_ARGUMENT, f"{_shown(text)}: unsupported digest algorithm")
    if len(digits) != wanted:
        raise RpcError(StatusCode.INVALID_ARGUMENT, f"{_shown(text)}: invalid checksum digest length")
    return algorithm, digits


def cannot_store(path: str, error: OSError) -> MobysessionError:
    """Return the error of a store that cannot be written."""
    words = f"{path!r} cannot be written: {_reason(error)}"
    if error.errno in _FULL:
        return DiskFull(words, path=path, hint="Free some space, or name a directory on another file system.")
    if error.errno in _NOT_FOLLOWED:
        return OutputError(
            f"{path!r} cannot be written: something in it is a link, or a file in the place of a directory", path=path
        )
    return OutputError(words, path=path)


def _info(digest: str, found: os.stat_result) -> BlobInfo:
    # When a file was made is not told everywhere; a blob is not changed after that.
    return BlobInfo(digest, found.st_size, found.st_mtime_ns, found.st_mtime_ns)


def _not_found(digest: str) -> RpcError:
    return RpcError(StatusCode.NOT_FOUND, f"content {digest}: not found")


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 200 else text[:200] + "...")

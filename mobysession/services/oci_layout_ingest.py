"""A blob on its way into an OCI layout: written under the name that its sender gave it, and verified at the end.

Whoever writes holds a lock on the data, in this process or in another; everybody else is told to come again. What is
there when a sender is lost stays, and the next one of that name goes on where it ended.

The files of an ingest are those of containerd's local store, which can go on with it likewise. All of this blocks.

Source: containerd/containerd plugins/content/local/{store,writer}.go.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from mobysession import limits
from mobysession.errors import DiskFull, OutputError, RpcError, StatusCode
from mobysession.services.oci_layout import cannot_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.services.oci_layout import OciLayout

__all__ = ["Ingest", "IngestStatus", "abort_ingest", "ingest_status", "ingests"]

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DATA: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
#: Bytes of a partial blob that are read at once when it is gone on with.
_PIECE: Final = 1 * limits.MIB


class IngestStatus(NamedTuple):
    """One blob on its way: its name, bytes so far and expected (0: unknown), begun and changed, ns since the epoch."""

    ref: str
    offset: int
    total: int
    started: int
    updated: int


class Ingest:
    """One blob that is written. `close` ends it in any case.

    Args:
        layout: where the blob goes.
        ref: the sender's name for it.
        total: bytes that are expected; 0 where nobody knows.
        expected: the digest that is expected; empty where nobody knows.

    Attributes:
        offset: bytes that are there.
        started: when it was begun, in ns since the epoch.
        updated: when it was changed last.

    Raises:
        RpcError: UNAVAILABLE: somebody else writes it; ALREADY_EXISTS: the blob is there.
        OutputError: it cannot be written.
    """

    def __init__(self, layout: OciLayout, ref: str, total: int, expected: str) -> None:
        self._layout = layout
        self._ref = ref
        self._key = _key(ref)
        self._descriptor = self._folder = -1
        self._hash = hashlib.sha256()
        #: What is on the disk, and not in the hash yet.
        self._unhashed: list[memoryview] = []
        self.offset = 0
        if expected and layout.has(expected):
            raise _exists(expected)
        try:
            with layout.folder("ingest", make=True) as parent:
                with suppress(FileExistsError):
                    os.mkdir(self._key, 0o755, dir_fd=parent)
                self._folder = os.open(self._key, _FOLDER, dir_fd=parent)
                self._descriptor = os.open("data", _DATA, 0o644, dir_fd=self._folder)
                self._lock(parent)
            self._resume(total)
        except FileNotFoundError:
            # Whoever ended the ingest before has removed what was being opened here.
            self.close()
            raise _locked(ref) from None
        except OSError as error:
            self.close()
            raise cannot_store(layout.path, error) from error
        except BaseException:
            self.close()
            raise

    @property
    def digest(self) -> str:
        """The digest of what was written so far; to compute it may take a while."""
        self.catch_up()
        return f"sha256:{self._hash.hexdigest()}"

    @property
    def unhashed(self) -> int:
        """Bytes that `catch_up` has before it."""
        return sum(map(len, self._unhashed))

    def catch_up(self) -> None:
        """Hash what was written, which takes ten times as long as writing it; only the end has to wait for it."""
        for piece in self._unhashed:
            self._hash.update(piece)
        self._unhashed.clear()

    def truncate(self) -> None:
        """Forget what was written."""
        try:
            os.ftruncate(self._descriptor, 0)
        except OSError as error:
            raise cannot_store(self._layout.path, error) from error
        self._hash = hashlib.sha256()
        self._unhashed.clear()
        self.offset = 0

    def append(self, data: bytes) -> None:
        """Write all of ``data``; OutputError where that is impossible, and with a full disk nothing is kept."""
        rest = memoryview(data)
        try:
            while rest:
                written = os.pwrite(self._descriptor, rest, self.offset)
                self._unhashed.append(rest[:written])
                self.offset += written
                rest = rest[written:]
        except OSError as error:
            failure = cannot_store(self._layout.path, error)
            if isinstance(failure, DiskFull):
                self.remove()
            raise failure from error
        self.updated = time.time_ns()

    def commit(self, total: int, expected: str) -> None:
        """Verify what was written and make it a blob.

        Raises:
            RpcError: FAILED_PRECONDITION: size or digest are not those expected; ALREADY_EXISTS: it was there already;
                ABORTED: somebody took the ingest away.
            OutputError: it cannot be written.
        """
        if total > 0 and self.offset != total:
            if self.offset > total:
                self.remove()
            raise _wrong(f"unexpected commit size {self.offset}, expected {total}")
        digest = self.digest
        if expected and digest != expected:
            # Whatever is added to it, it does not become what is expected.
            self.remove()
            raise _wrong(f"unexpected commit digest {digest}, expected {_shown(expected)}")
        if self._layout.has(digest):
            self.remove()
            raise _exists(digest)
        try:
            os.fsync(self._descriptor)
            os.fchmod(self._descriptor, 0o444)
            with self._layout.folder("blobs", "sha256", make=True) as blobs:
                self._move(digest.partition(":")[2], blobs)
        except OSError as error:
            raise cannot_store(self._layout.path, error) from error
        self.remove()

    def remove(self) -> None:
        """Take away what there is of the ingest; what cannot be stays."""
        with suppress(OSError):
            for name in os.listdir(self._folder):
                os.unlink(name, dir_fd=self._folder)
            with self._layout.folder("ingest") as parent:
                os.rmdir(self._key, dir_fd=parent)

    def close(self) -> None:
        """Let go of the ingest, which stays as it is."""
        for descriptor in (self._descriptor, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._folder = -1

    def _lock(self, parent: int) -> None:
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OutputError(f"{self._layout.path!r} cannot be written: an ingest has something that is no file")
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _locked(self._ref) from None
        # Whoever had the lock until now may have committed or removed what was opened here.
        with suppress(FileNotFoundError):
            data = os.stat("data", dir_fd=self._folder, follow_symlinks=False)
            folder = os.stat(self._key, dir_fd=parent, follow_symlinks=False)
            if (data.st_ino, folder.st_ino) == (found.st_ino, os.fstat(self._folder).st_ino):
                return
        raise _locked(self._ref)

    def _resume(self, total: int) -> None:
        """Take note of what is there already."""
        while piece := os.pread(self._descriptor, _PIECE, self.offset):
            self._hash.update(piece)
            self.offset += len(piece)
        now = time.time_ns()
        status = _status(self._folder) if self.offset else None
        self.started = status.started if status else now
        self.updated = status.updated if status else now
        if status is None:
            self._note("ref", self._ref)
            for name in ("startedat", "updatedat"):
                self._note(name, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        if total > 0:
            self._note("total", str(total))

    def _note(self, name: str, text: str) -> None:
        descriptor = os.open(name, _WRITE, 0o644, dir_fd=self._folder)
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)

    def _move(self, name: str, blobs: int) -> None:
        try:
            os.rename("data", name, src_dir_fd=self._folder, dst_dir_fd=blobs)
        except FileNotFoundError:
            raise RpcError(StatusCode.ABORTED, f"ref {_shown(self._ref)} was aborted") from None


def ingest_status(layout: OciLayout, ref: str) -> IngestStatus:
    """Return the state of an ingest; RpcError NOT_FOUND where there is none."""
    with suppress(OSError), layout.folder("ingest", _key(ref)) as folder:
        status = _status(folder)
        if status is not None:
            return status
    raise RpcError(StatusCode.NOT_FOUND, f"could not get status for ref {_shown(ref)}: not found")


def ingests(layout: OciLayout) -> Iterator[IngestStatus]:
    """Yield the state of every ingest; what is none is left out."""
    with suppress(OSError), layout.folder("ingest") as parent:
        for key in sorted(os.listdir(parent)):
            with suppress(OSError), layout.folder("ingest", key) as folder:
                status = _status(folder)
                if status is not None and _key(status.ref) == key:
                    yield status


def abort_ingest(layout: OciLayout, ref: str) -> None:
    """Take an ingest away, also from who writes it; nothing happens where there is none.

    Raises:
        OutputError: it cannot be removed.
    """
    key = _key(ref)
    try:
        with layout.folder("ingest", key) as folder:
            for name in os.listdir(folder):
                os.unlink(name, dir_fd=folder)
        with layout.folder("ingest") as parent:
            os.rmdir(key, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise cannot_store(layout.path, error) from error


def _status(folder: int) -> IngestStatus | None:
    ref = _text(folder, "ref")
    total = _text(folder, "total")
    try:
        data = os.stat("data", dir_fd=folder, follow_symlinks=False)
        begun = os.stat("ref", dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    known = int(total) if re.fullmatch("[0-9]{1,18}", total) else 0
    return IngestStatus(ref, data.st_size, known, begun.st_mtime_ns, data.st_mtime_ns)


def _text(folder: int, name: str) -> str:
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
    except FileNotFoundError:
        return ""
    try:
        return os.read(descriptor, limits.MAX_CONTENT_REF).decode("utf-8", "surrogateescape")
    finally:
        os.close(descriptor)


def _key(ref: str) -> str:
    return hashlib.sha256(ref.encode("utf-8", "surrogateescape")).hexdigest()


def _exists(digest: str) -> RpcError:
    return RpcError(StatusCode.ALREADY_EXISTS, f"blob with expected digest {digest} exists")


def _wrong(words: str) -> RpcError:
    return RpcError(StatusCode.FAILED_PRECONDITION, words)


def _locked(ref: str) -> RpcError:
    return RpcError(StatusCode.UNAVAILABLE, f"ref {_shown(ref)} locked: it is being written")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 200 else text[:200] + "...")

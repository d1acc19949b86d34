"""What is in an image that an engine has, seen through docker-py: a witness that shares no code with us."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import docker
import trio

from mobysession.build import build
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from integration.engines import Engine
    from mobysession.build import BuildResult
    from mobysession.filesync.sources import SourceLike
    from mobysession.llb import Definition, State

__all__ = ["BUILD_TIMEOUT", "FileState", "Witness", "build_image"]

BUILD_TIMEOUT = 60.0
"""Seconds after which a build that should take one of them hangs."""

_TYPES = {
    tarfile.REGTYPE: "file",
    tarfile.LNKTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.FIFOTYPE: "fifo",
}


def build_image(engine: Engine, context: SourceLike | State | Definition, **options: Any) -> BuildResult:
    """Build in a trio loop of its own, as `mobysession.build.build`; fail where it takes more than `BUILD_TIMEOUT`."""

    async def run() -> BuildResult:
        with trio.fail_after(BUILD_TIMEOUT):
            return await build(context, endpoint=Endpoint.parse(engine.host), **options)

    return trio.run(run)


@dataclass(frozen=True, kw_only=True)
class FileState:
    """One name in an image.

    Attributes:
        kind: file, directory, symlink or fifo.
        mode: the permission bits with setuid, setgid and sticky.
        mtime: seconds since the epoch.
        target: of a symbolic link.
        names: all names of the file, itself included; several for hard links.
        digest: SHA-256 of the content of a file.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    target: str
    names: frozenset[str]
    digest: str


class Witness:
    """docker-py's view of an engine, for the length of a ``with`` block."""

    def __init__(self, host: str) -> None:
        self.client = docker.DockerClient(base_url=host, version="auto", timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def inspect(self, image: str) -> dict[str, Any]:
        """Return what the engine knows of an image; docker.errors.ImageNotFound where it knows none."""
        attributes: dict[str, Any] = self.client.images.get(image).attrs
        return attributes

    def config(self, image: str) -> dict[str, Any]:
        """Return the ``Config`` of an image."""
        config: dict[str, Any] = self.inspect(image)["Config"]
        return config

    def run(self, image: str, *command: str) -> bytes:
        """Run a command in a container of the image, and return what it wrote."""
        output: bytes = self.client.containers.run(image, list(command), remove=True, network_mode="none")
        return output

    def read(self, image: str, path: str) -> bytes:
        """Return the content of one file of the image."""
        with self._archive(image, path) as archive:
            (member,) = archive.getmembers()
            content = archive.extractfile(member)
            assert content is not None, f"{path} is no file"
            return content.read()

    def text(self, image: str, path: str) -> str:
        """Return the content of one file of the image, as text."""
        return self.read(image, path).decode()

    def tree(self, image: str, path: str) -> dict[str, FileState]:
        """Return everything below a directory of the image, by its path from there, without the directory itself."""
        with self._archive(image, path) as archive:
            members = [(_below(member.name), member) for member in archive]
            return {name: state for name, state in _states(archive, members) if name}

    def tag(self, image: str, name: str) -> None:
        """Give an image another name."""
        repository, _, tag = name.rpartition(":")
        assert self.client.images.get(image).tag(repository, tag)

    @contextlib.contextmanager
    def _archive(self, image: str, path: str) -> Iterator[tarfile.TarFile]:
        container = self.client.containers.create(image, ["never", "run"])
        try:
            chunks, _ = container.get_archive(path)
            content = io.BytesIO(b"".join(chunks))
        finally:
            container.remove(force=True)
        with tarfile.open(fileobj=content, encoding="utf-8", errors="surrogateescape") as archive:
            yield archive


def _below(name: str) -> str:
    return name.rstrip("/").partition("/")[2]


def _states(
    archive: tarfile.TarFile, members: Sequence[tuple[str, tarfile.TarInfo]]
) -> Iterator[tuple[str, FileState]]:
    first = {name: _below(member.linkname) if member.islnk() else name for name, member in members}
    for name, member in members:
        # A link in the archive says only of whom it is a link: the rest is that one's.
        original = archive.getmember(member.linkname) if member.islnk() else member
        content = archive.extractfile(original) if original.isreg() else None
        state = FileState(
            kind=_TYPES.get(member.type, repr(member.type)),
            mode=original.mode & 0o7777,
            uid=original.uid,
            gid=original.gid,
            mtime=int(original.mtime),
            target=member.linkname if member.issym() else "",
            names=frozenset(other for other in first if first[other] == first[name]),
            digest=hashlib.sha256(content.read()).hexdigest() if content is not None else "",
        )
        yield name, state

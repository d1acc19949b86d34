"""Contexts that are no directory, built on each engine: what is in the image is what the source has."""

from __future__ import annotations

import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from integration.images import build_image
from mobysession.errors import BuildFailed, UnsupportedByEngine
from mobysession.filesync import Directory, Files, FsspecTree, GitTree, Overlay, TarArchive, ZipArchive
from tests.filesync.test_sources import committed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.engines import Engine
    from integration.images import Witness
    from mobysession.filesync import Entry

FIRST_WITH_NAMED_CONTEXTS = 23
DOCKERFILE = "FROM scratch\nCOPY hello /all/\nCOPY sub /all/sub/\n"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Give a context on disk."""
    root = tmp_path / "disk"
    (root / "sub").mkdir(parents=True)
    (root / "Dockerfile").write_text(DOCKERFILE)
    (root / "hello").write_text("hello")
    (root / "sub" / "leaf").write_bytes(bytes(300_000))
    return root


def _tar(disk: Path) -> TarArchive:
    with tarfile.open(disk.parent / "t", "w:gz") as archive:
        archive.add(disk, arcname=".")
    return TarArchive(disk.parent / "t")


def _zip(disk: Path) -> ZipArchive:
    with zipfile.ZipFile(disk.parent / "z", "w") as archive:
        for path in sorted(disk.rglob("*")):
            archive.write(path, path.relative_to(disk))
    return ZipArchive(disk.parent / "z")


def _through_fsspec(disk: Path) -> FsspecTree:
    _zip(disk)
    return FsspecTree.from_url(f"zip://::file://{disk.parent}/z")


def _mapping(disk: Path) -> dict[str, Any]:
    return {"Dockerfile": DOCKERFILE, "hello": lambda: "hello", "sub": {"leaf": bytes(300_000)}}


@pytest.mark.parametrize(
    "make",
    [
        *(_tar, _zip, _through_fsspec, _mapping),
        *(lambda disk: GitTree(committed(disk)), lambda disk: Overlay(disk, {"hello": "hello"})),
    ],
    ids=["tar", "zip", "fsspec", "mapping", "git", "overlay"],
)
def test_a_build_from_any_source(engine: Engine, witness: Witness, disk: Path, make: Callable[[Path], Any]) -> None:
    """The files of the source are in the image."""
    result = build_image(engine, make(disk), no_cache=True)
    tree = witness.tree(result.image_id, "/all")
    assert set(tree) == {"hello", "sub", "sub/leaf"}
    assert witness.text(result.image_id, "/all/hello") == "hello"
    assert witness.read(result.image_id, "/all/sub/leaf") == bytes(300_000)


class Walked(Directory):
    """A directory that remembers which directories everything in was looked at."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.walked: list[bytes] = []

    def entries(self, directory: bytes) -> Iterator[Entry]:
        self.walked.append(directory)
        return super().entries(directory)


@pytest.mark.parametrize(
    ("dockerfile", "walked"),
    [("FROM scratch\nCOPY . /all/\n", [b"", b"sub"]), (DOCKERFILE, [b"sub"])],
    ids=["all", "names"],
)
def test_a_build_walks_what_it_copies_and_that_once(
    engine: Engine, disk: Path, dockerfile: str, walked: list[bytes]
) -> None:
    """Of all calls for a directory only that for the files looks at everything, and only where names are not enough."""
    (disk / "Dockerfile").write_text(dockerfile)
    (disk / ".dockerignore").write_text("*.log\n")
    source = Walked(disk)
    result = build_image(engine, source, no_cache=True)
    assert len(result.transfers) > 1
    assert source.walked == walked


def test_only_what_differs_is_sent_again(engine: Engine, disk: Path) -> None:
    """A commit, and a mapping over a directory, are found again by the engine; a changed text of one size is sent."""

    def sent(context: Any) -> int:
        return sum(transfer.bytes_sent for transfer in build_image(engine, context).transfers)

    committed(disk)
    assert sent(GitTree(disk)) >= 300_000
    assert sent(GitTree(disk)) < 1000
    sent(Overlay(disk, {"hello": "hello"}))
    assert sent(Overlay(disk, {"hello": "jello"})) < 1000
    result = build_image(engine, Overlay(disk, {"hello": "cello"}))
    assert any(transfer.bytes_sent for transfer in result.transfers)


def test_named_contexts(engine: Engine, witness: Witness, disk: Path) -> None:
    """Further trees are copied from by name, each read through the one session; old engines are told of."""
    dockerfile = "FROM scratch\nCOPY --from=one a /all/\nCOPY --from=context b /all/\nCOPY hello /all/\n"
    named = {"one": {"a": "1"}, "context": Files({"b": "2"})}
    options: dict[str, Any] = {"build_contexts": named, "no_cache": True}
    (disk / "Dockerfile").write_text(dockerfile)
    if engine.major < FIRST_WITH_NAMED_CONTEXTS:
        with pytest.raises(UnsupportedByEngine, match="build_contexts would be ignored"):
            build_image(engine, disk, **options)
        return
    for context in (disk, Overlay(disk)):
        tree = witness.tree(build_image(engine, context, **options).image_id, "/all")
        assert set(tree) == {"a", "b", "hello"}


def test_a_failing_dockerfile_of_a_mapping_is_shown(engine: Engine) -> None:
    """The excerpt comes from the source, wherever the Dockerfile is."""
    with pytest.raises(BuildFailed) as caught:
        build_image(engine, {"in/Dockerfile": "FROM scratch\nCOPY nothing /\n"}, file="in/Dockerfile")
    assert "COPY nothing /" in caught.value.excerpt

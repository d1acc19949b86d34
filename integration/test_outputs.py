"""Outputs of real engines: trees compared with what ``docker buildx`` receives, streams to every kind of place."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import trio

from integration.contexts import make_context, make_rich_tree
from integration.images import BUILD_TIMEOUT, build_image
from integration.outputs import Found, look, make_nasty_tree
from mobysession.build.exports import Output
from mobysession.errors import BuildFailed, DiskFull, UnsupportedByEngine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from integration.engines import Buildx, Engine
    from mobysession.build.options import Driver

COPY_ALL = "FROM scratch\nCOPY . /all/\n"
SEVERAL_OUTPUTS_SINCE = (1, 45)
"""The Engine API version since which a build may have several outputs."""


@pytest.fixture(autouse=True)
def _root() -> None:
    """Devices and owners are root's, on both sides."""
    if os.geteuid() != 0:
        pytest.skip("only root can make the trees that are compared")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Give a context of two files."""
    return make_context(tmp_path / "context", COPY_ALL, {"a": "one", "b/c": "two" * 1000})


def _theirs(engine: Engine, buildx: Buildx, context: Path, output: str) -> None:
    arguments = ("build", "--provenance=false", "--output", output, context)
    done = buildx.run(engine.host, *arguments, config_dir=context.parent / "buildx")
    assert done.returncode == 0, done.stderr.decode()


def _made_by_copy(found: Mapping[str, Found]) -> dict[str, Found]:
    """Leave out when ``/all`` itself was made: each build that is not from the cache has its own time."""
    return {name: dataclasses.replace(entry, mtime=0) if name == "all" else entry for name, entry in found.items()}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_nasty_tree_arrives_as_with_buildx(engine: Engine, buildx: Buildx, tmp_path: Path, seed: int) -> None:
    """Every path, type, mode, owner, time, link, attribute, device number and content is what buildx receives."""
    context = make_context(tmp_path / "context", COPY_ALL)
    (context / "tree").mkdir()
    make_nasty_tree(context / "tree", seed)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    build_image(engine, context, outputs=[str(ours)])
    _theirs(engine, buildx, context, f"type=local,dest={theirs}")
    found, expected = look(ours), look(theirs)
    assert _made_by_copy(found) == _made_by_copy(expected)
    assert len(found) > 200
    assert {stat.S_IFMT(entry.mode) for entry in found.values()} >= {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}
    assert any(len(entry.names) > 1 for entry in found.values())


def test_an_output_over_an_earlier_one(engine: Engine, buildx: Buildx, tmp_path: Path) -> None:
    """What is there stays or is replaced as with buildx, whatever kind it was."""
    context = make_context(tmp_path / "context", COPY_ALL)
    make_rich_tree(context)
    places = tmp_path / "ours", tmp_path / "theirs"
    for place in places:
        (place / "all" / "plain" / "deep").mkdir(parents=True)
        (place / "all" / "sub").symlink_to("/nowhere")
        (place / "all" / "relative").write_bytes(b"was a file")
        (place / "all" / "empty").symlink_to("three-mib")
        (place / "all" / "kept").write_bytes(b"kept")
        os.link(place / "all" / "kept", place / "all" / "hard-a")
        for path in place.rglob("*"):
            os.utime(path, (1, 1), follow_symlinks=False)
    build_image(engine, context, outputs=[Output("local", places[0])])
    _theirs(engine, buildx, context, f"type=local,dest={places[1]}")
    found, expected = map(look, places)
    assert _made_by_copy(found) == _made_by_copy(expected)
    assert found["all/kept"].digest == hashlib.sha256(b"kept").hexdigest()


@pytest.mark.parametrize("driver", ["control", "classic"])
@pytest.mark.parametrize("place", ["path", "object", "function", "stream"])
def test_a_tar_goes_anywhere(engine: Engine, context: Path, tmp_path: Path, driver: Driver, place: str) -> None:
    """To a path, a file object, what a function returns, a trio stream: the same archive."""
    target = tmp_path / "out.tar"
    held = io.BytesIO()
    told: list[Mapping[str, str]] = []

    def open_target(metadata: Mapping[str, str]) -> Path:
        told.append(metadata)
        return target

    if place == "stream":
        content = trio.run(_through_a_stream, engine, context, driver)
    else:
        places: dict[str, Any] = {"path": str(target), "object": held, "function": open_target}
        result = build_image(engine, context, outputs=[Output("tar", places[place])], driver=driver)
        content = held.getvalue() if place == "object" else target.read_bytes()
        assert [output.size for output in result.outputs] == [len(content)]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert {"all/a", "all/b/c"} <= {name.rstrip("/") for name in archive.getnames()}
    assert told == ([{}] if place == "function" else [])


async def _through_a_stream(engine: Engine, context: Path, driver: Driver) -> bytes:
    from mobysession.build import build
    from mobysession.transport.endpoint import Endpoint

    reading, writing = os.pipe()
    arrived = bytearray()

    async def read() -> None:
        async with trio.lowlevel.FdStream(reading) as stream:
            async for piece in stream:
                arrived.extend(piece)

    with trio.fail_after(BUILD_TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async with trio.lowlevel.FdStream(writing) as stream:
                output = Output("tar", stream)
                await build(context, endpoint=Endpoint.parse(engine.host), outputs=[output], driver=driver)
    return bytes(arrived)


def test_stdout_is_the_archive_and_nothing_else(engine: Engine, context: Path) -> None:
    """``-o -`` can be piped into tar, with progress and all else on stderr."""
    argv = [
        sys.executable,
        "-m",
        "mobysession",
        "-H",
        engine.host,
        "build",
        "--progress=plain",
        "-o",
        "-",
        str(context),
    ]
    done = subprocess.run(argv, capture_output=True, timeout=BUILD_TIMEOUT, check=False)
    assert (done.returncode, b"DONE" in done.stderr) == (0, True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert "all/a" in archive.getnames()


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_an_image_as_a_file(engine: Engine, context: Path, tmp_path: Path, kind: str) -> None:
    """With images in containerd an archive comes, and metadata that fit to it; a graph driver is told so before."""
    told: list[Mapping[str, str]] = []

    def open_target(metadata: Mapping[str, str]) -> Path:
        told.append(metadata)
        return tmp_path / "image.tar"

    output = Output(kind, open_target)
    if not engine.containerd_image_store:
        with pytest.raises(UnsupportedByEngine, match="keeps images in a graph driver"):
            build_image(engine, context, outputs=[output], tags=["mobysession-test/image:1"])
        assert not (tmp_path / "image.tar").exists()
        return
    result = build_image(engine, context, outputs=[output], tags=["mobysession-test/image:1"])
    with tarfile.open(tmp_path / "image.tar") as archive:
        index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]  # it is a file
    (metadata,) = told
    assert index["manifests"][0]["digest"] == metadata["containerimage.digest"] == result.digest
    assert metadata["image.name"].endswith("mobysession-test/image:1")
    assert result.outputs[0].metadata == metadata


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_an_image_as_a_directory(engine: Engine, buildx: Buildx, context: Path, tmp_path: Path, kind: str) -> None:
    """The blobs and the index that buildx leaves, which a build can start from; a graph driver cannot make it.

    Of type docker, buildx itself makes none on an engine: it takes that for the engine's own store.
    """
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    options: dict[str, Any] = {"tags": ["mobysession-test/directory:one"], "provenance": False}
    output = Output(kind, str(ours), {"tar": "false"})
    if not engine.containerd_image_store:
        with pytest.raises(UnsupportedByEngine, match=f"cannot make an output of type {kind}"):
            build_image(engine, context, outputs=[output], **options)
        return
    result = build_image(engine, context, outputs=[output], **options)
    (came,) = result.outputs
    blobs = {path.name: path.stat().st_size for path in (ours / "blobs/sha256").iterdir()}
    assert (came.path, came.size, came.complete) == (str(ours), sum(blobs.values()), True)
    if kind == "oci":
        _theirs(engine, buildx, context, f"type=oci,dest={theirs},tar=false,name=mobysession-test/directory:one")
        assert _layout(ours) == _layout(theirs)
    # Again: nothing is sent that is there already.
    assert build_image(engine, context, outputs=[output], **options).outputs[0].size == 0
    based = make_context(tmp_path / "based", "FROM base\nCOPY --from=base /all/a /again\n")
    build_image(engine, based, build_contexts={"base": f"oci-layout://{ours}:one"}, outputs=[str(tmp_path / "out")])
    assert (tmp_path / "out/again").read_text() == "one"


def _layout(folder: Path) -> tuple[set[str], list[dict[str, Any]]]:
    """Return the blobs of a layout and what its index says of them, but for when that was written."""
    manifests = json.loads((folder / "index.json").read_text())["manifests"]
    for given in manifests:
        given["annotations"].pop("org.opencontainers.image.created", None)
    return {path.name for path in (folder / "blobs/sha256").iterdir()}, manifests


def test_an_image_that_is_declined(engine: Engine, context: Path) -> None:
    """A function that returns None has it already, which is a success for an image."""
    if not engine.containerd_image_store:
        pytest.skip("this engine makes no images as files")
    result = build_image(engine, context, outputs=[Output("oci", lambda: None)])
    assert result.outputs == ()


def test_several_outputs_of_one_build(engine: Engine, context: Path, tmp_path: Path) -> None:
    """A tree, two archives and the image, where the engine can; else the error says which engines do."""
    held = io.BytesIO()
    outputs = [f"type=local,dest={tmp_path}/out", "type=image", f"type=tar,dest={tmp_path}/a.tar", Output("tar", held)]
    if engine.api < SEVERAL_OUTPUTS_SINCE:
        with pytest.raises(UnsupportedByEngine, match="Docker 26 and later take several"):
            build_image(engine, context, outputs=outputs)
        return
    result = build_image(engine, context, outputs=outputs)
    assert sorted(output.exporter for output in result.outputs) == [0, 2, 3]
    assert (tmp_path / "out" / "all" / "a").read_bytes() == b"one"
    assert len(held.getvalue()) == (tmp_path / "a.tar").stat().st_size
    assert result.image_id.startswith("sha256:")


def test_nothing_but_the_cache(engine: Engine, context: Path) -> None:
    """``type=cacheonly`` makes no image."""
    assert build_image(engine, context, outputs=["type=cacheonly"]).image_id == ""


def test_a_build_that_fails_leaves_the_last_output(engine: Engine, context: Path, tmp_path: Path) -> None:
    """The file is the earlier one, and nothing lies beside it."""
    target = tmp_path / "out" / "x.tar"
    target.parent.mkdir()
    build_image(engine, context, outputs=[f"type=tar,dest={target}"])
    before = target.read_bytes()
    (context / "Dockerfile").write_text("FROM mobysession-base\nRUN false\n")
    with pytest.raises(BuildFailed):
        build_image(engine, context, outputs=[f"type=tar,dest={target}"])
    assert target.read_bytes() == before
    assert os.listdir(target.parent) == ["x.tar"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("kind", ["local", "tar"])
@pytest.mark.parametrize("driver", ["control", "classic"])
def test_a_full_disk_is_the_error(engine: Engine, small_disk: Path, tmp_path: Path, kind: str, driver: Driver) -> None:
    """Not the engine's words about it: a typed error that names the path; what was there is there."""
    context = make_context(tmp_path / "context", COPY_ALL, {"big": os.urandom(200_000)})
    (small_disk / "before").write_bytes(b"before")
    dest = small_disk if kind == "local" else small_disk / "x.tar"
    with pytest.raises(DiskFull, match="no space left on device") as caught:
        build_image(engine, context, outputs=[f"type={kind},dest={dest}"], driver=driver)
    assert str(small_disk) in str(caught.value.path)
    left = {str(path.relative_to(small_disk)) for path in small_disk.rglob("*")}
    assert left <= {"before", "all", "all/Dockerfile"}
    assert (small_disk / "before").read_bytes() == b"before"

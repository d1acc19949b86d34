"""Outputs: how they are written, what the engine is asked for, and what is refused before it is asked."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mobysession.build import build
from mobysession.build.exports import Output, check_destinations, exports_of, targets_of
from mobysession.build.options import BuildOptions
from mobysession.errors import BuildFailed, DiskFull, OutputError, UnsupportedByEngine, UsageError
from mobysession.filesync import Directory, send_tree
from mobysession.services.bytes_message import encode_bytes_message
from mobysession.services.filesend import FILE_SEND, DirectoryTarget, FileTarget
from mobysession.testing import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mobysession.buildkit.status import BuildStatus
    from mobysession.testing import FakeSolve


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out", Output("local", "out")),
        ("a=b", Output("local", "a=b")),
        ("a,b", None),
        ("a=b,c=d", None),
        ("-", Output("tar", "-")),
        ("type=local,dest=out", Output("local", "out")),
        ("TYPE=local, dest=out", Output("local", "out")),
        ("type=tar", Output("tar")),
        ("type=tar,dest=-", Output("tar", "-")),
        ("type=docker", Output("docker")),
        ("type=oci,dest=a.tar,compression=zstd,force-compression=true",
         Output("oci", "a.tar", {"compression": "zstd", "force-compression": "true"})),
        ('type=image,"name=a,b",push=true', Output("image", None, {"name": "a,b", "push": "true"})),
        ('"type=local","dest=with,comma"', Output("local", "with,comma")),
        ("type=cacheonly", Output("cacheonly")),
        ("type=registry", Output("registry")),
        ("type=local,dest=a=b", Output("local", "a=b")),
    ],
)  # fmt: skip
def test_an_output_is_written_as_for_buildx(text: str, expected: Output | None) -> None:
    """A path, a dash, or fields as in CSV; a path with a comma has to be quoted."""
    if expected is None:
        with pytest.raises(UsageError, match=r"has no type|is not key=value"):
            Output.parse(text)
    else:
        assert Output.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("type=nope", "there is no output of type 'nope'"),
        ("type=image,name=a,push=maybe", "push=maybe of an output is neither true nor false"),
        ("type=local", "needs a directory as its dest"),
        ("type=local,dest=", "needs a directory as its dest"),
        ("type=local,dest=-", "stdout is none"),
        ("type=tar,out.tar", "'out.tar' is not key=value"),
        ("dest=x,a=b", "has no type"),
        ("", "has no type"),
        ("type=image,dest=x", "has no dest"),
        ("type=oci,tar=false", "oci with tar=false needs a directory as its dest"),
        ("type=docker,tar=0", "docker with tar=false needs a directory as its dest"),
        ("type=oci,dest=-,tar=false", "stdout is none"),
        ('type=tar,"dest', "not comma-separated fields"),
    ],
)
def test_what_is_no_output_is_refused(text: str, words: str) -> None:
    """The error names what is wrong, as soon as the options are made."""
    with pytest.raises(UsageError, match=words):
        BuildOptions(outputs=[text])


def test_outputs_are_a_list() -> None:
    """One text would be taken apart into letters."""
    with pytest.raises(UsageError, match="outputs takes a list"):
        BuildOptions(outputs="out")


def test_what_the_engine_is_asked_for() -> None:
    """Exporters stand in the order of the outputs, without those that are nothing but cache; names come from tags."""
    outputs = [Output.parse(text) for text in ("out", "type=cacheonly", "type=docker", "type=oci,a=b", "type=registry")]
    assert [tuple(export) for export in exports_of(outputs, ["n:1", "m"])] == [
        ("local", {}),
        ("moby", {"name": "n:1,m"}),
        ("oci", {"a": "b", "name": "n:1,m"}),
        ("moby", {"name": "n:1,m", "push": "true"}),
    ]
    assert targets_of(outputs) == {0: DirectoryTarget(path="out"), 2: FileTarget(sys.stdout.buffer)}
    assert exports_of([], ["n"]) == [("moby", {"name": "n"})]
    assert exports_of([Output("cacheonly")], ["n"]) == []


def _in(folder: Path) -> dict[str, str]:
    (folder / "file").touch()
    (folder / "directory").mkdir()
    return {"folder": str(folder)}


@pytest.mark.parametrize(
    ("outputs", "error", "words"),
    [
        (["{folder}/file"], OutputError, "file' cannot be written: it is not a directory"),
        (["{folder}/file/below"], OutputError, "below' cannot be written: {folder}/file is not a directory"),
        (["type=tar,dest={folder}/directory"], OutputError, "directory' cannot be written: it is a directory"),
        (["type=tar,dest={folder}/no/x.tar"], OutputError, "there is no directory {folder}/no"),
        (["-", "type=oci"], UsageError, "several outputs go to stdout"),
        (["type=registry"], UsageError, "an image needs a tag to be pushed"),
        (["type=image,push=1"], UsageError, "an image needs a tag to be pushed"),
    ],
)
def test_what_cannot_work_is_refused_before_the_build(
    tmp_path: Path, outputs: Sequence[str], error: type[Exception], words: str
) -> None:
    """Places that cannot be written, and outputs that do not go together."""
    names = _in(tmp_path)
    with pytest.raises(error, match=words.format(**names)):
        check_destinations([Output.parse(text.format(**names)) for text in outputs])


def test_what_can_work_is_not_refused(tmp_path: Path) -> None:
    """Directories that are there or can be made, files that are there or not, devices, links, objects."""
    names = _in(tmp_path)
    (tmp_path / "link").symlink_to("directory")
    texts = [
        "{folder}/directory",
        "{folder}/new/deep",
        "{folder}/link",
        "type=tar,dest={folder}/file",
        "type=tar,dest={folder}/x",
        "type=tar,dest=/dev/null",
    ]
    check_destinations([Output.parse(text.format(**names)) for text in texts])
    check_destinations([Output("tar", io.BytesIO()), Output("docker", lambda: None)], platforms=["linux/amd64"])
    with pytest.raises(UsageError, match="one platform only"):
        check_destinations([Output("docker", io.BytesIO())], platforms=["linux/amd64", "linux/arm64"])


def test_a_terminal_gets_no_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    """As buildx refuses it."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with pytest.raises(UsageError, match="not written to a terminal"):
        check_destinations([Output("tar")])


# -- builds on the fake daemon -----------------------------------------------------------------------------------------


async def export(solve: FakeSolve) -> dict[str, str]:
    """Send every exporter what it asks for: a tree for a directory, some bytes with metadata for the others."""
    caller = await solve.session()
    exporters = [(one.Type, one.Attrs) for one in solve.request.Exporters]
    exporters = exporters or [(solve.request.ExporterDeprecated, solve.request.ExporterAttrsDeprecated)]
    for number, (kind, _) in enumerate(exporters):
        metadata = [("buildkit-attachable-exporter-id", str(number)), ("exporter-md-kind", kind)]
        if kind == "moby":
            continue
        async with caller.channel.open_call(FILE_SEND, metadata=metadata) as call:
            if kind == "local":
                await send_tree(call, Directory(solve.directory.parent), reset_owner=False)
            else:
                await call.send(encode_bytes_message(b"content of " + kind.encode()))
                await call.end()
                await call.receive_batch()
    return {}


@pytest.mark.parametrize("driver", ["control", "classic"])
async def test_outputs_arrive_and_are_in_the_result(context: Path, tmp_path: Path, driver: str) -> None:
    """A directory and a stream, whichever way the engine is asked; a result without an image has no ID."""
    stream = io.BytesIO()
    async with FakeDaemon.listen(script=export) as daemon:
        options: dict[str, Any] = {"endpoint": daemon.endpoint, "driver": driver}
        first = await build(context, outputs=[f"type=local,dest={tmp_path}/out"], **options)
        second = await build(context, outputs=[Output("tar", stream)], **options)
    assert (tmp_path / "out").is_dir()
    assert stream.getvalue() == b"content of tar"
    assert [(output.path, output.complete) for output in first.outputs] == [(f"{tmp_path}/out", True)]
    assert [(output.size, output.metadata) for output in second.outputs] == [(14, {"kind": "tar"})]
    assert first.image_id == second.image_id == ""


async def test_the_status_has_what_arrives(context: Path, tmp_path: Path) -> None:
    """How far each output is, is in the model by its exporter, and the callback hears of it as it grows."""
    heard: dict[int, list[tuple[int, int, bool]]] = {}

    def on_status(status: BuildStatus) -> None:
        for number, output in status.arrivals.items():
            heard.setdefault(number, []).append((output.size, output.files, output.complete))

    async def export_two_files(solve: FakeSolve) -> dict[str, str]:
        (solve.directory.parent / "a").write_bytes(b"one")
        (solve.directory.parent / "b").write_bytes(b"three")
        return await export(solve)

    async with FakeDaemon.listen(script=export_two_files) as daemon:
        outputs: list[str | Output] = [f"{tmp_path}/out", Output("tar", io.BytesIO())]
        await build(context, endpoint=daemon.endpoint, outputs=outputs, on_status=on_status)
    assert not heard[0][0][2]
    assert heard[0][-1] == (len(b"onethree"), 2, True)
    assert heard[1][0] == (len(b"content of tar"), 0, False)
    assert heard[1][-1] == (len(b"content of tar"), 1, True)
    assert all(told == sorted(told) for told in heard.values())


async def test_several_outputs_go_to_their_own_places(context: Path, tmp_path: Path) -> None:
    """By the index of the exporter, images in between."""
    stream = io.BytesIO()
    outputs: list[str | Output]
    outputs = ["type=image", f"type=tar,dest={tmp_path}/a.tar", Output("tar", stream), f"{tmp_path}/out"]
    async with FakeDaemon.listen(script=export) as daemon:
        result = await build(context, endpoint=daemon.endpoint, outputs=outputs)
    assert [output.exporter for output in result.outputs] == [1, 2, 3]
    assert (tmp_path / "a.tar").read_bytes() == stream.getvalue() == b"content of tar"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
async def test_an_output_that_cannot_be_written_is_the_error(context: Path) -> None:
    """The build was fine; what is wrong is here, and is raised as what it is."""
    async with FakeDaemon.listen(script=export) as daemon:
        with pytest.raises(DiskFull, match="'/dev/full' cannot be written: no space left on device") as caught:
            await build(context, endpoint=daemon.endpoint, outputs=["type=tar,dest=/dev/full"])
    assert caught.value.path == "/dev/full"


async def test_an_output_that_does_not_come_is_missed(context: Path, tmp_path: Path) -> None:
    """An engine that says it is done and sent nothing has not done it; one that was told no has."""

    async def forget(solve: FakeSolve) -> dict[str, str]:
        return {}

    async with FakeDaemon.listen(script=forget) as daemon:
        with pytest.raises(OutputError, match="has finished the build and not sent output 1"):
            await build(context, endpoint=daemon.endpoint, outputs=[str(tmp_path / "out")])


async def test_a_failed_build_leaves_the_file_as_it_was(context: Path, tmp_path: Path) -> None:
    """A build that fails has no output."""
    (tmp_path / "x.tar").write_bytes(b"before")

    async def fail(solve: FakeSolve) -> dict[str, str]:
        solve.fail("no")

    async with FakeDaemon.listen(script=fail) as daemon:
        with pytest.raises(BuildFailed):
            await build(context, endpoint=daemon.endpoint, outputs=[f"type=tar,dest={tmp_path}/x.tar"])
    assert (tmp_path / "x.tar").read_bytes() == b"before"


@pytest.mark.parametrize(
    ("options", "words", "hint"),
    [
        ({"outputs": ["a", "b"], "api": "1.44"}, "one output only", "Build once for each"),
        ({"outputs": ["type=local,dest=a,mode=delete"]}, "would ignore mode=delete", "empty the directory first"),
        ({"outputs": ["type=oci,dest=a"]}, "graph driver, and cannot make an output of type oci", "containerd image"),
        ({"outputs": ["type=docker,dest=a"]}, "cannot make an output of type docker", "docker save"),
        ({"outputs": ["type=image,push=true,push-by-digest=true"], "tags": ["a"]}, "cannot push by digest", "by name"),
        ({"outputs": ["a", "b"], "driver": "classic"}, "POST /build has one output only", "Build once for each"),
        ({"outputs": ["type=cacheonly"], "driver": "classic"}, "in the cache only", "Leave the output out"),
    ],
)
async def test_what_the_engine_cannot_do_is_refused(
    context: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any], words: str, hint: str
) -> None:
    """Before the build starts, with what would do it."""
    monkeypatch.chdir(tmp_path)
    api = options.pop("api", "1.51")
    async with FakeDaemon.listen(api_version=api) as daemon:
        with pytest.raises(UnsupportedByEngine, match=words) as caught:
            await build(context, endpoint=daemon.endpoint, **options)
    assert hint in (caught.value.hint or "")
    assert not (tmp_path / "a").exists()

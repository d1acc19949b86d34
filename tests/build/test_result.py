"""What a build came to: its fields from the engine's response, the metadata file, files that are written whole."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mobysession._pb import control_pb2
from mobysession.build.exports import Output
from mobysession.build.options import BuildOptions
from mobysession.build.outputs import check_outputs, told_id, write_atomically
from mobysession.build.result import ContextTransfer, StepResult, make_result
from mobysession.buildkit.status import BuildStatus
from mobysession.session.session import Session
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mobysession.build.result import BuildResult

CONFIG = "sha256:" + "c" * 64
MANIFEST = "sha256:" + "d" * 64


def result(
    response: Mapping[str, str],
    *,
    tags: tuple[str, ...] = (),
    status: BuildStatus | None = None,
    outputs: Sequence[str] = (),
    driver: str = "control",
    has_store: bool = True,
) -> BuildResult:
    session = Session(Endpoint.parse("unix:///nowhere"), session_id="sid")
    return make_result(
        response,
        status or BuildStatus(),
        session,
        tags=tags,
        driver=driver,
        ref="ref",
        outputs=[Output.parse(text) for text in outputs],
        has_store=has_store,
    )


def test_the_id_is_what_the_engine_calls_the_image_by() -> None:
    """With images in containerd that is the manifest; the configuration has a digest of its own."""
    made = result({"containerimage.digest": MANIFEST, "containerimage.config.digest": CONFIG})
    assert (made.image_id, made.digest) == (MANIFEST, MANIFEST)


def test_the_configuration_is_the_id_where_there_is_no_manifest() -> None:
    """An engine that names only the configuration knows the image by it."""
    made = result({"containerimage.config.digest": CONFIG})
    assert (made.image_id, made.digest) == (CONFIG, "")


@pytest.mark.parametrize(
    "outputs",
    [
        ["type=image"],
        ["type=registry"],
        ["type=image,push=true,store=true"],
        ["type=docker"],
        ["type=oci,dest=a.tar", "type=docker"],
        ["type=image", "type=local,dest=a", "type=tar,dest=a.tar", "type=cacheonly"],
    ],
)
def test_an_image_that_stays_in_the_engine_has_an_id(outputs: list[str]) -> None:
    """Whatever else comes out; a tree has no digest that could be told in its place."""
    made = result({"containerimage.digest": MANIFEST, "containerimage.descriptor": ""}, outputs=outputs)
    assert (made.image_id, made.digest) == (MANIFEST, MANIFEST)


@pytest.mark.parametrize(
    "outputs",
    [
        ["type=oci,dest=a.tar"],
        ["type=oci,tar=false,dest=a"],
        ["type=docker,dest=a.tar"],
        ["type=image,store=false"],
        ["type=registry,store=0"],
        ["type=image", "type=oci,dest=a.tar"],
        ["type=local,dest=a"],
    ],
)
def test_an_image_that_is_elsewhere_has_no_id(outputs: list[str]) -> None:
    """Its digest is told all the same. Of several images the engine tells the last one's, which is not the stored."""
    response = {"containerimage.digest": MANIFEST, "containerimage.config.digest": CONFIG}
    made = result({**response, "containerimage.descriptor": ""}, outputs=outputs)
    assert (made.image_id, made.digest) == ("", MANIFEST)
    assert told_id(made) == CONFIG
    assert told_id(dataclasses.replace(made, response={})) == MANIFEST


def test_a_graph_driver_stores_every_image() -> None:
    """It is known by its response, which has no descriptor; with the classic driver no response has one."""
    image = {"containerimage.digest": CONFIG}
    assert result(image, outputs=["type=image,store=false"]).image_id == CONFIG
    assert result(image, outputs=["type=image,store=false"], driver="classic").image_id == ""
    assert result(image, outputs=["type=image"], driver="classic").image_id == CONFIG


def test_a_buildkitd_knows_no_image_by_an_id() -> None:
    """It has no store that one could be asked for from; what it pushed has a digest."""
    made = result({"containerimage.digest": MANIFEST}, outputs=["type=registry"], has_store=False)
    assert (made.image_id, made.digest) == ("", MANIFEST)


def test_steps_stand_in_the_order_of_their_first_start() -> None:
    """Not in that in which they were told of, nor of a later run; those that never started are last.

    Steps from the cache start at one time, and are told of as started in the order in which one needs another.
    """
    status = BuildStatus()
    for starts in (
        {"needing": 0, "never": 0, "late": 3, "twice": 1},
        {"twice": 4, "early": 2, "needed": 5, "needing": 5},
    ):
        message = control_pb2.StatusResponse()
        for name, second in starts.items():
            vertex = message.vertexes.add(digest=name, name=name)
            if second:
                vertex.started.FromSeconds(second)
                vertex.completed.FromSeconds(second)
        status.apply(message)
    assert [step.name for step in result({}, status=status).steps] == [
        *("twice", "early", "late", "needed", "needing", "never")
    ]


def test_steps_and_seconds_come_from_the_status() -> None:
    """Names, cache hits and durations, in the order of starting; the total spans them all."""
    status = BuildStatus()
    message = control_pb2.StatusResponse()
    for number, cached in ((1, True), (2, False)):
        vertex = message.vertexes.add(digest=str(number), name=f"step {number}", cached=cached)
        vertex.started.FromMilliseconds(1000 * number)
        vertex.completed.FromMilliseconds(1000 * number + 500)
    status.apply(message)
    made = result({}, status=status)
    assert [(step.name, step.cached, step.duration) for step in made.steps] == [
        ("step 1", True, 0.5),
        ("step 2", False, 0.5),
    ]
    assert made.cached_steps == 1
    assert made.duration == 1.5


def test_what_a_result_is_made_of_is_frozen() -> None:
    """Steps and transfers are values as the result itself: equal where they say the same, and never changed."""
    step = StepResult(name="a", cached=True, duration=1.0)
    sent = ContextTransfer(directory="context", files_offered=2, bytes_offered=3, files_requested=1, bytes_sent=2)
    for value, name in ((step, "cached"), (sent, "bytes_sent"), (result({}), "steps")):
        assert value == dataclasses.replace(value)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)


def test_the_metadata_decodes_the_descriptor() -> None:
    """As buildx writes it: the descriptor is an object, the rest as the engine said it."""
    descriptor = {"digest": MANIFEST, "size": 1}
    encoded = base64.b64encode(json.dumps(descriptor).encode()).decode()
    made = result({"containerimage.digest": MANIFEST, "containerimage.descriptor": encoded}, tags=("a:1", "b"))
    assert made.metadata() == {
        "containerimage.digest": MANIFEST,
        "containerimage.descriptor": descriptor,
        "image.name": "a:1,b",
        "buildx.build.ref": "default/default/ref",
    }
    assert made.response["containerimage.descriptor"] == encoded


@pytest.mark.parametrize("odd", ["%%%", "A", base64.b64encode(b"{").decode(), base64.b64encode(b"\xff").decode()])
def test_a_descriptor_that_cannot_be_decoded_stays_as_it_came(odd: str) -> None:
    """A build that succeeded does not fail over what the engine wrote there."""
    assert result({"containerimage.descriptor": odd}).metadata()["containerimage.descriptor"] == odd


def test_writing_replaces_the_whole_content(tmp_path: Path) -> None:
    """The new content is there, and nothing is left beside it."""
    (tmp_path / "file").write_text("a longer old content")
    write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_replaced_leaves_no_scratch_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old content stays, whole."""
    (tmp_path / "file").write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """What it leads to is written."""
    (tmp_path / "link").symlink_to("file")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("folder", ["/proc/self/fd", "/dev/fd"])
def test_what_is_open_here_is_written_on(tmp_path: Path, folder: str) -> None:
    """What the file has keeps its place, and the file is not replaced by another that nobody has open."""
    with open(tmp_path / "log", "w+") as log:
        log.write("begun\n")
        log.flush()
        path = f"{folder}/{log.fileno()}"
        check_outputs(BuildOptions(context=tmp_path, iidfile=path))
        write_atomically(path, "text\n")
        log.write("ended\n")
    assert (tmp_path / "log").read_text() == "begun\ntext\nended\n"
    assert os.listdir(tmp_path) == ["log"]


@pytest.mark.parametrize("path", ["/dev/stderr", "{log}"])
def test_a_log_is_not_lost_to_an_output(tmp_path: Path, path: str) -> None:
    """stderr may go to a file, and be named as the file for the ID: by either name it is written on."""
    code = f"""
import sys
from mobysession.build.options import BuildOptions
from mobysession.build.outputs import check_outputs, write_atomically
print("begun", file=sys.stderr, flush=True)
check_outputs(BuildOptions(context=".", iidfile={path.format(log="log")!r}))
write_atomically({path.format(log="log")!r}, "text\\n")
print("ended", file=sys.stderr, flush=True)
"""
    with open(tmp_path / "log", "w") as log:
        subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, stderr=log, check=True)
    assert (tmp_path / "log").read_text() == "begun\ntext\nended\n"
    assert os.listdir(tmp_path) == ["log"]


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """``/dev/stderr`` and its like take the text; root must not lose them."""
    reader, writer = os.pipe()
    try:
        link = tmp_path / "stderr"
        link.symlink_to(f"/proc/self/fd/{writer}")
        write_atomically(link, "text")
        assert os.read(reader, 100) == b"text"
        assert link.is_symlink()
    finally:
        os.close(reader)
        os.close(writer)

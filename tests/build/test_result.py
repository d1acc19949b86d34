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
from mobysession.build.options import BuildOptions
from mobysession.build.outputs import check_outputs, write_atomically
from mobysession.build.result import ContextTransfer, StepResult, make_result
from mobysession.buildkit.status import BuildStatus
from mobysession.session.session import Session
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mobysession.build.result import BuildResult

CONFIG = "sha256:" + "c" * 64
MANIFEST = "sha256:" + "d" * 64


def result(
    response: Mapping[str, str], *, tags: tuple[str, ...] = (), status: BuildStatus | None = None
) -> BuildResult:
    session = Session(Endpoint.parse("unix:///nowhere"), session_id="sid")
    return make_result(response, status or BuildStatus(), session, tags=tags, driver="control", ref="ref")


def test_the_id_is_what_the_engine_calls_the_image_by() -> None:
    """With images in containerd that is the manifest; the configuration has a digest of its own."""
    made = result({"containerimage.digest": MANIFEST, "containerimage.config.digest": CONFIG})
    assert (made.image_id, made.digest) == (MANIFEST, MANIFEST)


def test_the_configuration_is_the_id_where_there_is_no_manifest() -> None:
    """An engine that names only the configuration knows the image by it."""
    made = result({"containerimage.config.digest": CONFIG})
    assert (made.image_id, made.digest) == (CONFIG, "")


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

"""A gallery of Dockerfiles that covers the Dockerfile reference, each built by us and by ``docker buildx build``.

`integration/gallery` holds them. Comments at the top of a file say what it needs::

    # options: --build-arg A=1      for both command lines; CONTEXT, AGENT and ID are filled in
    # since: 23                     the Docker version whose own frontend has what it shows; never: none here has

Frontends cannot be pulled here, so each engine's own decides what works. Where it does, both images must be alike:
files, modes, owners, contents, configuration, history. Where it does not, both must be told the same.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from integration.contexts import make_context
from integration.images import BUILD_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from integration.engines import Buildx, Engine
    from integration.images import FileState, Witness

GALLERY = Path(__file__).parent / "gallery"
NAMES = sorted(path.name.removesuffix(".Dockerfile") for path in GALLERY.glob("*.Dockerfile"))
NEVER = 1000
"""Newer than every engine."""


class Piece(NamedTuple):
    """One Dockerfile: its text, its options, and the Docker version that builds it."""

    text: str
    options: list[str]
    since: int


class Built(NamedTuple):
    """What a client came to: its exit status, the image's digest, and the engine's reason where there is none."""

    status: int
    image: str
    reason: str
    said: str


def read(name: str) -> Piece:
    """Return a Dockerfile of the gallery."""
    text = (GALLERY / f"{name}.Dockerfile").read_text("utf-8")
    needs = dict(re.findall(r"^# (options|since): (.*)$", text, re.MULTILINE))
    since = needs.get("since", "0")
    return Piece(text, shlex.split(needs.get("options", "")), NEVER if since == "never" else int(since))


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Give the context that all of them are built from."""
    files: dict[str, str | bytes] = {
        "file": "content of file\n",
        "file2": "content of another\n",
        "archive.tar.gz": _archive(),
        "tree/leaf": "leaf\n",
        "tree/noise.log": "noise\n",
        "tree/with space": "space\n",
        "tree/sub/deep.txt": "deep\n",
        "tree/sub/other.log": "other\n",
    }
    folder = make_context(tmp_path / "context", "", files)
    (folder / "tree/link").symlink_to("leaf")
    for path in sorted(folder.rglob("*"), reverse=True):
        os.utime(path, (1_234_567_890, 1_234_567_890), follow_symlinks=False)
    return folder


def _archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo("inner/packed")
        member.size, member.mtime, member.mode = 7, 1_234_567_890, 0o640
        tar.addfile(member, io.BytesIO(b"packed\n"))
    return content.getvalue()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """Start an SSH agent without keys."""
    socket = tmp_path / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield socket
    process.terminate()
    process.wait()
    process.stdout.close()


def _build(
    argv: Sequence[str | Path], file: Path, folder: Path, options: Sequence[str], environment: Mapping[str, str]
) -> Built:
    folder.mkdir()
    metadata = folder / "metadata.json"
    arguments = ["--no-cache"] if not any("no-cache" in option for option in options) else []
    arguments += ["--provenance", "false", "--progress", "plain", "--metadata-file", str(metadata), "-f", str(file)]
    command = [*argv, "build", *arguments, *options, str(file.parent / "context")]
    done = subprocess.run(
        command, env=dict(environment), capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False
    )
    known = json.loads(metadata.read_text()) if metadata.exists() else {}
    found = re.search(r"^ERROR: (?:failed to build: )?(.*)$", done.stderr, re.MULTILINE | re.DOTALL)
    reason = _same(found[1]) if found else ""
    return Built(done.returncode, known.get("containerimage.digest", ""), reason, done.stderr)


def _same(reason: str) -> str:
    """Return an engine's reason without what is different at each build, our hint, and gRPC's own words.

    buildx opens with "failed to run Build function" when its own half of a build ends before the engine's.
    """
    reason = re.sub(r"^failed to run Build function: ", "", reason)
    reason = re.sub(r"rpc error: code = \w+ desc = |^failed to solve: (?=(?:rpc error|failed to solve))", "", reason)
    reason = re.sub(r"^failed to solve: (?=failed to solve)", "", reason)
    reason = re.sub(r"\nhint: .*", "", reason, flags=re.DOTALL)
    return re.sub(r"\b[0-9a-z]{25}\b|[0-9a-f-]{36}|sha256:[0-9a-f]{64}", "ID", reason).strip()


@pytest.mark.parametrize("name", NAMES)
def test_a_piece_of_the_gallery(
    engine: Engine, buildx: Buildx, witness: Witness, context: Path, agent: Path, tmp_path: Path, name: str
) -> None:
    """Both clients come to the same image, or are told the same why there is none."""
    piece = read(name)
    theirs, ours = (
        _one_side(side, piece, engine, buildx, {"CONTEXT": str(context), "AGENT": str(agent)}, tmp_path)
        for side in ("theirs", "ours")
    )
    assert (ours.status == 0) == (theirs.status == 0), f"{ours.said}\n{theirs.said}"
    if theirs.status:
        assert ours.reason == theirs.reason or "--build-context" in piece.options
        assert engine.major < piece.since, ours.said
        return
    assert _tree(witness, ours.image) == _tree(witness, theirs.image)
    assert _described(witness, ours.image) == _described(witness, theirs.image)


def _one_side(side: str, piece: Piece, engine: Engine, buildx: Buildx, marks: Mapping[str, str], folder: Path) -> Built:
    fill = {**marks, "ID": uuid.uuid4().hex}
    file = folder / "Dockerfile"
    file.write_text(_filled(piece.text, fill), "utf-8")
    variables = {**buildx.environment(engine.host, folder / "config"), "GALLERY_SECRET": "swordfish"}
    argv: list[str | Path] = [buildx.docker, "buildx"]
    if side == "ours":
        argv = [sys.executable, "-m", "mobysession"]
        variables["PYTHONPATH"] = str(Path(__file__).parent.parent)
    options = [_filled(option, fill) for option in piece.options]
    return _build(argv, file, folder / side, options, variables)


def _filled(text: str, marks: Mapping[str, str]) -> str:
    return re.sub(r"\b(?:CONTEXT|AGENT|ID)\b", lambda found: marks[found[0]], text)


def _tree(witness: Witness, image: str) -> dict[str, FileState]:
    """Return what is in an image but when it was made, which each build does for itself."""
    if not witness.inspect(image)["RootFS"].get("Layers"):
        return {}
    return {
        name: dataclasses.replace(state, mtime=0, names=frozenset()) for name, state in witness.tree(image, "/").items()
    }


def _described(witness: Witness, image: str) -> dict[str, Any]:
    found = witness.inspect(image)
    history = witness.client.api.history(image)
    words = [re.sub(r"gallery-(other-)?[0-9a-f]{32}", "gallery", layer["CreatedBy"]) for layer in history]
    return {"history": words, **{key: found.get(key) for key in ("Config", "Architecture", "Os", "Variant")}}


def test_the_gallery_covers_the_reference() -> None:
    """Every instruction of the Dockerfile reference is in it, and every kind of mount."""
    texts = "\n".join(read(name).text for name in NAMES)
    instructions = "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL"
    for word in (*instructions.split(), "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"):
        assert re.search(rf"^{word} ", texts, re.MULTILINE), word
    for mount in ("bind", "cache", "secret", "ssh", "tmpfs"):
        assert f"--mount=type={mount}" in texts
    assert len(NAMES) >= 30

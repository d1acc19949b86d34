"""``--call`` and ``--check`` on real engines: what is printed, and the status, are those of ``docker buildx build``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.contexts import make_context
from integration.images import BUILD_TIMEOUT, build_image
from mobysession.errors import BuildFailed, UnsupportedByEngine

if TYPE_CHECKING:
    from integration.engines import Buildx, Engine

SINCE = {"check": 27, "outline": 24, "targets": 24, "subrequests.describe": 20}
"""The Docker version whose own frontend answers."""

DOCKERFILE = """\
# greeting is who is greeted
ARG greeting=world
# base is what all begins with
FROM mobysession-base AS base
ARG greeting
# depth is how deep it goes
ARG depth
RUN --mount=type=secret,id=token --mount=type=cache,id=kept,target=/c --mount=type=ssh,required=false true
MAINTAINER ada
FROM base
ENV a b
CMD echo $greeting
"""


def _ours(engine: Engine, *arguments: str, config: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    variables = {**os.environ, "DOCKER_CONFIG": str(config), "PYTHONPATH": str(Path(__file__).parent.parent)}
    argv = [sys.executable, "-m", "mobysession", "-H", engine.host, "build", *arguments]
    return subprocess.run(argv, env=variables, input=stdin, capture_output=True, timeout=BUILD_TIMEOUT, check=False)


def _same(printed: bytes) -> str:
    """Return what was printed without what is different at each call: definitions have IDs of sessions in them."""
    text = printed.decode()
    return re.sub(r'"(?:definition|sources)": (\{.*?\n {6}\}|\[.*?\n {2}\])', '"definition"', text, flags=re.DOTALL)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--call", "check"),
        ("--check",),
        ("--call", "check,ignorestatus=true"),
        ("--call", "check,format=json"),
        ("--call", "outline"),
        ("--call", "outline,format=json", "--target", "base", "--build-arg", "depth=3"),
        ("--call", "targets"),
        ("--call", "targets,format=json"),
        ("--call", "subrequests.describe"),
    ],
    ids=" ".join,
)
def test_an_answer_is_printed_as_buildx_prints_it(
    engine: Engine, buildx: Buildx, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """To the letter on stdout, and with its status; an engine whose frontend cannot answer is said to be too old."""
    context = make_context(tmp_path / "context", "", {"sub/My.Dockerfile": DOCKERFILE})
    given = [*arguments, "-f", str(context / "sub/My.Dockerfile"), str(context)]
    ours = _ours(engine, *given, config=tmp_path / "config")
    name = "check" if "check" in "".join(arguments) else arguments[1].partition(",")[0]
    if engine.major < SINCE[name]:
        assert ours.returncode == 1
        assert f"does not know the request '{name}'".encode() in ours.stderr
        return
    theirs = buildx.run(engine.host, "build", *given, config_dir=tmp_path / "config")
    assert _same(ours.stdout) == _same(theirs.stdout)
    assert ours.returncode == theirs.returncode, theirs.stderr.decode()


def test_a_dockerfile_that_cannot_be_read_fails_the_check(engine: Engine, buildx: Buildx, tmp_path: Path) -> None:
    """With its place, on stderr."""
    context = make_context(tmp_path / "context", "FROM mobysession-base\nRUM x\n")
    ours = _ours(engine, "--check", str(context), config=tmp_path / "config")
    assert ours.returncode == 1
    if engine.major >= SINCE["check"]:
        theirs = buildx.run(engine.host, "build", "--check", str(context), config_dir=tmp_path / "config")
        assert theirs.returncode == 1
        assert ours.stdout == theirs.stdout
        assert b"unknown instruction: RUM" in ours.stderr


def test_an_answer_is_a_value(engine: Engine, tmp_path: Path) -> None:
    """In Python it is data; nothing is built, and no image made."""
    context = make_context(tmp_path / "context", DOCKERFILE)
    if engine.major < SINCE["outline"]:
        with pytest.raises(UnsupportedByEngine, match="Docker 24 and later"):
            build_image(engine, context, call="outline")
        return
    result = build_image(engine, context, call="outline", target="base")
    assert result.image_id == ""
    assert result.answer is not None
    assert [one["name"] for one in result.answer.data["args"]] == ["greeting", "depth"]
    assert [one["name"] for one in result.answer.data["secrets"]] == ["token"]
    assert json.loads(result.answer.json) == result.answer.data
    with pytest.raises(BuildFailed, match="target stage"):
        build_image(engine, context, call="outline", target="nowhere")

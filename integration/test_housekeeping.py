"""The cache, the workers and the records of builds on real engines, by the command line and by the library."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import trio

from integration.contexts import make_context
from integration.images import build_image
from mobysession.buildkit.control import open_control
from mobysession.errors import BuildFailed, UnsupportedByEngine
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Buildx, Engine
    from mobysession.buildkit.history import BuildRecord

_PATIENCE = 60
DOCKERFILE = "FROM mobysession-base\nARG WHO\nRUN echo housekeeping-$WHO\n"


def _run(engine: Engine, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-m", "mobysession", "--host", engine.host, *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, timeout=_PATIENCE, check=False)


def _json(engine: Engine, *arguments: str) -> Any:
    ran = _run(engine, *arguments, "--format", "json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def _build(engine: Engine, tmp_path: Path, **options: Any) -> str:
    return build_image(engine, make_context(tmp_path / "context", DOCKERFILE), **options).ref


def _record(engine: Engine, ref: str) -> BuildRecord:
    async def get() -> BuildRecord:
        async with open_control(Endpoint.parse(engine.host)) as control:
            return await control.history.get(ref)

    return trio.run(get)


def test_cache_is_listed_and_pruned(engine: Engine, tmp_path: Path) -> None:
    """A cache mount of a name of its own is found by its description, and goes alone."""
    context = make_context(
        tmp_path / "context",
        "FROM mobysession-base\nRUN --mount=type=cache,target=/housekeeping touch /housekeeping/a\n",
    )
    build_image(engine, context, no_cache=True)
    of_mounts = ("--filter", "type=exec.cachemount", "--filter", "description~=/housekeeping")
    found = _json(engine, "du", *of_mounts)
    assert {record["type"] for record in found} == {"exec.cachemount"}
    pruned = _json(engine, "prune", "--force", "--all", *of_mounts)
    assert {record["id"] for record in pruned} <= {record["id"] for record in found}
    if engine.major >= 28:
        # Older BuildKits keep it, and tell buildx nothing else.
        assert _json(engine, "du", *of_mounts) == []
    table = _run(engine, "du").stdout.decode()
    assert "RECLAIMABLE" in table
    assert "Total:" in table


def test_bounds_of_a_prune_are_kept_or_refused(engine: Engine) -> None:
    """An engine that would ignore them and delete as much as it likes is not asked to."""
    ran = _run(engine, "prune", "--force", "--filter", "id==none", "--max-used-space", "1p", "--min-free-space", "1k")
    assert ran.returncode == (0 if engine.major >= 28 else 1), ran.stderr
    assert (b"would ignore max_used_space" in ran.stderr) == (engine.major < 28)


def test_workers_are_listed(engine: Engine) -> None:
    """Each with its platforms."""
    assert any("linux/amd64" in worker["platforms"] for worker in _json(engine, "workers"))


def test_a_build_is_remembered(engine: Engine, tmp_path: Path) -> None:
    """What was asked for, how it went and its log; engines before Docker 23 are said to have none."""
    ref = _build(engine, tmp_path, build_args={"WHO": "me"}, no_cache=True)
    if engine.major < 23:
        with pytest.raises(UnsupportedByEngine, match="keeps no records"):
            _record(engine, ref)
        assert _run(engine, "history", "ls").returncode == 1
        return
    record = _record(engine, ref)
    assert (record.status, record.attributes["build-arg:WHO"]) == ("completed", "me")
    assert record.completed_steps == record.steps > 0
    assert record.duration is not None
    assert ref in {each["ref"] for each in _json(engine, "history", "ls", "--filter", "status=completed")}
    assert "housekeeping-me" in _run(engine, "history", "logs", ref).stdout.decode()
    assert "WHO=me" in _run(engine, "history", "inspect", ref).stdout.decode()
    assert _run(engine, "history", "rm", ref).stdout.decode() == f"{ref}\n"
    assert _run(engine, "history", "inspect", ref).returncode == 1


def test_a_failure_is_remembered(engine: Engine, tmp_path: Path) -> None:
    """With its text, and found by its status."""
    if engine.major < 23:
        pytest.skip("this engine keeps no records, which the test above proves")
    context = make_context(tmp_path / "context", "FROM mobysession-base\nRUN exit 3\n")
    with pytest.raises(BuildFailed):
        build_image(engine, context, no_cache=True)
    newest = _json(engine, "history", "ls", "--filter", "status=error", "--limit", "5")
    record = _record(engine, newest[0]["ref"])
    assert record.status == "error"
    assert "exit code: 3" in record.error


def test_an_archive_is_that_of_buildx(engine: Engine, buildx: Buildx, tmp_path: Path) -> None:
    """The record and its files are the same; only the trace is written in another way."""
    if engine.major < 28:
        pytest.skip("buildx exports from BuildKit 0.13 on, and needs the trace that 28 hands out")
    ref = _build(engine, tmp_path, no_cache=True)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ran = _run(engine, "history", "export", ref, "--finalize", "--output", ours)
    assert ran.returncode == 0, ran.stderr
    buildx.run(engine.host, "history", "export", ref, "--output", theirs, config_dir=tmp_path / "config")
    mine, other = _archive(ours), _archive(theirs)
    assert mine["layers"] == other["layers"]
    for record in (mine["record"], other["record"]):
        del record["trace"]["digest"], record["trace"]["size"]
    assert mine["record"] == other["record"]


def _archive(path: Path) -> dict[str, Any]:
    with gzip.open(path) as packed, tarfile.open(fileobj=io.BytesIO(packed.read())) as tar:
        files = {member.name: content.read() for member in tar if (content := tar.extractfile(member))}

    def blob(descriptor: dict[str, Any]) -> Any:
        return json.loads(files[f"blobs/{descriptor['digest'].replace(':', '/')}"])

    manifest = blob(json.loads(files["index.json"])["manifests"][0])
    layers = [
        (layer["mediaType"], layer.get("annotations"), None if "otlp" in layer["mediaType"] else layer["digest"])
        for layer in manifest["layers"]
    ]
    return {"record": blob(manifest["config"]), "layers": layers}

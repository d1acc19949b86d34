"""Caches in directories of this machine, read and written by real engines through the session."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
import trio

from integration.contexts import make_context
from integration.images import build_image
from mobysession import DiskFull, Endpoint, UnsupportedByEngine, open_control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.engines import Engine
    from mobysession.build import BuildResult

DOCKERFILE = """\
FROM mobysession-base AS first
COPY seed /seed
RUN cat /seed /seed > /twice
FROM mobysession-base
COPY --from=first /twice /twice
RUN cat /twice > /last
"""


def prune(engine: Engine) -> None:
    """Empty the engine's own build cache."""

    async def run() -> None:
        async with open_control(Endpoint.parse(engine.host)) as control, aclosing(control.prune(all=True)) as records:
            async for _ in records:
                pass

    trio.run(run)


def steps(result: BuildResult) -> dict[str, bool]:
    """Return what was executed, or taken from a cache, by its instruction."""
    words = ("COPY", "RUN")
    named = {step.name.rpartition("] ")[2]: step.cached for step in result.steps}
    return {name: cached for name, cached in named.items() if name.startswith(words)}


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Give a context that no engine has built before."""
    return make_context(tmp_path / "context", DOCKERFILE, {"seed": os.urandom(1000).hex()})


def test_a_cache_is_written_by_one_build_and_used_by_the_next(engine: Engine, context: Path, tmp_path: Path) -> None:
    """Every step comes from it once the engine has forgotten its own; engines that cannot write one say so first."""
    cache = tmp_path / "cache"
    to, source = f"type=local,dest={cache},mode=max", f"type=local,src={cache}"
    if not engine.containerd_image_store:
        with pytest.raises(UnsupportedByEngine, match="cannot export cache of type local"):
            build_image(engine, context, cache_to=[to])
        return
    first = build_image(engine, context, cache_to=[to])
    assert set(steps(first).values()) == {False}
    assert not list((cache / "ingest").iterdir())
    prune(engine)
    second = build_image(engine, context, cache_from=[source], cache_to=[to])
    assert steps(second) == dict.fromkeys(steps(first), True)
    assert len(json.loads((cache / "index.json").read_text())["manifests"]) == 1
    prune(engine)
    (cache / "index.json").unlink()
    assert set(steps(build_image(engine, context, cache_from=[source])).values()) == {False}


def test_a_cache_is_read_by_every_engine(containerd_engine: Engine, engine: Engine, tmp_path: Path) -> None:
    """One of an image list, which is what BuildKit wrote before 0.21, also by the oldest engine supported."""
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY seed /\n", {"seed": os.urandom(1000).hex()})
    cache = tmp_path / "cache"
    build_image(containerd_engine, context, cache_to=[f"type=local,dest={cache},mode=max,image-manifest=false"])
    if engine is containerd_engine:
        prune(engine)
    result = build_image(engine, context, cache_from=[f"type=local,src={cache}"])
    assert list(steps(result).values()) == [True]


def test_a_damaged_cache_does_not_damage_a_build(containerd_engine: Engine, context: Path, tmp_path: Path) -> None:
    """A layer with another content than its digest says is not taken: the build fails or builds it, never takes it."""
    cache = tmp_path / "cache"
    first = build_image(
        containerd_engine, context, cache_to=[f"type=local,dest={cache},mode=max"], tags=["mobysession-test/damaged:1"]
    )
    prune(containerd_engine)
    index = json.loads((cache / "index.json").read_text())["manifests"][0]
    manifest = cache / "blobs" / index["digest"].replace(":", "/")
    manifest.chmod(0o644)
    manifest.write_bytes(manifest.read_bytes().replace(b"sha256:", b"sha256;", 1))
    result = build_image(containerd_engine, context, cache_from=[f"type=local,src={cache}"])
    assert set(steps(result).values()) == {False}
    assert steps(result).keys() == steps(first).keys()


def test_blobs_that_are_not_needed_go_with_reset(containerd_engine: Engine, context: Path, tmp_path: Path) -> None:
    """What only an earlier build had is removed from the directory."""
    cache = tmp_path / "cache"
    to = f"type=local,dest={cache},mode=max"
    build_image(containerd_engine, context, cache_to=[to])
    before = set(os.listdir(cache / "blobs" / "sha256"))
    (context / "seed").write_text("another")
    build_image(containerd_engine, context, cache_to=[f"{to},reset=true"])
    after = set(os.listdir(cache / "blobs" / "sha256"))
    assert before - after
    prune(containerd_engine)
    assert set(steps(build_image(containerd_engine, context, cache_from=[f"type=local,src={cache}"])).values()) == {
        True
    }


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_the_error(containerd_engine: Engine, small_disk: Path, tmp_path: Path) -> None:
    """Not the engine's words about it, but a typed error that names the directory; no part of a blob is visible."""
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY big /\n", {"big": os.urandom(200_000)})
    with pytest.raises(DiskFull, match="no space left on device") as caught:
        build_image(containerd_engine, context, cache_to=[f"type=local,dest={small_disk}/cache,mode=max"])
    assert caught.value.path == f"{small_disk}/cache"
    assert not (small_disk / "cache" / "index.json").exists()
    for blob in small_disk.rglob("sha256/*"):
        assert blob.stat().st_size < 64 * 1024

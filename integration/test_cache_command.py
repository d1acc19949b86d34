"""``--cache-to`` and ``--cache-from`` on the command line, with a real engine."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from integration.contexts import make_context
from integration.test_cache import prune

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine


def _build(engine: Engine, context: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [
        sys.executable,
        "-m",
        "mobysession",
        "-H",
        engine.host,
        "build",
        "--progress",
        "plain",
        *options,
        str(context),
    ]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_the_second_build_runs_nothing(containerd_engine: Engine, tmp_path: Path) -> None:
    """A cache of all stages, written and read on the command line, saves every step once the engine forgot its own."""
    dockerfile = "FROM mobysession-base\nCOPY seed /seed\nRUN cat /seed /seed > /twice\n"
    context = make_context(tmp_path / "context", dockerfile, {"seed": os.urandom(1000).hex()})
    cache = tmp_path / "cache"
    first = _build(containerd_engine, context, "--cache-to", f"type=local,dest={cache},mode=max")
    assert first.returncode == 0, first.stderr
    assert "CACHED" not in first.stderr
    prune(containerd_engine)
    second = _build(containerd_engine, context, "--cache-from", f"type=local,src={cache}")
    assert second.returncode == 0, second.stderr
    assert second.stderr.count("CACHED") == 2


def test_an_engine_that_cannot_says_so(engine: Engine, tmp_path: Path) -> None:
    """One with images in a graph driver: status 1, what it cannot, and what would do it."""
    if engine.containerd_image_store:
        return  # the test above
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY Dockerfile /\n")
    ran = _build(engine, context, "--cache-to", f"type=local,dest={tmp_path / 'cache'}")
    assert ran.returncode == 1
    assert "cannot export cache of type local" in ran.stderr
    assert "hint: " in ran.stderr

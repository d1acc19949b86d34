"""What a buildkitd is asked for that a Docker engine has not: by us, and by buildx's remote driver, word for word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from integration.contexts import make_context
from integration.recording_buildkitd import open_recording_buildkitd

if TYPE_CHECKING:
    from integration.engines import Buildx
    from integration.solve_requests import Asked

TIMEOUT = 60
AWS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_SESSION_TOKEN": "t0ken"}
S3 = "type=s3,region=eu-west-1,bucket=b,endpoint_url=http://127.0.0.1:1"
AZBLOB = "type=azblob,account_url=https://a.blob.core.windows.net,container=c"
CASES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "s3": (("--cache-from", f"{S3},name=a", "--cache-to", f"{S3},name=a;b,mode=max,ignore-error=true"), AWS),
    "s3-key": (("--cache-from", f"{S3},access_key_id=me,secret_access_key=mine", "--cache-to", S3), AWS),
    "s3-half-a-key": (("--cache-to", f"{S3},access_key_id=me"), AWS),
    "azblob": (("--cache-from", AZBLOB, "--cache-to", f"{AZBLOB},name=a,mode=max,secret_access_key=k"), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_buildkitd_is_asked_for_the_same_caches(buildx: Buildx, tmp_path: Path, name: str) -> None:
    """Imports and exports, with what the environment knows of them, are those of buildx."""
    options, env = CASES[name]
    context = make_context(tmp_path / "context", "FROM scratch\n")
    config = tmp_path / "config"

    def theirs(address: str) -> subprocess.CompletedProcess[bytes]:
        create = ("create", "--name", "recording", "--driver", "remote", address)
        made = buildx.run("", *create, config_dir=config, timeout=TIMEOUT)
        assert made.returncode == 0, made.stderr
        build = ("build", "--builder", "recording", *options, str(context))
        return buildx.run("", *build, config_dir=config, env=env, timeout=TIMEOUT)

    def ours(address: str) -> subprocess.CompletedProcess[bytes]:
        variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **env}
        argv = [sys.executable, "-m", "mobysession", "-H", address, "build", "--attach", "buildkitd"]
        return subprocess.run([*argv, *options, context], env=variables, capture_output=True, timeout=TIMEOUT)

    async def both() -> list[Asked]:
        async with open_recording_buildkitd() as daemon:
            for side in (theirs, ours):
                done = await trio.to_thread.run_sync(side, daemon.address)
                assert b"nothing is built here" in done.stderr, done.stderr
            return daemon.asked

    buildx_asked, we_asked = trio.run(both)
    assert we_asked.imports == buildx_asked.imports
    assert we_asked.exports == buildx_asked.exports
    assert we_asked.attrs.get("cache-imports") == buildx_asked.attrs.get("cache-imports")
    assert we_asked.exports

"""Recordings of real builds hold no secret; this machine's services answer them as they answered the engine."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from integration.contexts import make_context
from mobysession.build import as_request, build
from mobysession.recording import CallBegan, Frame, Message, RunChanged, read_recording
from mobysession.session.managed import SessionConfig, SessionManager
from mobysession.session.recorder.recorder import record_sessions
from mobysession.testing import ReplayDaemon
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine
    from mobysession.recording import Recording

SECRET = "correct horse battery"
DOCKERFILE = """\
FROM mobysession-base AS base
ARG RUN_ID
COPY . /files
RUN --mount=type=secret,id=token,required=true test "$(cat /run/secrets/token)" = "correct horse battery"
FROM scratch
COPY --from=base /files /
"""
FILES = {"hello.txt": "hello", "leak.txt": f"{'x' * 40_000}{SECRET}{'y' * 90_000}", "deep/er/file": "deeper"}


def _context(folder: Path) -> Path:
    context = make_context(folder / "context", DOCKERFILE, FILES)
    (context / "link").symlink_to("hello.txt")
    return context


def _bodies(recording: Recording) -> bytes:
    found = [record.body or b"" for record in recording if isinstance(record, Message)]
    found += [record.payload or b"" for record in recording if isinstance(record, Frame)]
    return b"\0".join(found)


@pytest.mark.parametrize("frames", [False, True])
def test_a_build_is_replayed_to_equal_answers(engine: Engine, tmp_path: Path, frames: bool) -> None:
    """A recorded build holds no secret, and the same services answer its every call as they answered the engine."""
    context, out = _context(tmp_path), tmp_path / "out"
    options: dict[str, Any] = {"secrets": {"token": SECRET}, "outputs": [str(out)]}

    async def record() -> Recording:
        async with record_sessions(frames=frames) as recorder:
            await build(
                context,
                endpoint=Endpoint.parse(engine.host),
                no_cache=True,
                build_args={"RUN_ID": secrets.token_hex(8)},
                **options,
            )
        await recorder.recording.save(tmp_path / "build.recording")
        return read_recording(tmp_path / "build.recording")

    async def replay(recording: Recording) -> list[Any]:
        async with ReplayDaemon(tmp_path / "fake.sock", recording=recording) as daemon:
            await build(context, endpoint=daemon.endpoint, driver="control", **options)
        return daemon.reports

    recording = trio.run(record)
    assert (out / "leak.txt").read_text() == FILES["leak.txt"]
    methods = {record.method for record in recording if isinstance(record, CallBegan)}
    assert {name.rpartition("/")[2] for name in methods} >= {"DiffCopy", "GetSecret"}
    assert any("FileSend" in name for name in methods)
    assert SECRET.encode() not in (tmp_path / "build.recording").read_bytes()
    assert SECRET.encode() not in _bodies(recording)
    assert b"x" * 1000 in _bodies(recording)
    (report,) = trio.run(replay, recording)
    assert report.is_equal, report.render()
    skipped = [call for call in report.calls if call.outcome == "skipped" and "Health" not in call.method]
    assert skipped == []


def test_from_the_command_line(engine: Engine, tmp_path: Path) -> None:
    """``record`` and ``replay`` do the same; another context is told from the recorded one."""
    context = _context(tmp_path)
    (tmp_path / "token").write_text(SECRET)
    name = tmp_path / "build.recording.gz"
    out = tmp_path / "out.tar"
    words = ["build", "--no-cache", "--secret", f"id=token,src={tmp_path / 'token'}"]
    words += ["-o", f"type=tar,dest={out}", str(context)]
    done = _run("-H", engine.host, "record", "-o", str(name), "--", *words, "--build-arg", f"RUN_ID={tmp_path.name}")
    assert done.returncode == 0, done.stderr
    shown = json.loads(_run("recording", "show", "--json", str(name)).stdout)
    assert shown["is_complete"]
    assert shown["header"]["command"] == words
    for record in shown["records"]:
        assert SECRET.encode() not in base64.b64decode(record.get("body") or "")
    written = out.stat().st_mtime_ns
    replayed = _run("replay", str(name))
    # The recorded build's outputs are there already, and what is hidden in them would be missing.
    assert "FileSend/DiffCopy: it is left out" in replayed.stdout
    assert out.stat().st_mtime_ns == written
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert " 0 different" in replayed.stdout
    (context / "hello.txt").write_text("hallo")
    changed = _run("replay", str(name))
    assert changed.returncode == 1
    assert "differs" in changed.stdout


def test_builds_of_a_managed_session(engine: Engine, tmp_path: Path) -> None:
    """The recording of a managed session has its runs, their builds' calls, and a snapshot of each run's end."""
    context = _context(tmp_path)

    async def record() -> tuple[Recording, Any]:
        manager = SessionManager(SessionConfig(endpoint=Endpoint.parse(engine.host)))
        async with manager.session([]) as session:
            session.start_recording("full")
            for _ in range(2):
                request = as_request(context, secrets={"token": SECRET}, no_cache=True)
                await (await session.send(request)).result()
            session.stop_recording()
            recording = session.recording
        assert recording is not None
        return recording, session

    recording, session = trio.run(record)
    runs = [(record.run, record.state) for record in recording if isinstance(record, RunChanged)]
    assert runs == [(1, "began"), (1, "ended"), (2, "began"), (2, "ended")]
    asked = {record.run for record in recording if isinstance(record, CallBegan) and "GetSecret" in record.method}
    assert asked == {1, 2}
    snapshots = [session.snapshot_at(run) for run in range(4)]
    assert [snapshot and snapshot.runs for snapshot in snapshots] == [None, 1, 2, None]
    assert SECRET.encode() not in _bodies(recording)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mobysession", *arguments], capture_output=True, text=True, timeout=120
    )

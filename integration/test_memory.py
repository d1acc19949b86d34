"""What is remembered, on real engines: builds go to the active daemon, and other processes see a session."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import trio

from integration.contexts import make_context
from mobysession import Endpoint, Session, SessionError, announced
from mobysession.session.local import open_local_session
from mobysession.state.sessions import SessionDirectory
from mobysession.state.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine


def _mobysession(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mobysession", *arguments], capture_output=True, text=True, timeout=60)


def test_a_build_goes_to_the_active_daemon(engine: Engine, tmp_path: Path) -> None:
    """Where nothing names a daemon, a build takes the one that is used, and shows progress as is remembered of it."""
    context = make_context(tmp_path / "context", "FROM mobysession-base\nRUN echo remembered\n")
    assert _mobysession("daemons", "add", engine.host, "--use", "--view", "plain").returncode == 0
    built = _mobysession("build", "--no-cache", str(context))
    assert built.returncode == 0, built.stderr
    assert "remembered" in built.stderr
    assert _mobysession("daemons", "add", engine.host, "--view", "quiet").returncode == 0
    built = _mobysession("build", "--no-cache", str(context))
    assert built.stdout.startswith("sha256:")
    assert "remembered" not in built.stderr


def test_a_session_is_seen_watched_and_ended_by_another_process(engine: Engine) -> None:
    """The command line of another process lists a session and ends it; who watches sees the engine's calls."""
    told: list[str] = []
    heard: list[Any] = []

    async def hold() -> None:
        session = Session(Endpoint.parse(engine.host))
        async with announced(session), session.attach(), trio.open_nursery() as nursery:
            nursery.start_soon(look_on, session.id)
            await trio.sleep_forever()

    async def look_on(session_id: str) -> None:
        async with open_store() as store:
            found = await SessionDirectory(store).find(session_id)
        assert found is not None
        (listed,) = json.loads((await trio.to_thread.run_sync(_mobysession, "sessions", "ls", "--json")).stdout)
        assert (listed["session_id"], listed["endpoint"]) == (session_id, engine.host)
        async with open_local_session(found) as seen:
            assert (await seen.inspect())["status"] == "ready"
            async for event in seen.events():
                heard.append(event["event"])
                if event["event"] == "CallEnded":
                    ended = await trio.to_thread.run_sync(
                        _mobysession, "sessions", "abort", session_id, "--reason", "seen enough"
                    )
                    assert ended.returncode == 0, ended.stderr

    try:
        trio.run(hold)
    except* SessionError as group:
        told.extend(str(error) for error in group.exceptions)
    assert heard[:2] == ["CallStarted", "CallEnded"]
    assert len(told) == 1
    assert told[0].endswith("was ended by another process: seen enough")

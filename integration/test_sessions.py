"""Managed sessions on real engines: lost in every way and resumed, many at once, builds, approvals, interruptions."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio

from integration.contexts import make_context
from integration.relays import open_relay
from integration.test_interrupts import Sleeper
from mobysession.build import as_request
from mobysession.errors import BuildFailed, RunInterrupted, SessionAlive, SessionLost
from mobysession.services.secrets import Secrets
from mobysession.session.managed import ApprovalAsked, SessionConfig, SessionManager
from mobysession.testing.base_image import import_base_image
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine, EngineSpec
    from mobysession.session.managed import ManagedSession

SECRET = b"correct horse"
DOCKERFILE = """\
FROM mobysession-base
COPY . /files
RUN --mount=type=secret,id=token,required=true test "$(cat /run/secrets/token)" = "correct horse"
"""
LET_GO = 12.0
"""Seconds within which an engine lets go of a session that was lost: its health check's interval, and room for a loaded
machine."""


def _manager(host: str, **options: Any) -> SessionManager:
    return SessionManager(SessionConfig(endpoint=Endpoint.parse(host), **options))


def _context(folder: Path) -> Path:
    return make_context(folder / "context", DOCKERFILE, {"hello.txt": "hello"})


def test_a_session_is_resumed_after_its_connection_was_cut(engine: Engine, tmp_path: Path) -> None:
    """The cut ends the session; under the same ID and key a build runs on the one that is attached anew."""
    context = _context(tmp_path)

    async def lose_and_resume() -> float:
        with trio.CancelScope() as cut:
            async with (
                open_relay(engine.socket) as port,
                _manager(f"tcp://127.0.0.1:{port}").session([], shared_key="key") as session,
            ):
                await (await session.send(_nothing)).result()
                cut.cancel()
        began = trio.current_time()
        async with _manager(engine.host).resume(session.snapshot(), []) as resumed:
            took = trio.current_time() - began
            assert (resumed.id, resumed.current_run, resumed.bare.shared_key) == (session.id, 1, "key")
            request = as_request(context, secrets={"token": SECRET}, no_cache=True)
            result = await (await resumed.send(request)).result()
            assert result.image_id
            assert resumed.current_run == 2
        return took

    took = trio.run(lose_and_resume)
    print(f"{engine.id} let go of a cut session after {took:.1f} s")
    assert took < LET_GO


def test_the_loss_of_a_connection_is_told(engine: Engine) -> None:
    """A run on a session whose connection is cut ends with the loss, and so does the session."""

    async def lose() -> None:
        async with trio.open_nursery() as nursery:
            cut = await nursery.start(_relay, engine.socket)
            async with _manager(f"tcp://127.0.0.1:{cut[1]}").session([]) as session:
                handle = await session.send(_forever)
                cut[0].cancel()
                with trio.fail_after(LET_GO), pytest.raises(SessionLost):
                    await handle.result()
                assert session.status == "failed"

    trio.run(lose)


async def _relay(socket: Path, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    with trio.CancelScope() as scope:
        async with open_relay(socket) as port:
            task_status.started((scope, port))
            await trio.sleep_forever()


async def _nothing(session: ManagedSession) -> None:
    return None


async def _forever(session: ManagedSession) -> None:
    await trio.sleep_forever()


_HOLD = """
import sys, trio
from mobysession.services.secrets import Secrets
from mobysession.session.managed import SessionConfig, SessionManager
from mobysession.transport.endpoint import Endpoint

async def nothing(session):
    return None

async def main():
    async with SessionManager(SessionConfig(endpoint=Endpoint.parse(sys.argv[1]))) as manager:
        async with manager.session([], shared_key="the key", metadata={"made": "elsewhere"}) as session:
            await (await session.send(nothing)).result()
            await trio.sleep(0.5)
            print(session.id, flush=True)
            await trio.sleep_forever()

trio.run(main)
"""


def test_a_session_is_resumed_after_its_process_was_killed(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the process lives it is refused; once it was killed, its ID is enough for another process to go on."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    context = _context(tmp_path)
    with subprocess.Popen([sys.executable, "-c", _HOLD, engine.host], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 60)[0]
            session_id = process.stdout.readline().strip()

            async def refused() -> None:
                with pytest.raises(SessionAlive) as caught:
                    async with _manager(engine.host).resume(session_id, []):
                        pytest.fail("resumed")
                assert caught.value.pid == process.pid

            trio.run(refused)
        finally:
            process.send_signal(signal.SIGKILL)

    async def resume() -> float:
        began = trio.current_time()
        async with _manager(engine.host).resume(session_id, []) as session:
            took = trio.current_time() - began
            assert (session.metadata, session.bare.shared_key) == ({"made": "elsewhere"}, "the key")
            assert session.current_run == 1
            await (await session.send(as_request(context, secrets={"token": SECRET}))).result()
        return took

    took = trio.run(resume)
    print(f"{engine.id} let go of a killed process's session after {took:.1f} s")
    assert took < LET_GO


def test_a_session_is_resumed_after_the_engine_was_restarted(
    engine_spec: EngineSpec, tmp_path: Path, short_path: Path
) -> None:
    """The engine's end is the session's; the one that is started in its place takes the same ID, and builds."""
    context = _context(tmp_path)
    options: dict[str, Any] = {"state_dir": short_path / "e", "data_root": tmp_path / "data"}
    engine = engine_spec.private_engine(**options, stop_timeout=1)
    engine.start()
    try:
        snapshot = trio.run(_lose_the_engine, engine)
    finally:
        engine.stop()
    with engine_spec.private_engine(**options) as restarted:
        import_base_image(restarted.host)

        async def resume() -> None:
            async with _manager(restarted.host).resume(snapshot, []) as session:
                assert session.id == snapshot.session_id
                await (await session.send(as_request(context, secrets={"token": SECRET}))).result()

        trio.run(resume)


async def _lose_the_engine(engine: Any) -> Any:
    async with _manager(engine.host).session([]) as session:
        handle = await session.send(_forever)
        await trio.to_thread.run_sync(engine.stop)
        with trio.fail_after(LET_GO), pytest.raises(SessionLost):
            await handle.result()
        return session.snapshot()


def test_two_hundred_sessions_at_once(engine: Engine) -> None:
    """They are all attached side by side, live through health checks, answer calls of this side, and end."""

    async def hold(manager: SessionManager, all_ready: trio.Event, go_on: trio.Event) -> None:
        async with manager.session([Secrets({"token": SECRET})]) as session:
            if manager.counters.opened == 200:
                all_ready.set()
            await go_on.wait()
            assert (await session.dispatch("GetSecret", {"ID": "token"})).data == SECRET
            assert session.status == "ready"

    async def many() -> tuple[float, SessionManager]:
        manager = _manager(engine.host)
        all_ready, go_on = trio.Event(), trio.Event()
        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(hold, manager, all_ready, go_on)
            with trio.fail_after(60):
                await all_ready.wait()
            took = time.monotonic() - began
            assert manager.counters.active == 200
            # An engine asks each of them every 1 to 5 seconds.
            await trio.sleep(6)
            checks = sum(count for name, count in manager.counters.callbacks.items() if "health" in name.lower())
            assert checks >= 200
            go_on.set()
        return took, manager

    took, manager = trio.run(many)
    print(f"{engine.id}: 200 sessions were ready after {took:.1f} s")
    assert (manager.counters.active, manager.counters.opened, manager.counters.failed) == (0, 200, 0)


def test_approvals_in_a_real_build(engine: Engine, tmp_path: Path) -> None:
    """The engine's request for a secret waits until it is granted; refused, the build fails over it."""
    context = _context(tmp_path)

    async def build(approved: bool) -> list[str]:
        asked: list[str] = []
        manager = _manager(engine.host, approval="channel")
        async with manager.create([]) as session:

            def decide(told: object) -> None:
                if isinstance(told, ApprovalAsked):
                    asked.append(str(told.request))
                    session.submit_approval(told.call_id, approved or "secret" not in str(told.request))

            session.channel("approvals").on(decide)
            await (await session.send(as_request(context, secrets={"token": SECRET}, no_cache=True))).result()
        return asked

    assert "secret token" in trio.run(build, True)
    with pytest.raises(BuildFailed):
        trio.run(build, False)


def test_builds_of_one_session_see_their_own_files(engine: Engine, tmp_path: Path) -> None:
    """A directory that has changed between two builds of a session, and another one, are read anew."""
    checked = "FROM mobysession-base\nCOPY . /files\nRUN test $(cat /files/number) = {}\n"

    async def build() -> None:
        async with _manager(engine.host).create([], wait_ready=True) as session:
            for number in range(3):
                folder = tmp_path / ("even" if number % 2 == 0 else "odd")
                context = make_context(folder, checked.format(number), {"number": str(number)})
                await (await session.send(as_request(context))).result()

    trio.run(build)


def test_run_once_builds(engine: Engine, tmp_path: Path) -> None:
    """One build in a session of its own, with the options that it was given."""
    context = _context(tmp_path)
    request = as_request(context, secrets={"token": SECRET}, tags=["mobysession-run-once"])

    async def build() -> Any:
        return await _manager(engine.host).run_once(request)

    result = trio.run(build)
    assert result.image_id.startswith("sha256:")
    assert result.tags == ("mobysession-run-once",)


def test_interrupting_aborts_the_build_on_the_engine(engine: Engine, tmp_path: Path) -> None:
    """The step's process is ended by the engine, the handle says why, and the session builds again."""
    sleeper = Sleeper(tmp_path)
    context = _context(tmp_path)

    async def interrupt() -> int:
        async with _manager(engine.host).create([]) as session:
            handle = await session.send(as_request(sleeper.context))
            async for event in handle:
                if event.kind == "build_status" and sleeper.has_begun(event.data):
                    break
            process = sleeper.process()
            await session.interrupt(as_request(context, secrets={"token": SECRET}), reason="changed my mind")
            with trio.fail_after(10), pytest.raises(RunInterrupted, match="changed my mind"):
                await handle.result()
            session.clear_abort()
            assert (await (await session.run()).result()).image_id
        return process

    process = trio.run(interrupt)
    try:
        assert select.select([process], [], [], 5.0)[0] == [process]
    finally:
        os.close(process)

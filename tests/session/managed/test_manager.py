"""Making, resuming and knowing sessions."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import Any

import pytest
import trio

import mobysession
from mobysession.errors import (
    ConnectError,
    SessionAlive,
    SessionIdInUse,
    SessionLost,
    SessionOver,
    UpgradeRefused,
    UsageError,
)
from mobysession.services.secrets import Secrets
from mobysession.session.managed import (
    EventsMissed,
    SessionClosed,
    SessionConfig,
    SessionCreated,
    SessionFailed,
    SessionIdResolved,
    SessionManager,
    SessionSnapshot,
)
from mobysession.session.managed.ambient import LOGGERS
from mobysession.session.session import open_session
from mobysession.testing import FakeDaemon, Faults, Refusal


async def nothing(session):
    return None


async def endless(session):
    await trio.sleep_forever()


async def test_services_have_to_be_chosen(managed):
    """Without them no session is made, whichever way; an empty list is a choice."""
    async with managed() as (manager, daemon):
        for making in (manager.create(), manager.session(), manager.resume("x")):
            with pytest.raises(UsageError, match="no services were chosen"):
                async with making:
                    pytest.fail("made")
        with pytest.raises(UsageError, match="no services were chosen"):
            await manager.run_once(nothing)
        async with manager.create([]):
            assert len(manager.sessions) == 1
        assert (daemon.sessions, manager.sessions) == ({}, {})


async def test_a_session_is_attached_when_it_is_needed(managed):
    """Not when it is made; by `mount`, once; and at once where that is asked for."""
    async with managed() as (manager, daemon):
        async with manager.create([Secrets({"token": b"abc"})], name="n", shared_key="k") as session:
            assert (session.status, daemon.sessions) == ("opening", {})
            await session.mount()
            await session.mount()
            caller = await daemon.wait_session(session.id)
            assert (session.status, caller.name, caller.shared_key) == ("ready", "n", "k")
            assert await caller.get_secret("token") == b"abc"
        assert session.status == "closed"
        async with manager.create([], wait_ready=True) as session:
            assert session.status == "ready"
        async with manager.session([]) as session:
            assert session.status == "ready"


async def test_an_id_is_confirmed_when_the_daemon_has_spoken(managed):
    """`session_id` waits for the daemon's first bytes, and attaches for them."""
    async with managed() as (manager, daemon), manager.create([], session_id="mine") as session:
        assert await session.session_id() == "mine"
        assert "mine" in daemon.sessions
        assert await session.session_id() == "mine"


async def test_info_says_what_is_known(managed):
    """ID, status, times, endpoint, options; labels never change."""
    async with managed() as (manager, _):
        async with manager.create([], metadata={"team": "a"}, options={"pull": True}) as session:
            info = session.info
            assert (info.session_id, info.status, info.resumed_from) == (session.id, "opening", None)
            assert (info.endpoint, info.options) == ("a dialer", {"pull": True})
            assert 0 <= info.age < 60
            assert session.metadata == {"team": "a"}
            with pytest.raises(TypeError):
                session.metadata["team"] = "b"
            assert (session.parent, session.parent_session_id, session.children) == (None, None, [])
        async with manager.create([], parent_session_id="far away") as session:
            assert (session.parent, session.parent_session_id) == (None, "far away")


async def test_run_once_has_a_session_of_its_own(managed):
    """One request, its result, and the session is over."""

    async def ask(session):
        caller = await daemon.wait_session(session.id)
        return await caller.get_secret("token")

    async with managed() as (manager, daemon):
        assert await manager.run_once(ask, [Secrets({"token": b"abc"})]) == b"abc"
        assert manager.counters.active == 0
        with pytest.raises(ZeroDivisionError):
            await manager.run_once(lambda session: 1 / 0, [])


async def test_a_session_that_cannot_be_opened_has_failed(managed):
    """The reason is raised where it was needed, kept, told, and ends a run; another session does not notice."""
    async with managed() as (manager, daemon), manager.create([], wait_ready=True) as other:
        daemon.faults = Faults(refusal=Refusal(403, "denied by plugin"))
        async with manager.create([]) as session:
            with pytest.raises(UpgradeRefused, match="denied by plugin"):
                await session.mount()
            assert (session.status, session.is_terminal) == ("failed", True)
            assert isinstance(session.failure, UpgradeRefused)
            with pytest.raises(SessionOver, match="denied by plugin"):
                await session.send(nothing)
        async with manager.create([]) as session:
            with pytest.raises(UpgradeRefused):
                await (await session.send(nothing)).result()
        assert (other.status, manager.counters.failed) == ("ready", 2)


async def test_a_lost_session_ends_its_run_and_not_its_block(managed):
    """The run fails with the loss, the block goes on, and the session is over."""
    async with managed() as (manager, daemon):
        async with manager.create([]) as session:
            handle = await session.send(endless)
            events = session.events(until="session")
            await daemon.wait_session(session.id)
            daemon.kill()
            with pytest.raises(SessionLost):
                await handle.result()
            assert (session.status, type(session.failure)) == ("failed", SessionLost)
            kinds = [event.kind async for event in events]
            assert kinds[-1] == "scheduler"
            assert "run_ended" in kinds
        assert session.status == "failed"


async def test_the_registry_tells(managed):
    """Made, confirmed, closed and failed are told in order to everybody who listens, and to nobody at no cost."""
    async with managed() as (manager, daemon):
        async with manager.events() as first, manager.events() as second:
            async with manager.create([], session_id="a") as session:
                await session.mount()
            daemon.faults = Faults(refusal=Refusal(403))
            async with manager.create([], session_id="b") as session:
                with pytest.raises(UpgradeRefused):
                    await session.mount()
            expected = [
                SessionCreated(session_id="a"),
                SessionIdResolved(session_id="a"),
                SessionClosed(session_id="a"),
                SessionCreated(session_id="b"),
                SessionFailed(session_id="b", error=session.failure),
            ]
            for subscriber in (first, second):
                assert [await anext(subscriber) for _ in expected] == expected
        assert manager._registry._subscriptions == []


async def test_a_slow_subscriber_is_told_what_it_missed(managed, monkeypatch):
    """It misses what is over its bound, learns how many, and holds up nobody."""
    async with managed() as (manager, _), manager.events() as slow:
        slow._capacity = 2
        for name in ("a", "b", "c"):
            async with manager.create([], session_id=name):
                pass
        told = [await anext(slow) for _ in range(3)]
        assert told == [SessionCreated(session_id="a"), SessionClosed(session_id="a"), EventsMissed(number=4)]
        async with manager.create([], session_id="d"):
            assert await anext(slow) == SessionCreated(session_id="d")


async def test_the_counters_count(managed):
    """Sessions that live, were opened and failed, calls by method, bytes, runs and durations."""
    async with managed() as (manager, daemon):
        async with manager.session([Secrets({"token": b"abc"})]) as session, manager.create([]):
            caller = await daemon.wait_session(session.id)
            await caller.get_secret("token")
            await (await session.send(nothing)).result()
            counters = manager.counters
            assert (counters.active, counters.opened, counters.failed, counters.runs) == (2, 1, 0, 1)
            assert counters.callbacks == {"/moby.buildkit.secrets.v1.Secrets/GetSecret": 1}
            assert (counters.bytes_received, counters.bytes_sent) == (7, 5)
            assert counters.seconds == 0
        assert (manager.counters.active, manager.counters.seconds > 0) == (0, True)


async def test_log_records_have_the_sessions_id(managed, caplog):
    """Whoever logs inside of a session need not say on which; outside of any it is empty."""
    caplog.set_level(logging.DEBUG, "mobysession")
    async with managed() as (manager, daemon), manager.create([Secrets({})]) as session:
        await session.mount()
        caller = await daemon.wait_session(session.id)
        caplog.clear()
        await caller.health()
        served = [record for record in caplog.records if "Health/Check" in record.getMessage()]
        assert {record.session_id for record in served} == {session.id}
    caplog.clear()
    logging.getLogger("mobysession.transport").warning("outside")
    assert [record.session_id for record in caplog.records] == [""]


def test_everybody_who_logs_is_known():
    """The loggers whose records get the ID are those that there are in the code."""
    package = Path(mobysession.__file__).parent
    named = re.compile(r'getLogger\("(mobysession\.[\w.]+)"\)')
    used = {name for path in package.rglob("*.py") for name in named.findall(path.read_text("utf-8"))}
    assert used - set(LOGGERS) == set()


async def test_resuming_waits_until_the_daemon_has_let_go(managed, autojump_clock):
    """The same ID and key are attached again once the old one's health check has failed; the state goes on."""
    async with managed() as (manager, daemon):
        async with manager.session([], shared_key="key", metadata={"a": "b"}, options={"pull": True}) as session:
            await (await session.send(nothing)).result()
            snapshot = session.snapshot()
        began = trio.current_time()
        async with manager.resume(SessionSnapshot.from_json(snapshot.to_json()), []) as resumed:
            assert 4 < trio.current_time() - began < 6
            assert (resumed.id, resumed.status) == (session.id, "ready")
            assert daemon.sessions[resumed.id].shared_key == "key"
            assert (resumed.metadata, resumed.options) == ({"a": "b"}, {"pull": True})
            assert (resumed.current_run, resumed.info.resumed_from) == (1, session.id)
            assert resumed.created_at == session.created_at
            handle = await resumed.send(nothing)
            assert handle.number == 2
            assert resumed.snapshot().sequence > snapshot.sequence


async def test_resuming_is_bounded(managed, autojump_clock):
    """An ID that the daemon never lets go of is given up after the time that was allowed; a new session asks once."""
    async with managed(resume_timeout=3.0) as (manager, daemon):
        daemon.faults = Faults(id_taken=True)
        began = trio.current_time()
        with pytest.raises(SessionIdInUse):
            async with manager.resume("stuck", []):
                pytest.fail("resumed")
        assert 2.5 < trio.current_time() - began <= 3.0
        requests = len(daemon.requests)
        with pytest.raises(SessionIdInUse):
            async with manager.session([], session_id="stuck"):
                pytest.fail("made")
        assert len(daemon.requests) == requests + 1


async def test_what_lives_is_not_resumed(managed, autojump_clock):
    """While the old one lives it is refused, by whatever manager; once it was lost it is resumed, inside its block."""
    async with managed() as (manager, daemon), manager.session([]) as session:
        other = SessionManager(manager.config)
        with pytest.raises(SessionAlive, match=session.id):
            async with other.resume(session.snapshot(), []):
                pytest.fail("resumed")
        with pytest.raises(SessionAlive):
            async with manager.create([], session_id=session.id):
                pytest.fail("made")
        daemon.kill()
        await trio.testing.wait_all_tasks_blocked()
        assert session.status == "failed"
        async with other.resume(session.snapshot(), []) as resumed:
            assert resumed.status == "ready"
            with pytest.raises(SessionAlive):
                async with manager.resume(session.id, []):
                    pytest.fail("resumed")


async def test_a_child_that_lives_is_not_resumed(managed):
    """Of any generation, though no registry has it, and by no manager."""

    async def resume(session):
        async with SessionManager(session.origin.config).resume(session.snapshot(), []):
            pytest.fail("resumed")

    async def spawn(session):
        return await (await session.spawn(resume)).result()

    async with managed() as (manager, _), manager.create([]) as session:
        with pytest.raises(SessionAlive, match="lives in this process"):
            await (await session.spawn(spawn)).result()


async def test_the_default_is_one_for_the_process(monkeypatch):
    """It is made once, of what the environment says."""
    monkeypatch.setattr("mobysession.session.managed.manager._default", None)
    async with FakeDaemon.listen() as daemon:
        monkeypatch.setenv("MOBYSESSION_HOST", daemon.host)
        manager = SessionManager.default()
        assert SessionManager.default() is manager
        async with manager.session([]) as session:
            assert session.id in daemon.sessions
            assert "MOBYSESSION_HOST" in session.info.endpoint


async def test_overrides_are_for_one_session(managed):
    """A session may have another endpoint than the others; what does not exist is named."""
    async with managed() as (manager, _), FakeDaemon.listen() as other:
        async with manager.session([], dialer=None, endpoint=other.endpoint) as session:
            assert session.id in other.sessions
        with pytest.raises(UsageError, match="no option 'endpiont'"):
            async with manager.create([], endpiont=other.endpoint):
                pytest.fail("made")
        with pytest.raises(UsageError, match="a dialer is a way to the daemon already"):
            async with manager.create([], endpoint=other.endpoint):
                pytest.fail("made")


async def test_without_a_dialer_the_environment_says_where(monkeypatch):
    """An endpoint that is not there is told when the session is attached."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(ConnectError, match="DOCKER_HOST"):
        async with SessionManager().session([]):
            pytest.fail("made")


async def test_a_program_may_connect(tmp_path):
    """A dial command's stdin and stdout are the connection to the daemon."""
    script = (
        "import os, socket, sys, threading\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(os.environ['WHERE'])\n"
        "def up():\n"
        "    while data := os.read(0, 65536): s.sendall(data)\n"
        "    s.shutdown(socket.SHUT_WR)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536): os.write(1, data)\n"
    )
    import sys

    async with FakeDaemon.listen() as daemon:
        config = SessionConfig(
            dial_command=sys.executable, dial_args=("-c", script), dial_env={"WHERE": daemon.host[len("unix://") :]}
        )
        async with SessionManager(config).session([]) as session:
            assert session.id in daemon.sessions
            assert session.info.endpoint == sys.executable


async def test_managers_share_nothing_but_the_process(managed):
    """Sessions on different daemons live side by side; the end of one daemon is the end of its own only."""
    async with (
        managed() as (one, here),
        managed() as (two, there),
        one.session([]) as mine,
        two.session([]) as yours,
    ):
        here.kill()
        await trio.testing.wait_all_tasks_blocked()
        assert (mine.status, yours.status) == ("failed", "ready")
        await there.sessions[yours.id].health()


WRONG_FIELDS: dict[str, list[Any]] = {
    "session_id": ["", None, 5],
    "runs": ["1", -1, 1.5, True],
    "metadata": [None, [], {"a": 1}, {1: "a"}],
    "options": [None, "x"],
    "created_at": ["x", math.nan, None],
    "shared_key": [None],
    "name": [None],
    "sequence": [None],
    "parent_session_id": [5],
    "more": [1],
}
WRONG_SNAPSHOTS: list[Any] = [
    *([], None, "x", {}),
    *({"session_id": "x", name: value} for name, values in WRONG_FIELDS.items() for value in values),
]


@pytest.mark.parametrize("wrong", WRONG_SNAPSHOTS)
def test_what_is_no_snapshot_is_refused(wrong):
    """At once, and not when the session is to go on."""
    with pytest.raises(UsageError, match="snapshot of a session"):
        SessionSnapshot.from_json(wrong)


async def test_an_endpoint_is_no_text(managed):
    """An address as text is refused with what makes an endpoint of it, for sessions, children and the bare thing."""
    text: Any = "unix:///x"
    async with managed() as (manager, _), manager.create([]) as session:
        for making in (
            lambda: session.spawn(nothing, endpoint="unix:///x"),
            lambda: manager.create([], endpoint="unix:///x").__aenter__(),
            lambda: open_session(text).__aenter__(),
        ):
            with pytest.raises(UsageError) as caught:
                await making()
            assert "Endpoint.parse(" in (caught.value.hint or "")

"""Builds on managed sessions."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from mobysession.build import BuildResult, as_request
from mobysession.errors import BuildFailed, RunInterrupted, UsageError
from mobysession.services.auth import Auth
from mobysession.services.secrets import Secrets
from mobysession.session.managed import SessionConfig, SessionManager
from mobysession.testing import FakeDaemon


@pytest.fixture
def context(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY . /x\n")
    (tmp_path / "hello.txt").write_text("hello")
    return tmp_path


async def test_builds_are_runs_of_a_session(context, docker_config):
    """Each has an ID of its own, so that the engine reads its directory anew; what happens is the session's event."""
    async with FakeDaemon.listen() as daemon:
        manager = SessionManager(SessionConfig(endpoint=daemon.endpoint))
        async with manager.create([]) as session:
            statuses: list[Any] = []
            calls: list[Any] = []
            session.on("build_status", statuses.append)
            session.on("call_ended", lambda event: calls.append(event.data))
            await session.queue(as_request(context, tags=["one"]))
            handle = await session.send(as_request(context, tags=["two"]))
            assert (await handle.result()).tags == ("two",)
            ids = {result.session_id for result in handle.results}
            assert len(ids | {session.id}) == 3
            assert all(isinstance(result, BuildResult) for result in handle.results)
            assert statuses
            assert {event.run for event in statuses} == {1}
            assert {call.session_id for call in calls} == ids
            assert session.inspect().totals["calls"] == len(calls)
            assert {caller.name for caller in daemon.ended if caller.id in ids} <= {context.name}
            assert session.status == "idle"


async def test_the_options_of_a_run_go_over_those_of_a_build(context, docker_config):
    """They reach the build that is begun with them; one that does not exist is named."""
    async with FakeDaemon.listen() as daemon:
        manager = SessionManager(SessionConfig(endpoint=daemon.endpoint))
        async with manager.create([]) as session:
            request = as_request(context, tags=["mine"])
            assert (await (await session.send(request, tags=["other"])).result()).tags == ("other",)
            assert (await (await session.send(request)).result()).tags == ("mine",)
            with pytest.raises(UsageError, match="no option 'tagz'"):
                await (await session.send(request, tagz=[])).result()


async def test_a_build_has_what_the_session_has(tmp_path, docker_config):
    """Its own secrets take the place of the session's; without any it has those, and the session's logins too."""
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=secret,id=token cat /run/secrets/token\n")
    asked: list[str] = []
    given: list[str] = []

    def giving(who: str, value: bytes) -> Any:
        def give() -> bytes:
            given.append(who)
            return value

        return give

    def login(host):
        asked.append(host)
        return ("robot", "password")

    async with FakeDaemon.listen() as daemon:
        manager = SessionManager(SessionConfig(endpoint=daemon.endpoint))
        services: list[Any] = [Secrets({"token": giving("session", b"1")}), Auth(login, tokens=False)]
        async with manager.create(services) as session:
            request = as_request(tmp_path, secrets={"token": giving("build", b"2")})
            await (await session.send(request)).result()
            await (await session.send(as_request(tmp_path))).result()
            assert given == ["build", "session"]
            companion = session.companion(name="n", shared_key="k")
            async with companion.attach():
                caller = await daemon.wait_session(companion.id)
                assert (caller.name, caller.shared_key) == ("n", "k")
                assert await caller.credentials("registry.example") == ("robot", "password")
    assert asked == ["registry.example"]


async def test_what_the_session_decides_is_refused(context):
    """Access, attach and tracing belong to the session; a session to a dialer cannot be built on."""
    with pytest.raises(UsageError, match="attach is decided by the session"):
        as_request(context, attach="tunnel")
    slip: dict[str, Any] = {"tag": "a"}
    with pytest.raises(UsageError, match="no option 'tag'"):
        as_request(context, **slip)
    async with FakeDaemon() as daemon:
        manager = SessionManager(SessionConfig(dialer=daemon.dialer))
        with pytest.raises(UsageError, match="needs a session to an endpoint"):
            await manager.run_once(as_request(context))


async def test_run_once_builds(context, docker_config):
    """A build needs no services to be chosen: it brings its own."""
    async with FakeDaemon.listen() as daemon:
        manager = SessionManager(SessionConfig(endpoint=daemon.endpoint))
        result = await manager.run_once(as_request(context, tags=["once"]))
        assert result.tags == ("once",)
        (context / "Dockerfile").write_text("FRM busybox\n")
        with pytest.raises(BuildFailed):
            await manager.run_once(as_request(context))


async def test_interrupting_cancels_the_build(context, docker_config):
    """The solve is cancelled on the daemon, and the session can build again."""
    cancelled = trio.Event()

    async def hang(solve):
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with FakeDaemon.listen(script=hang) as daemon:
        manager = SessionManager(SessionConfig(endpoint=daemon.endpoint))
        async with manager.create([]) as session:
            handle = await session.send(as_request(context))
            async for event in handle:
                if event.kind == "session_ready":
                    break
            await session.interrupt(reason="enough")
            with pytest.raises(RunInterrupted, match="enough"):
                await handle.result()
            session.clear_abort()
            daemon.script = None
            await (await session.send(as_request(context, tags=["x"]))).result()


async def test_logins_of_the_configuration_are_those_of_builds(context, docker_config):
    """Where a build has none of its own, the session's configuration has them."""
    found: list[Any] = []

    async def ask(solve):
        caller = await daemon.wait_session(solve.request.Session)
        found.append(await caller.credentials("registry.example"))
        return {}

    async with FakeDaemon.listen(script=ask) as daemon:
        config = SessionConfig(endpoint=daemon.endpoint, credentials={"registry.example": ("robot", "one")})
        manager = SessionManager(config)
        await manager.run_once(as_request(context))
        await manager.run_once(as_request(context, credentials={"registry.example": ("ada", "two")}))
    assert found == [("robot", "one"), ("ada", "two")]

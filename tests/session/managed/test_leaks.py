"""Nothing is left of sessions that are over: no task, no object, no descriptor, no context."""

from __future__ import annotations

import gc
import weakref

import pytest
import trio
import trio.testing

from mobysession.errors import UsageError
from mobysession.services.secrets import Secrets
from mobysession.session.managed import current_session


@pytest.mark.slow
async def test_a_thousand_sessions_leave_nothing(managed):
    """Made and closed a thousand times, a tenth of them attached, called and run on: no task and no session is left."""

    async def ask(session):
        return session.current_run

    async with managed() as (manager, daemon):
        gone = []

        async def one(*, attached):
            async with manager.create([Secrets({"a": b"1"})], wait_ready=attached) as session:
                gone.append(weakref.ref(session))
                if attached:
                    caller = await daemon.wait_session(session.id)
                    await caller.get_secret("a")
                    assert await (await session.send(ask)).result() == 1
            # What the daemon keeps of a session until its next health check is the daemon's.
            daemon.kill()
            await trio.lowlevel.checkpoint()

        await one(attached=True)
        await trio.testing.wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        for number in range(999):
            await one(attached=number % 10 == 0)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        daemon.ended.clear()
        gc.collect()
        assert [ref() for ref in gone if ref() is not None] == []
        assert (manager.sessions, manager.counters.active, manager.counters.opened) == ({}, 0, 101)
        with pytest.raises(UsageError):
            current_session()


async def test_cancelling_at_any_point_ends_a_session(managed):
    """Cancelled at each of its checkpoints, from its making to its end, a session is over and its connection closed."""

    async def ask(session):
        await session.dispatch("GetSecret", {"ID": "a"})

    async with managed() as (manager, daemon):
        for steps in range(0, 120, 3):
            sessions = []
            with trio.CancelScope() as scope:

                async def cancel(scope=scope, steps=steps):
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel)
                    async with manager.create([Secrets({"a": b"1"})]) as session:
                        sessions.append(session)
                        await (await session.send(ask)).result()
            assert all(session.status == "closed" for session in sessions)
            assert manager.counters.active == 0
        for caller in list(daemon.sessions.values()):
            await caller.channel.closed.wait()

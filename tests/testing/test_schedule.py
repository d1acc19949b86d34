"""Health checks: when they come, and what a failure does."""

from __future__ import annotations

import pytest
import trio

from mobysession.errors import RpcError, StatusCode
from mobysession.session import open_session
from mobysession.testing import ENGINE_20_10, ENGINE_28, FakeDaemon, HealthSchedule


@pytest.mark.parametrize(("schedule", "interval"), [(ENGINE_20_10, 1), (ENGINE_28, 5)])
async def test_checks_come_once_an_interval(schedule, interval, autojump_clock):
    """The first check comes an interval after the opening, not earlier, and then one an interval."""
    async with FakeDaemon(health=schedule) as daemon, open_session(daemon.dialer) as session:
        caller = await daemon.wait_session(session.id)
        await trio.sleep(interval * 0.99)
        assert caller.health_checks == 0
        await trio.sleep(interval * 10)
        assert caller.health_checks == 10


async def test_a_failure_is_returned_and_ends_the_schedule(autojump_clock):
    """The third check fails: it is the last one."""
    calls = []

    async def check(timeout):
        calls.append(trio.current_time())
        if len(calls) == 3:
            raise RpcError(StatusCode.UNIMPLEMENTED, "no health here")

    failure = await HealthSchedule(interval=2).run(check)
    assert failure.code is StatusCode.UNIMPLEMENTED
    assert [later - calls[0] for later in calls] == [0, 2, 4]


async def test_checks_are_serial_and_slow_ones_earn_patience(autojump_clock):
    """Ticks that pass during a slow check are dropped; the next may take half as long again as that one took."""
    started = trio.current_time()
    seen = []

    async def check(timeout):
        seen.append((trio.current_time() - started, timeout))
        if len(seen) == 4:
            raise RpcError(StatusCode.CANCELLED)
        await trio.sleep(25 if len(seen) == 2 else 0)

    await HealthSchedule(interval=5, timeout=30).run(check)
    assert seen == [(5, 30), (10, 30), (40, 37.5), (45, 30)]


async def test_a_session_that_went_away_is_noticed_by_the_next_check(autojump_clock):
    """Between the end of a connection and the next check the session is registered still, as engines have it."""
    async with FakeDaemon() as daemon:
        async with open_session(daemon.dialer) as session:
            await daemon.wait_session(session.id)
            await trio.sleep(6)
        assert session.id in daemon.sessions
        started = trio.current_time()
        caller = await daemon.wait_ended(session.id)
        assert trio.current_time() - started == pytest.approx(4, abs=1)
        assert session.id not in daemon.sessions
        assert "healthcheck failed fatally" in caller.reason


async def test_a_client_that_never_speaks_is_dropped(autojump_clock):
    """A client that got its 101 and sends no SETTINGS is dropped after twenty seconds, as grpc-go drops it."""
    async with FakeDaemon() as daemon:
        stream = await daemon.dial()
        request = b"POST /session HTTP/1.1\r\nHost: d\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: mute\r\n\r\n"
        await stream.send_all(request)
        started = trio.current_time()
        caller = await daemon.wait_ended("mute")
        assert trio.current_time() - started == pytest.approx(20, abs=1)
        assert caller.reason

"""Cancelling at every step: whatever a session is doing, nothing of it is left."""

from __future__ import annotations

import functools
import os

import pytest
import trio
import trio.testing

from mobysession.errors import MobysessionError
from mobysession.services.secrets import Secrets
from mobysession.session import Session
from mobysession.testing import FakeDaemon

#: More steps than the scenario has; the test says so if it is not.
_MOST_STEPS = 600


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope after so many steps of any task."""

    def __init__(self, step: int) -> None:
        self.scope: trio.CancelScope | None = None
        self._remaining = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.scope is not None:
            self._remaining -= 1
            if self._remaining == 0:
                self.scope.cancel()


async def _scenario(session: Session, daemon: FakeDaemon) -> None:
    async with session.attach():
        caller = await daemon.wait_session(session.id)
        assert await caller.get_secret("token") == b"value"
        await session.ping()


async def _run(instrument: CancelAtStep, *, unix: bool) -> bool:
    """Return whether the scenario was cancelled; check what is left of it."""
    async with FakeDaemon.listen() if unix else FakeDaemon() as daemon:
        session = Session(daemon.endpoint if unix else daemon.dialer)
        session.allow(Secrets({"token": b"value"}))
        await trio.testing.wait_all_tasks_blocked()
        before = _living()
        with trio.CancelScope() as scope:
            instrument.scope = scope
            await _scenario(session, daemon)
        instrument.scope = None
        assert session.attachment is None
        assert session.settings == {}
        # The daemon's own half stays until its next health check, unless it is told.
        daemon.kill()
        await trio.testing.wait_all_tasks_blocked()
        assert _living() == before
        return scope.cancelled_caught


def _living() -> tuple[int, int]:
    """Return how many tasks and descriptors there are."""
    return trio.lowlevel.current_statistics().tasks_living, len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("unix", [False, True], ids=["memory", "unix"])
def test_cancelling_at_any_step_leaves_nothing(unix):
    """From the first step of attaching to the last of detaching, a cancelled session leaves no task, no descriptor."""
    for step in range(1, _MOST_STEPS, 3 if unix else 1):
        instrument = CancelAtStep(step)
        cancelled = trio.run(functools.partial(_run, instrument, unix=unix), instruments=[instrument])
        if not cancelled:
            break
    else:
        pytest.fail("the scenario is longer than the test thinks")
    assert step > 20


@pytest.mark.parametrize("step", range(1, 120, 7))
def test_a_daemon_that_dies_at_any_step_is_one_typed_error(step):
    """Whenever the daemon goes away, what comes out is a single error of ours, and nothing is left."""
    instrument = CancelAtStep(step)

    async def main() -> None:
        async with FakeDaemon() as daemon:
            session = Session(daemon.dialer)
            session.allow(Secrets({"token": b"value"}))

            class Killer:
                def cancel(self) -> None:
                    daemon.kill()

            instrument.scope = Killer()  # type: ignore[assignment]  # all that is asked of it is cancel()
            try:
                await _scenario(session, daemon)
            except MobysessionError:
                assert session.attachment is None
            instrument.scope = None

    trio.run(main, instruments=[instrument])

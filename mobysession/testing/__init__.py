"""Doubles for tests, of users as of ours: a fake daemon that speaks the daemon's half, its faults, pytest fixtures.

::

    from mobysession.session import open_session
    from mobysession.services.secrets import Secrets
    from mobysession.testing import FakeDaemon

    async def test_the_token_is_served():
        async with FakeDaemon() as daemon, open_session(daemon.dialer, Secrets({"token": b"abc"})) as session:
            caller = await daemon.wait_session(session.id)
            assert await caller.get_secret("token") == b"abc"

Names load on first use: pytest imports this package in every run of whoever has mobysession installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobysession.testing.blocking import BlockingFakeDaemon
    from mobysession.testing.caller import FakeCaller
    from mobysession.testing.fake_daemon import FakeDaemon
    from mobysession.testing.faults import Faults, Refusal
    from mobysession.testing.replayer import ReplayDaemon, ReplayedCall, ReplayReport, replay
    from mobysession.testing.schedule import ENGINE_20_10, ENGINE_28, HealthSchedule
    from mobysession.testing.script import FakeSolve, dockerfile_build
    from mobysession.testing.tree_receiver import ReceivedEntry, ReceivedTree

__all__ = [
    "BlockingFakeDaemon",
    "dockerfile_build",
    "ENGINE_20_10",
    "ENGINE_28",
    "FakeCaller",
    "FakeDaemon",
    "FakeSolve",
    "Faults",
    "HealthSchedule",
    "ReceivedEntry",
    "ReceivedTree",
    "Refusal",
    "ReplayDaemon",
    "ReplayedCall",
    "ReplayReport",
    "replay",
]

_HOMES = {
    "BlockingFakeDaemon": "blocking",
    "dockerfile_build": "script",
    "ENGINE_20_10": "schedule",
    "ENGINE_28": "schedule",
    "FakeCaller": "caller",
    "FakeDaemon": "fake_daemon",
    "FakeSolve": "script",
    "Faults": "faults",
    "HealthSchedule": "schedule",
    "ReceivedEntry": "tree_receiver",
    "ReceivedTree": "tree_receiver",
    "Refusal": "faults",
    "ReplayDaemon": "replayer",
    "ReplayedCall": "replayer",
    "ReplayReport": "replayer",
    "replay": "replayer",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

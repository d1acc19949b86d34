"""``mobysession sessions``: the sessions of other processes, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from mobysession.state.location import state_path
from mobysession.testing import BlockingFakeDaemon, HealthSchedule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Cli, Spawned

PROGRAM = """
import sys, trio
from mobysession import Session, SessionError
from mobysession.session.announced import announced
from mobysession.transport.endpoint import Endpoint

async def main():
    sessions = [Session(Endpoint(sys.argv[1]), session_id=name) for name in sys.argv[2:]]
    async with trio.open_nursery() as nursery:
        for session in sessions:
            await nursery.start(hold, session)
        print("ready", flush=True)

async def hold(session, task_status):
    try:
        async with announced(session), session.attach():
            task_status.started()
            await trio.sleep_forever()
    except SessionError as error:
        print(error, flush=True)

trio.run(main)
"""


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """Give a process that holds the sessions ``alpha`` and ``alphabet``."""
    with BlockingFakeDaemon(health=HealthSchedule(interval=0.1)) as daemon:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, daemon.host, "alpha", "alphabet"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()
            process.communicate()


def ids(cli: Cli) -> list[str]:
    return [one["session_id"] for one in json.loads(cli("sessions", "ls", "--json").out)]


def test_to_look_makes_nothing(cli: Cli) -> None:
    """Without a database there are no sessions, and none is made."""
    assert cli("sessions", "ls") == (0, "", "")
    assert cli("sessions", "ls", "--json").out == "[]\n"
    ran = cli("sessions", "inspect", "x")
    assert (ran.status, "no process that lives has announced a session 'x'" in ran.err) == (2, True)
    assert not state_path().parent.exists()


@pytest.mark.slow
def test_a_session_of_another_process(cli: Cli, holder: subprocess.Popen[str]) -> None:
    """It is listed, inspected by its ID or the beginning of it, and ended with a reason that its process hears."""
    lines = cli("sessions", "ls").out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        [name, "process", str(holder.pid)] for name in ("alpha", "alphabet")
    ]
    found: dict[str, Any] = json.loads(cli("sessions", "inspect", "alphab", "--json").out)
    assert (found["session_id"], found["status"], found["way"]) == ("alphabet", "ready", "hijack")
    text = dict(line.split(maxsplit=1) for line in cli("sessions", "inspect", "alpha").out.splitlines())
    assert (text["session_id"], text["status"]) == ("alpha", "ready")
    ran = cli("sessions", "inspect", "al")
    assert (ran.status, "2 sessions begin with 'al'" in ran.err) == (2, True)
    assert cli("sessions", "abort", "alpha", "--reason", "enough") == (0, "", "")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "session alpha was ended by another process: enough\n"
    for verb in ("inspect", "events", "abort"):  # as with a variable that is not set, also where there is only one
        ran = cli("sessions", verb, "")
        assert (ran.status, "the session ID is empty" in ran.err) == (2, True)
    assert cli("sessions", "abort", "alphabet") == (0, "", "")
    assert holder.wait() == 0
    assert ids(cli) == []


@pytest.mark.slow
def test_events_are_lines_until_the_end(cli: Cli, spawned: Spawned, holder: subprocess.Popen[str]) -> None:
    """Each event is a line of JSON; the end of the session ends the command."""
    with spawned("sessions", "events", "alphabet") as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert (first["session_id"], first["method"]) == ("alphabet", "/grpc.health.v1.Health/Check")
        cli("sessions", "abort", "alphabet")
        *_, last = [json.loads(line) for line in watching.stdout]
        assert watching.wait() == 0
    assert (last["event"], last["error"]) == ("SessionEnded", None)


@pytest.mark.slow
def test_a_killed_processes_sessions_are_gone(cli: Cli, holder: subprocess.Popen[str]) -> None:
    """They are not listed any more, and asking for one says so."""
    assert ids(cli) == ["alpha", "alphabet"]
    holder.kill()
    holder.wait()
    assert ids(cli) == []
    assert "no process that lives" in cli("sessions", "abort", "alpha").err

"""Ctrl-C in a process of its own: 130 at once, no traceback, and the engine is told."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
import trio

from mobysession.testing import BlockingFakeDaemon, FakeSolve, Faults

if TYPE_CHECKING:
    from pathlib import Path


def interrupt(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Send SIGINT; return what was printed, and see that it took no longer than a moment."""
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    assert b"Error" not in err
    return out, err


@pytest.mark.parametrize(("driver", "progress"), [("control", "plain"), ("control", "tty"), ("classic", "quiet")])
def test_a_build_is_cancelled_on_the_engine(spawned, context: Path, driver: str, progress: str) -> None:
    """While a step runs: the script on the daemon's side is cancelled."""
    running, ended = threading.Event(), threading.Event()

    async def script(solve: FakeSolve) -> dict[str, str]:
        async with solve.vertex("[1/1] RUN sleep infinity"):
            running.set()
            try:
                await trio.sleep_forever()
            finally:
                ended.set()
        return {}

    with BlockingFakeDaemon(script=script) as daemon:
        options = ["--driver", driver, "--progress", progress]
        with spawned("-H", daemon.host, "build", *options, context) as process:
            assert running.wait(20)
            out, _ = interrupt(process)
        assert ended.wait(5)
    assert out == b""


@pytest.mark.parametrize("faults", [Faults(never_answer=True), Faults(mute=True)])
@pytest.mark.parametrize("verb", ["build", "probe", "dial"])
def test_a_daemon_that_does_not_answer_can_be_left(spawned, context: Path, verb: str, faults: Faults) -> None:
    """While the session is being opened, or a stream that stays silent is read."""
    arguments = [verb, context] if verb == "build" else [verb]
    with BlockingFakeDaemon(faults=faults) as daemon, spawned("-H", daemon.host, *arguments) as process:
        while ("POST", "/session") not in daemon.requests:
            time.sleep(0.01)
        interrupt(process)


def test_a_probe_that_holds_can_be_left(spawned, fake_docker_host: BlockingFakeDaemon) -> None:
    """No half report is printed."""
    with spawned("probe", "--hold", "1000", "--json") as process:
        assert b"holding the session" in process.stderr.readline()
        out, _ = interrupt(process)
    assert out == b""


def test_a_dial_can_be_left(spawned, fake_docker_host: BlockingFakeDaemon) -> None:
    """Although a thread waits for stdin."""
    with spawned("dial", stdin=subprocess.PIPE) as process:
        os.read(process.stdout.fileno(), 24)
        interrupt(process)


def test_a_dial_whose_reader_has_stopped_can_be_left(spawned) -> None:
    """Although a thread waits for room on stdout."""
    faults = Faults(garbage=bytes(4_000_000))
    with (
        BlockingFakeDaemon(faults=faults) as daemon,
        spawned("-H", daemon.host, "dial", stdin=subprocess.PIPE) as process,
    ):
        os.read(process.stdout.fileno(), 10)
        select.select([process.stdout], [], [], 5)
        interrupt(process)

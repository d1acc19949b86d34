"""Ctrl-C in a process of its own: 130 at once, no traceback, and the engine is told."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
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


_INTERRUPTED_IMPORT = """
import signal, sys

module = sys.argv.pop(1)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            signal.raise_signal(signal.SIGINT)

from mobysession.cli import entry
sys.meta_path.insert(0, Finder())
entry()
"""


@pytest.mark.parametrize(
    "module",
    ["argparse", "mobysession.cli.build", "logging", "trio", "trio._core._ki", "h2.events", "mobysession.build.build"],
)
def test_a_process_that_still_loads_can_be_left(context: Path, module: str) -> None:
    """Wherever in its imports it is, which may take what is raised there for something else."""
    arguments = [module, "-H", "unix:///nowhere", "build", str(context)]
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED_IMPORT, *arguments], capture_output=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_a_process_that_was_told_to_ignore_interrupts_does(context: Path) -> None:
    """As ``nohup`` and shells do for what runs in the background."""
    code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + _INTERRUPTED_IMPORT
    arguments = ["trio", "-H", "unix:///nowhere", "build", str(context)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, timeout=20)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"ERROR: there is no socket")


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

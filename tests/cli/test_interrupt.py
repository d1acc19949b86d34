"""Ctrl-C and SIGTERM in a process of its own: 130 or 143 at once, no traceback, and the engine is told."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession.services.bytes_message import encode_bytes_message
from mobysession.testing import BlockingFakeDaemon, FakeSolve, Faults

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def interrupt(process: subprocess.Popen[bytes], number: int = signal.SIGINT) -> tuple[bytes, bytes]:
    """Send the signal; return what was printed, and see that it took no longer than a moment."""
    process.send_signal(number)
    began = time.monotonic()
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert process.returncode == 128 + number, err
    assert b"Traceback" not in err
    assert b"Error" not in err
    return out, err


_INTERRUPTED_IMPORT = """
import signal, sys

module, number = sys.argv.pop(1), int(sys.argv.pop(1))

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            signal.raise_signal(number)

from mobysession.cli import entry
sys.meta_path.insert(0, Finder())
entry()
"""


@pytest.mark.parametrize(
    "module",
    ["argparse", "mobysession.cli.build", "logging", "trio", "trio._core._ki", "h2.events", "mobysession.build.build"],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_still_loads_can_be_left(context: Path, module: str, number: int) -> None:
    """Wherever in its imports it is, which may take what is raised there for something else."""
    arguments = [module, str(int(number)), "-H", "unix:///nowhere", "build", str(context)]
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED_IMPORT, *arguments], capture_output=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, b"", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_was_told_to_ignore_interrupts_does(context: Path, number: int) -> None:
    """As ``nohup`` and shells do for what runs in the background."""
    code = f"import signal\nsignal.signal({int(number)}, signal.SIG_IGN)\n{_INTERRUPTED_IMPORT}"
    arguments = ["trio", str(int(number)), "-H", "unix:///nowhere", "build", str(context)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, timeout=20)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"ERROR: there is no socket")


@SIGNALS
@pytest.mark.parametrize(("driver", "progress"), [("control", "plain"), ("control", "tty"), ("classic", "quiet")])
def test_a_build_is_cancelled_on_the_engine(spawned, context: Path, driver: str, progress: str, number: int) -> None:
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
            out, _ = interrupt(process, number)
        assert ended.wait(5)
    assert out == b""


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("options", [{}, {"preexec_fn": _ignore_interrupts}])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_ended_build_leaves_no_files(
    spawned, context: Path, tmp_path: Path, number: int, options: Mapping[str, Any]
) -> None:
    """Neither half of an output beside its place nor a scratch directory, also where Ctrl-C is ignored."""
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir()
    scratch.mkdir()
    (context / "docker-bake.json").write_text(
        json.dumps({"target": {"default": {"context": str(context), "output": [f"type=tar,dest={out}/x.tar"]}}})
    )

    async def script(solve: FakeSolve) -> dict[str, str]:
        caller = await solve.session()
        metadata = [("buildkit-attachable-exporter-id", "0")]
        async with caller.channel.open_call("/moby.filesync.v1.FileSend/DiffCopy", metadata=metadata) as call:
            await call.send(encode_bytes_message(b"half"))
            await trio.sleep_forever()
        return {}

    with BlockingFakeDaemon(script=script) as daemon:
        arguments = ["-H", daemon.host, "bake", "-f", context / "docker-bake.json", "--allow", f"fs={tmp_path}"]
        environment = {**os.environ, "TMPDIR": str(scratch)}
        with spawned(*arguments, env=environment, **options) as process:
            while not (any(out.iterdir()) and any(scratch.iterdir())):
                time.sleep(0.01)  # the files of another process: nothing tells of them but a look
            interrupt(process, number)
    assert (list(out.iterdir()), list(scratch.iterdir())) == ([], [])


@pytest.mark.parametrize("faults", [Faults(never_answer=True), Faults(mute=True)])
@pytest.mark.parametrize("verb", ["build", "probe", "dial"])
@SIGNALS
def test_a_daemon_that_does_not_answer_can_be_left(
    spawned, context: Path, verb: str, faults: Faults, number: int
) -> None:
    """While the session is being opened, or a stream that stays silent is read."""
    arguments = [verb, context] if verb == "build" else [verb]
    with BlockingFakeDaemon(faults=faults) as daemon, spawned("-H", daemon.host, *arguments) as process:
        while ("POST", "/session") not in daemon.requests:
            time.sleep(0.01)
        interrupt(process, number)


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


@SIGNALS
def test_the_third_signal_ends_what_waits_for_ever(
    spawned, context: Path, tmp_path: Path, fake_docker_host: BlockingFakeDaemon, number: int
) -> None:
    """Here a thread that opens a pipe which nobody reads, and which nothing can cancel."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with spawned("build", "--progress", "plain", "--iidfile", pipe, context) as process:
        while b"writing image" not in process.stderr.readline():
            pass
        for _ in range(100):
            # Not as a burst: the kernel would make one of them.
            process.send_signal(number)
            try:
                process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            break
        assert process.wait(timeout=1) == 128 + number

"""Builds that are broken off: by a cancelled scope, by Ctrl-C, by the end of the engine. Nothing hangs or runs on."""

from __future__ import annotations

import itertools
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from integration.contexts import make_context
from integration.images import BUILD_TIMEOUT, build_image
from mobysession.build import build
from mobysession.errors import ConnectionLost, SessionLost
from mobysession.session import Session
from mobysession.testing.base_image import import_base_image
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.engines import Engine, EngineSpec
    from mobysession.build.options import Driver
    from mobysession.buildkit.status import BuildStatus

PROMPT = 5.0
"""Seconds in which an interrupted build has ended, here and on the engine."""

_numbers = itertools.count(os.getpid() * 1000)


@pytest.fixture(params=["control", "classic"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """Each way of asking the engine."""
    name: Driver = request.param
    return name


class Sleeper:
    """A context whose build says that it has begun and then sleeps, in a process that can be found."""

    def __init__(self, folder: Path) -> None:
        self.seconds = str(next(_numbers))
        run = f"RUN echo has begun; exec sleep {self.seconds}\n"
        self.context = make_context(folder / "sleeper", f"FROM mobysession-base\n{run}")

    def has_begun(self, status: BuildStatus) -> bool:
        """Whether the build has come to the sleep."""
        return any("has begun" in line.text for vertex in status.vertices for line in vertex.log.last(5))

    def process(self) -> int:
        """Return a descriptor of the sleeping process, which becomes readable when that ends."""
        wanted = self.seconds.encode()
        deadline = time.monotonic() + PROMPT
        while True:
            found = [pid for pid, arguments in _command_lines() if wanted in arguments[-1] and b"sleep" in arguments[0]]
            # While the shell becomes the sleep there is a moment in which it has no command line.
            if found or time.monotonic() > deadline:
                break
        (process,) = found
        return os.pidfd_open(process)


def _command_lines() -> Iterator[tuple[int, list[bytes]]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except OSError:  # it has ended in the meantime
            continue
        # A shell that is about to become the sleep counts as it.
        if arguments[:2] == [b"/bin/sh", b"-c"] and b"exec sleep" in arguments[-1]:
            arguments[0] = b"sleep"
        yield int(folder.name), arguments


def _ended(process: int) -> bool:
    try:
        return select.select([process], [], [], PROMPT)[0] == [process]
    finally:
        os.close(process)


@pytest.fixture
def sleeper(engine: Engine, tmp_path: Path) -> Sleeper:
    """A build that sleeps."""
    if engine.private is None:
        pytest.skip("not our engine: its processes may be out of sight")
    return Sleeper(tmp_path)


def _engine_works(engine: Engine, tmp_path: Path) -> None:
    context = make_context(tmp_path / "after", "FROM mobysession-base\nRUN echo still works\n")
    build_image(engine, context, no_cache=True)


def test_cancellation_reaches_the_engine(engine: Engine, sleeper: Sleeper, tmp_path: Path, driver: Driver) -> None:
    """A cancelled build returns at once, its process on the engine ends, and the engine goes on."""
    found: list[int] = []

    async def run() -> float:
        with trio.fail_after(BUILD_TIMEOUT), trio.CancelScope() as scope:

            def look(status: BuildStatus) -> None:
                if not found and sleeper.has_begun(status):
                    found.append(sleeper.process())
                    scope.cancel()

            await build(sleeper.context, endpoint=Endpoint.parse(engine.host), on_status=look, driver=driver)
        assert scope.cancelled_caught
        return trio.current_time()

    started = time.monotonic()
    trio.run(run)
    assert time.monotonic() - started < PROMPT + BUILD_TIMEOUT / 4
    assert _ended(found[0])
    _engine_works(engine, tmp_path)


def test_a_time_limit(engine: Engine, sleeper: Sleeper, driver: Driver) -> None:
    """``move_on_after`` around a build works like around everything else."""

    async def run() -> bool:
        with trio.move_on_after(1) as scope:
            await build(sleeper.context, endpoint=Endpoint.parse(engine.host), driver=driver)
        return scope.cancelled_caught

    started = time.monotonic()
    assert trio.run(run)
    assert time.monotonic() - started < 1 + PROMPT


def _interrupt(argv: list[str], sleeper: Sleeper, number: int = signal.SIGINT) -> tuple[int, float, str, int]:
    """Run a program that builds, and signal it when the build sleeps.

    Returns: its exit status, how long it took to end, what it wrote to stderr, a descriptor of the sleeping process.
    """
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        written = []
        for line in program.stderr:
            written.append(line)
            # The line with the log, not the step's name.
            if line.rstrip().endswith(" has begun"):
                break
        else:
            pytest.fail("".join(written))
        process = sleeper.process()
        program.send_signal(number)
        started = time.monotonic()
        _, rest = program.communicate(timeout=BUILD_TIMEOUT)
        return program.returncode, time.monotonic() - started, "".join(written) + rest, process


def test_ctrl_c_on_the_command_line(engine: Engine, sleeper: Sleeper, tmp_path: Path, driver: Driver) -> None:
    """Ctrl-C ends the command at once with status 130 and without a traceback, and the build on the engine with it."""
    argv = [sys.executable, "-m", "mobysession", "-H", engine.host, "build", "--progress=plain", "--driver", driver]
    status, seconds, written, process = _interrupt([*argv, str(sleeper.context)], sleeper)
    assert status == 130, written
    assert seconds < PROMPT
    assert "Traceback" not in written
    assert "ERROR: mobysession" not in written
    assert _ended(process)
    _engine_works(engine, tmp_path)


BLOCKING = """
import sys
from mobysession import sync
from mobysession.transport.endpoint import Endpoint
try:
    sync.build(sys.argv[2], endpoint=Endpoint.parse(sys.argv[1]), driver=sys.argv[3], progress="plain")
except KeyboardInterrupt:
    sys.exit(7)
"""


def test_ctrl_c_in_blocking_code(engine: Engine, sleeper: Sleeper, driver: Driver) -> None:
    """Ctrl-C comes out of ``sync.build`` as KeyboardInterrupt, and the build on the engine has ended."""
    argv = [sys.executable, "-c", BLOCKING, engine.host, str(sleeper.context), driver]
    status, seconds, written, process = _interrupt(argv, sleeper)
    assert (status, "Traceback" in written) == (7, False), written
    assert seconds < PROMPT
    assert _ended(process)


def test_a_killed_client(engine: Engine, sleeper: Sleeper, tmp_path: Path, driver: Driver) -> None:
    """A client that is killed takes its build on the engine with it: the engine sees the connections end."""
    argv = [sys.executable, "-m", "mobysession", "-H", engine.host, "build", "--progress=plain", "--driver", driver]
    status, _, _, process = _interrupt([*argv, str(sleeper.context)], sleeper, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert _ended(process)
    _engine_works(engine, tmp_path)


def test_an_engine_that_is_killed(engine_spec: EngineSpec, tmp_path: Path, driver: Driver) -> None:
    """A build whose engine dies ends at once, with an error that says that the engine went away."""
    sleeper = Sleeper(tmp_path)

    async def run(host: str, kill: Callable[[], Any]) -> None:
        killed: list[Any] = []

        def look(status: BuildStatus) -> None:
            if not killed and sleeper.has_begun(status):
                killed.append(kill())

        with trio.fail_after(BUILD_TIMEOUT):
            await build(sleeper.context, endpoint=Endpoint.parse(host), on_status=look, driver=driver)

    with engine_spec.private_engine(stop_timeout=0) as engine:
        import_base_image(engine.host)
        with pytest.raises((SessionLost, ConnectionLost)) as caught:
            trio.run(run, engine.host, lambda: os.kill(engine.pid, signal.SIGKILL))
    assert caught.value.message
    assert not isinstance(caught.value, BaseExceptionGroup)


def test_a_session_whose_engine_is_killed(engine_spec: EngineSpec) -> None:
    """A session that nothing happens on notices the end of its engine as well."""

    async def run(host: str, kill: Callable[[], Any]) -> None:
        with trio.fail_after(BUILD_TIMEOUT):
            async with Session(Endpoint.parse(host)).attach():
                kill()
                await trio.sleep_forever()

    with engine_spec.private_engine(stop_timeout=0) as engine, pytest.raises(SessionLost):
        trio.run(run, engine.host, lambda: os.kill(engine.pid, signal.SIGKILL))

"""``mobysession replay``: a recording is played to this machine's services, or to whoever comes.

The services are those of a build: of the one that was recorded, whose words the recording has, or of another one that
is given. It runs against a daemon in this process which says what the recorded one said, and no engine is needed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mobysession.cli.app import Target, run_async
from mobysession.cli.parser import parse
from mobysession.cli.record import build_command
from mobysession.cli.tables import print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Sequence

    from mobysession.cli.parser import Parser
    from mobysession.recording import Recording
    from mobysession.testing import ReplayDaemon, ReplayReport
    from mobysession.transport.endpoint import Endpoint

__all__ = ["SYNOPSIS", "add_options", "run"]

SYNOPSIS = " FILE [-- COMMAND...]"
_OUTPUTS: Final = "/moby.filesync.v1.FileSend/"


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    add = parser.add_argument
    add("file", metavar="FILE", help="The recording.")
    serve = "Be the recorded daemon, on a socket, until interrupted, or while COMMAND runs with DOCKER_HOST set."
    parser.command_name = "command"
    add("--serve", action="store_true", help=serve)
    add("--socket", metavar="PATH", help="For --serve: the socket [default: one in a temporary directory]")
    add("--json", action="store_true", help="Print the comparison as JSON.")


def run(_target: Target, options: argparse.Namespace) -> int:
    """Play a recording to the services of a build, without any engine, and compare what they answer.

    The build is COMMAND, as in "-- build PATH", or the one that was recorded, without its outputs.
    """
    from mobysession.recording import read_recording

    recording = read_recording(options.file)
    if options.serve:
        return run_async(_serve, recording, options)
    command = parse(build_command(options.command or _recorded_command(recording, options.file)))
    for name in ("iidfile", "metadata_file", "timeline"):
        setattr(command.options, name, None)
    command.options.push, command.options.quiet = False, True
    command.options.driver, command.options.attach, command.options.nodes = "control", "auto", []
    skip: tuple[str, ...] = ()
    if not options.command:
        # They are on this disk already, and what is hidden in them would be missing.
        command.options.outputs, command.options.load, skip = [], False, (_OUTPUTS,)
    target = _Replayed(recording, skip)
    command.run(target, command.options)
    return _tell(target.reports, options.json)


def _recorded_command(recording: Recording, name: str) -> Sequence[str]:
    from mobysession.errors import UsageError

    if not recording.header.command:
        raise UsageError(f"{name} does not say which build it is of", hint=f"Say it: replay {name} -- build PATH")
    return recording.header.command


class _Replayed(Target):
    """A daemon in this process, which plays a recording."""

    def __init__(self, recording: Recording, skip: Sequence[str]) -> None:
        super().__init__(None, None)
        self._recording = recording
        self._skip = skip
        self._daemon: ReplayDaemon | None = None

    @property
    def reports(self) -> list[ReplayReport]:
        """What came of it."""
        return self._daemon.reports if self._daemon is not None else []

    def endpoint(self, attach: str = "auto") -> Endpoint:
        """Return the daemon's."""
        assert self._daemon is not None
        return self._daemon.endpoint

    def view(self, attach: str = "auto") -> str | None:
        """Return None: nothing is shown."""
        return None

    @asynccontextmanager
    async def around_build(self) -> AsyncIterator[None]:
        """Run the daemon."""
        from mobysession.testing.replayer import ReplayDaemon

        with tempfile.TemporaryDirectory(prefix="mobysession-replay-") as folder:
            self._daemon = ReplayDaemon(Path(folder) / "docker.sock", recording=self._recording, skip=self._skip)
            async with self._daemon:
                yield


async def _serve(recording: Recording, options: argparse.Namespace) -> int:
    import trio

    from mobysession.errors import UsageError
    from mobysession.testing.replayer import ReplayDaemon

    def tell(report: ReplayReport) -> None:
        print(report.render(), end="", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="mobysession-replay-") as folder:
        path = options.socket or os.path.join(folder, "docker.sock")
        async with ReplayDaemon(path, recording=recording, on_report=tell) as daemon:
            if not options.command:
                print(f"DOCKER_HOST={daemon.host}", flush=True)
                await trio.sleep_forever()
            environment = {**os.environ, "DOCKER_HOST": daemon.host}
            try:
                done = await trio.run_process(options.command, env=environment, check=False)
            except OSError as error:
                raise UsageError(f"cannot run {options.command[0]}: {error.strerror}") from error
            equal = bool(daemon.reports) and all(report.is_equal for report in daemon.reports)
            return done.returncode or (0 if equal else 1)


def _tell(reports: Sequence[ReplayReport], as_json: bool) -> int:
    for report in reports:
        if as_json:
            print_json(report.to_json())
        else:
            print(report.render(), end="", flush=True)
    return 0 if reports and all(report.is_equal for report in reports) else 1

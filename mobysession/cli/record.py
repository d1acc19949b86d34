"""``mobysession record``: a build, and what its session said, in a file."""

from __future__ import annotations

import re
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from mobysession.cli.app import Target
from mobysession.cli.parser import parse

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Sequence

    from mobysession.cli.parser import Parser
    from mobysession.recording import Recording
    from mobysession.session.recorder.recorder import RecordingMode

__all__ = ["SYNOPSIS", "add_options", "build_command", "run", "said_words"]

SYNOPSIS = " -- build [BUILD OPTIONS] PATH"
_DEFAULT: Final = "build.recording"
#: Options of which the value may be anybody's secret, and plays no part when a recording is played.
_UNSAID: Final = frozenset(("--build-arg", "--label", "--annotation"))
_LOGIN: Final = re.compile(r"(?<=://)[^/@\s]+@")


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    add = parser.add_argument
    add("-o", "--output", default=_DEFAULT, metavar="FILE", help=f"Where it goes [default: {_DEFAULT}]")
    add("--lightweight", action="store_true", help="Only which calls there were, with sizes and times.")
    add("--frames", action="store_true", help="The frames of HTTP/2, too.")
    parser.command_name = "command"


def run(_target: Target, options: argparse.Namespace) -> int:
    """Run a build, and record what its session says: FILE holds no secret and no credentials."""
    if options.output in ("", "-"):
        from mobysession.errors import UsageError

        raise UsageError(
            f"{options.output!r} is no file for a recording",
            hint="stdout has what the build prints. A file of that name would be ./-" if options.output else None,
        )
    command = parse(build_command(options.command))
    return command.run(_Recorded(options), command.options)


def build_command(words: Sequence[str]) -> list[str]:
    """Return the words of a build; UsageError where they are of something else."""
    from mobysession.errors import UsageError

    if not words or words[0] != "build":
        raise UsageError("only builds are recorded and replayed", hint="As in: -- build --secret id=token PATH")
    return list(words)


class _Recorded(Target):
    """The daemon that the command line names, on which a build is recorded."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options.host, options.docker_context)
        self._options = options

    @asynccontextmanager
    async def around_build(self) -> AsyncIterator[None]:
        """Record the sessions of a build, and write what was recorded, whatever became of it."""
        import trio

        from mobysession.session.recorder.recorder import record_sessions

        options = self._options
        mode: RecordingMode = "lightweight" if options.lightweight else "full"
        async with record_sessions(mode, frames=options.frames, command=said_words(options.command)) as recorder:
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):
                    await recorder.recording.save(options.output)
                    calls = await trio.to_thread.run_sync(_count, recorder.recording)
        print(f"recorded {calls} calls in {options.output}", file=sys.stderr)


def _count(recording: Recording) -> int:
    from mobysession.recording import CallBegan

    return sum(isinstance(record, CallBegan) for record in recording)


def said_words(words: Sequence[str]) -> list[str]:
    """Return the words of a build without what may be secret in them."""
    said: list[str] = []
    for word in words:
        option, separator, value = word.partition("=")
        if said and said[-1] in _UNSAID:
            said[-1:] = []
        elif not (option in _UNSAID and separator and value):
            said.append(_LOGIN.sub("***@", word))
    return said

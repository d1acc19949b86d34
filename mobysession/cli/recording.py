"""``mobysession recording``: what is in a recording, for people, programs and browsers."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from mobysession.cli.parser import add_commands
from mobysession.cli.tables import local_time, print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser
    from mobysession.recording import CallBegan, CallOver, Recording

__all__ = ["SYNOPSIS", "add_options", "run"]

SYNOPSIS = " COMMAND [ARGS]..."


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    show = add_commands(parser)("show", "Show the calls of a recording, and what they came to.", " FILE")
    show.add_argument("file", metavar="FILE", help="The recording.")
    forms = show.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="Print all of it, as JSON.")
    forms.add_argument("--html", action="store_true", help="Print a page with the calls over time.")


def run(_target: Target, options: argparse.Namespace) -> int:
    """Show a recording."""
    from mobysession.recording import read_recording

    recording = read_recording(options.file)
    if options.json:
        print_json(recording.to_json())
    elif options.html:
        from mobysession.progress.page import render_page
        from mobysession.progress.recording import session_timeline

        print(render_page(session_timeline(recording, os.path.basename(options.file))), end="", flush=True)
    else:
        from mobysession.buildkit.printable import printable

        for line in _lines(recording):
            print(printable(line))
        sys.stdout.flush()
    return 0


def _lines(recording: Recording) -> Iterator[str]:
    from mobysession.recording import CallBegan, CallOver, ConnectionBegan, RunChanged

    header = recording.header
    yield f"{header.mode} recording of {local_time(header.created)}, by {header.writer}"
    if header.command:
        yield f"of: mobysession {' '.join(header.command)}"
    began: dict[int, CallBegan] = {}
    for record in recording:
        match record:
            case ConnectionBegan():
                yield f"{record.at:9.3f} s  session {record.session_id}  {record.name}".rstrip()
            case RunChanged():
                yield f"{record.at:9.3f} s  run {record.run} {record.state}"
            case CallBegan():
                began[record.call] = record
            case CallOver():
                if (call := began.pop(record.call, None)) is not None:
                    yield _line(call, record)
    for call in began.values():
        yield f"{call.at:9.3f} s  {call.method}  not ended"
    yield ""
    yield from _summary(recording)
    if not recording.is_complete:
        yield "the end of the file is missing"


def _line(call: CallBegan, over: CallOver) -> str:
    subject = "".join(f"  {value}" for key, value in call.metadata if key == "dir-name" and isinstance(value, str))
    status = over.code if over.code == "OK" or not over.message else f"{over.code}: {over.message}"
    took = (over.at - call.at) * 1000
    return f"{call.at:9.3f} s  {call.method}{subject}  {took:.1f} ms, {over.received} B in, {over.sent} B out  {status}"


def _summary(recording: Recording) -> Iterator[str]:
    summary = recording.summary()
    width = max(map(len, summary), default=0)
    for name, method in sorted(summary.items()):
        failed = f", {method.failed} failed" if method.failed else ""
        took = f"{method.seconds * 1000:.1f} ms"
        yield f"{name:{width}}  {method.calls} calls{failed}, {method.received} B in, {method.sent} B out, {took}"

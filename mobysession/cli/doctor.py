"""``mobysession doctor``: a line for each thing that builds depend on, and below what fails, what to do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mobysession.cli.app import run_async
from mobysession.cli.parser import add_attach
from mobysession.cli.tables import print_json

if TYPE_CHECKING:
    import argparse

    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser
    from mobysession.doctor import Diagnosis
    from mobysession.transport.endpoint import Endpoint

__all__ = ["SYNOPSIS", "add_options", "run"]

SYNOPSIS = ""
#: Columns of the level and of the subject.
_LEVEL = 6
_SUBJECT = 13


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    parser.add_argument("--json", action="store_true", help="Print the findings as JSON.")
    add_attach(parser)


def run(target: Target, options: argparse.Namespace) -> int:
    """Check what builds depend on, on this side and at the engine, and say what mends what fails."""
    from mobysession.doctor import examine

    def find_endpoint() -> Endpoint:
        endpoint = target.endpoint(options.attach)
        return endpoint.as_buildkitd() if options.attach == "buildkitd" else endpoint

    diagnosis = run_async(partial(examine, find_endpoint, attach=options.attach))
    if options.json:
        print_json({"healthy": diagnosis.is_healthy, "findings": diagnosis.findings})
    else:
        print(_render(diagnosis), flush=True)
    return 0 if diagnosis.is_healthy else 1


def _render(diagnosis: Diagnosis) -> str:
    from mobysession.buildkit.printable import printable

    lines = []
    for finding in diagnosis.findings:
        # Half of it may be a daemon's words, which get no line of their own.
        lines.append(f"{finding.level:<{_LEVEL}}{finding.subject:<{_SUBJECT}}{printable(finding.message)}")
        if finding.fix:
            lines.append(f"{'':<{_LEVEL + _SUBJECT}}fix: {printable(finding.fix)}")
    return "\n".join(lines)

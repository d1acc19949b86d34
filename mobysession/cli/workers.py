"""``mobysession workers``: what executes builds on an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession.cli.app import run_async
from mobysession.cli.tables import add_format, print_json, print_table

if TYPE_CHECKING:
    import argparse

    from mobysession.buildkit.workers import Worker
    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser
    from mobysession.transport.endpoint import Endpoint

__all__ = ["SYNOPSIS", "add_options", "run"]

SYNOPSIS = ""


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    text = "Only these, in containerd's filter syntax; any may match."
    parser.add_argument("--filter", action="append", default=[], metavar="FILTER", help=text)
    add_format(parser)


def run(target: Target, options: argparse.Namespace) -> int:
    """List what executes builds there, and for which platforms."""
    workers = run_async(_workers, target.endpoint(), options.filter)
    if options.format == "json":
        print_json(workers)
        return 0
    rows = [(worker.id, worker.version or "unknown", ", ".join(worker.platforms)) for worker in workers]
    print_table(("ID", "BUILDKIT", "PLATFORMS"), rows)
    return 0


async def _workers(endpoint: Endpoint, filters: list[str]) -> list[Worker]:
    from mobysession.buildkit.control import open_control

    async with open_control(endpoint) as control:
        return await control.list_workers(filters=filters)

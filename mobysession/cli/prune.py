"""``mobysession prune``: delete build cache."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from mobysession.cli.app import run_async
from mobysession.cli.du import print_records
from mobysession.cli.tables import add_format, print_json

if TYPE_CHECKING:
    import argparse

    from mobysession.buildkit.usage import CacheRecord
    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser
    from mobysession.transport.endpoint import Endpoint

__all__ = ["SYNOPSIS", "add_options", "run"]

SYNOPSIS = ""


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="Also what is internal, and what images share.")
    text = "Only these: type=regular, shared, description~=TEXT, until=24h; all of them hold."
    add("--filter", action="append", default=[], metavar="FILTER", help=text)
    add("-f", "--force", action="store_true", help="Do not ask.")
    add("--verbose", dest="every", action="store_true", help="Say all that is known of each record that goes.")
    add("--reserved-space", "--keep-storage", metavar="SIZE", help="Cache to keep in any case, as 10g.")
    add("--max-used-space", metavar="SIZE", help="Cache to keep at most (Docker 28 and later).")
    add("--min-free-space", metavar="SIZE", help="Disk to be free afterwards (Docker 28 and later).")
    add_format(parser)


def run(target: Target, options: argparse.Namespace) -> int:
    """Delete build cache that nothing uses, and say what went."""
    from mobysession.build.options import parse_size
    from mobysession.buildkit.usage import parse_filters

    selection = parse_filters(options.filter)
    bounds = {
        name: parse_size(value)
        for name in ("reserved_space", "max_used_space", "min_free_space")
        if (value := getattr(options, name)) is not None
    }
    if not options.force and not _confirmed(everything=options.all):
        return 1
    arguments: dict[str, Any] = {
        "filters": selection.filters,
        "keep_duration": selection.unused_for,
        "all": options.all,
        **bounds,
    }
    records = run_async(_prune, target.endpoint(), arguments)
    if options.format == "json":
        print_json(records)
        return 0
    if records:
        print_records(records, every=options.every)
    from mobysession.progress.text import format_bytes

    print(f"Total: {format_bytes(sum(record.size for record in records))}", flush=True)
    return 0


def _confirmed(*, everything: bool) -> bool:
    from mobysession.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked whether to delete the cache", hint="Use --force.")
    what = "all build cache" if everything else "all dangling build cache"
    print(f"WARNING! This will remove {what}. Are you sure you want to continue? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _prune(endpoint: Endpoint, arguments: dict[str, Any]) -> list[CacheRecord]:
    from mobysession.buildkit.control import open_control

    async with open_control(endpoint) as control, aclosing(control.prune(**arguments)) as records:
        return [record async for record in records]

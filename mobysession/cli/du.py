"""``mobysession du``: the build cache of an engine, record by record, and what of it could go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession.cli.app import run_async
from mobysession.cli.tables import add_format, age, print_json, print_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from mobysession.buildkit.usage import CacheRecord
    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser
    from mobysession.transport.endpoint import Endpoint

__all__ = ["SYNOPSIS", "add_options", "print_records", "run"]

SYNOPSIS = ""


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    text = "Only these: type=regular, inuse, shared, description~=TEXT, until=24h; all of them hold."
    parser.add_argument("--filter", action="append", default=[], metavar="FILTER", help=text)
    parser.add_argument("--verbose", dest="every", action="store_true", help="Say all that is known of each record.")
    add_format(parser)


def run(target: Target, options: argparse.Namespace) -> int:
    """Show the build cache: what is there, how large it is, and what of it could go."""
    from mobysession.buildkit.usage import parse_filters

    selection = parse_filters(options.filter)
    records = run_async(_usage, target.endpoint(), selection.filters, selection.unused_for)
    if options.format == "json":
        print_json(records)
        return 0
    print_records(records, every=options.every)
    if not options.filter:
        _print_sums(records)
    return 0


async def _usage(endpoint: Endpoint, filters: Sequence[str], unused_for: float) -> list[CacheRecord]:
    from datetime import UTC, datetime, timedelta

    from mobysession.buildkit.control import open_control

    async with open_control(endpoint) as control:
        records = await control.disk_usage(filters=filters)
    if not unused_for:
        return records
    before = datetime.now(UTC) - timedelta(seconds=unused_for)
    return [record for record in records if (record.last_used or record.created or before) <= before]


def print_records(records: Sequence[CacheRecord], *, every: bool) -> None:
    """Print records of the cache as a table, or with all that is known of them."""
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    if every:
        for record in records:
            _print_whole(record, now)
        return
    # As docker has it: a star for what may change, and for what an image holds too.
    rows = [
        (
            record.id + "*" * record.mutable,
            str(not record.in_use).lower(),
            _size(record.size) + "*" * record.shared,
            age(record.last_used, now),
        )
        for record in records
    ]
    print_table(("ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"), rows)


def _print_whole(record: CacheRecord, now: object) -> None:
    from mobysession.buildkit.printable import printable

    last_used = f"{record.last_used:%Y-%m-%d %H:%M:%S} UTC" if record.last_used else "never"
    created = f"{record.created:%Y-%m-%d %H:%M:%S} UTC" if record.created else "unknown"
    values = {
        "ID": record.id,
        "Type": record.type,
        "Description": record.description,
        "Size": _size(record.size),
        "Reclaimable": str(not record.in_use).lower(),
        "Mutable": str(record.mutable).lower(),
        "Shared": str(record.shared).lower(),
        "Created at": created,
        "Last used": f"{last_used}, {record.usage_count} times",
        "Parents": ", ".join(record.parents),
    }
    for name, value in values.items():
        if value:
            print(f"{name + ':':<13} {printable(value)}")
    print()


def _print_sums(records: Sequence[CacheRecord]) -> None:
    total = sum(record.size for record in records)
    shared = sum(record.size for record in records if record.shared)
    print()
    if shared:
        print(f"Shared:       {_size(shared)}")
        print(f"Private:      {_size(total - shared)}")
    print(f"Reclaimable:  {_size(sum(record.size for record in records if not record.in_use))}")
    print(f"Total:        {_size(total)}", flush=True)


def _size(size: int) -> str:
    from mobysession.progress.text import format_bytes

    return format_bytes(size)

"""What verbs that list something print: a table, or JSON, with ``--format``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from mobysession.cli.parser import Parser

__all__ = ["add_format", "age", "local_time", "plain_value", "print_json", "print_table"]

_AGES = ((86400 * 365, "year"), (86400 * 30, "month"), (86400 * 7, "week"), (86400, "day"), (3600, "hour"))


def add_format(parser: Parser) -> None:
    """Add ``--format``."""
    from mobysession.cli.parser import offer

    text = "How it is printed: table or json [default: table]"
    action = parser.add_argument("--format", choices=("table", "json"), default="table", metavar="FORMAT", help=text)
    offer(action, "table", "json")


def print_json(value: object) -> None:
    """Print a value of named tuples, times and what JSON has."""
    import json

    print(json.dumps(plain_value(value), indent=2), flush=True)


def plain_value(value: Any) -> Any:
    """Return a value as JSON has it: named tuples by their fields, times as RFC 3339 writes them."""
    if hasattr(value, "_asdict"):
        return plain_value(value._asdict())
    if isinstance(value, dict):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(item) for item in value]
    if hasattr(value, "isoformat"):
        return value.isoformat().replace("+00:00", "Z")
    return value


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, gap: int = 3) -> None:
    """Print columns that are as wide as what stands in them; what a daemon says cannot speak to the terminal.

    Args:
        head: the first line.
        rows: those below it.
        gap: spaces between columns.
    """
    from mobysession.buildkit.printable import printable

    lines = [tuple(head), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write((" " * gap).join(cells).rstrip() + "\n")
    sys.stdout.flush()


def local_time(seconds: float) -> str:
    """Return a moment, in seconds since the epoch, as the clock on the wall shows it."""
    import time

    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):  # what a file says may be no moment that a calendar has
        return f"{seconds:g} s after 1970"


def age(moment: datetime | None, now: datetime) -> str:
    """Return how long ago it was, roughly."""
    if moment is None:
        return ""
    seconds = max(0, int((now - moment).total_seconds()))
    for unit, name in (*_AGES, (60, "minute")):
        if seconds >= unit:
            count = seconds // unit
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return f"{seconds} second{'s' if seconds != 1 else ''} ago"

"""Times as texts of RFC 3339, which is how expressions of bake files have them.

Source: zclconf/go-cty function/stdlib/datetime.go, whose layouts are made of letters: ``YYYY-MM-DD'T'hh:mm:ssZ``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from mobysession.bake.values import Value, as_text
from mobysession.buildkit.usage import go_duration
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["format_time", "now_text", "time_add"]

_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September", "October"),
    *("November", "December"),
)
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PARTS: Final[Mapping[str, Callable[[datetime], str]]] = {
    "YYYY": lambda time: f"{time.year:04}",
    "YY": lambda time: f"{time.year % 100:02}",
    "MMMM": lambda time: _MONTHS[time.month - 1],
    "MMM": lambda time: _MONTHS[time.month - 1][:3],
    "MM": lambda time: f"{time.month:02}",
    "M": lambda time: str(time.month),
    "DD": lambda time: f"{time.day:02}",
    "D": lambda time: str(time.day),
    "EEEE": lambda time: _DAYS[time.weekday()],
    "EEE": lambda time: _DAYS[time.weekday()][:3],
    "hh": lambda time: f"{time.hour:02}",
    "h": lambda time: str(time.hour),
    "HH": lambda time: f"{time.hour % 12 or 12:02}",
    "H": lambda time: str(time.hour % 12 or 12),
    "AA": lambda time: "PM" if time.hour >= 12 else "AM",
    "aa": lambda time: "pm" if time.hour >= 12 else "am",
    "mm": lambda time: f"{time.minute:02}",
    "m": lambda time: str(time.minute),
    "ss": lambda time: f"{time.second:02}",
    "s": lambda time: str(time.second),
    "ZZZZZ": lambda time: _offset(time, ":"),
    "ZZZZ": lambda time: _offset(time, ""),
    "ZZZ": lambda time: "UTC" if not time.utcoffset() else _offset(time, ""),
    "Z": lambda time: "Z" if not time.utcoffset() else _offset(time, ":"),
}


def now_text() -> str:
    """Return the time that it is."""
    return _written(datetime.now(UTC))


def format_time(layout: Value, given: Value) -> str:
    """Return a time in a layout of letters, in which texts between single quotes stay as they are."""
    time = _read(given)

    def part(match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[1].replace("''", "'")
        if match[0] not in _PARTS:
            raise UsageError(f"a layout has no {match[0]!r}")
        return _PARTS[match[0]](time)

    return re.sub(r"'((?:[^']|'')*)'|(([A-Za-z])\3*)", part, as_text(layout))


def time_add(given: Value, duration: Value) -> str:
    """Return the time some while later, as ``1h30m``, or earlier, as ``-10s``."""
    text = as_text(duration)
    seconds = go_duration(text.removeprefix("-"))
    return _written(_read(given) + timedelta(seconds=-seconds if text.startswith("-") else seconds))


def _read(given: Value) -> datetime:
    text = as_text(given)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time as RFC 3339 has them") from None
    if time.tzinfo is None or "T" not in text.upper():
        raise UsageError(f"{text!r} is no time as RFC 3339 has them")
    return time


def _written(time: datetime) -> str:
    text = time.replace(microsecond=0).isoformat()
    return text.replace("+00:00", "Z")


def _offset(time: datetime, colon: str) -> str:
    minutes = int((time.utcoffset() or timedelta()).total_seconds() // 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{colon}{abs(minutes) % 60:02}"

"""Which builds are meant, as ``docker buildx history ls --filter`` writes it.

Engines from 28 on could filter themselves; `mobysession.buildkit.history.History.list` says why they are not asked to.

Source: docker/buildx commands/history/utils.go.
"""

from __future__ import annotations

import operator
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from mobysession.buildkit.usage import go_duration
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mobysession.buildkit.history import BuildRecord

__all__ = ["HistoryFilters"]

_FILTER = re.compile(r"(\w+)(!=|<=|>=|=|<|>)(.*)")
_TEXTS = ("ref", "repository", "status")
_TIMES = ("startedAt", "completedAt", "duration")
_ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


class _Filter(NamedTuple):
    key: str
    sign: str
    value: str
    #: What a time is compared with: seconds, since the epoch where it is no duration.
    bound: float


class HistoryFilters:
    """Filters that all hold.

    Args:
        texts: ``status=error``, ``ref=ID``, ``repository!=URL``, ``startedAt>=24h``, ``duration>30s``; a time is how
            long ago it was, or as RFC 3339 writes it.

    Raises:
        UsageError: one is none.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._filters = [_parse(text) for text in texts]

    def match(self, record: BuildRecord) -> bool:
        """Return whether a record is meant."""
        return all(_matches(each, record) for each in self._filters)


def _parse(text: str) -> _Filter:
    match = _FILTER.fullmatch(text)
    if match is None or match[1] not in (*_TEXTS, *_TIMES):
        keys = ", ".join((*_TEXTS, *_TIMES))
        raise UsageError(f"{text!r} is no filter of builds", hint=f"Filter by {keys}.")
    key, sign, value = match.groups()
    if (key in _TEXTS) != (sign in ("=", "!=")):
        wanted = "= or !=" if key in _TEXTS else "<, <=, > or >="
        raise UsageError(f"the filter {text!r} needs {wanted}")
    return _Filter(key, sign, value, _bound(key, value) if key in _TIMES else 0.0)


def _bound(key: str, value: str) -> float:
    if key == "duration":
        return go_duration(value)
    try:
        return (datetime.now(UTC) - timedelta(seconds=go_duration(value))).timestamp()
    except UsageError:
        pass
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise UsageError(f"{value!r} is no time", hint="Write it as 24h or 2026-01-31T12:00:00Z.") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _matches(each: _Filter, record: BuildRecord) -> bool:
    if each.key in _TIMES:
        return _ORDERS[each.sign](_time(each.key, record), each.bound)
    value = {"ref": record.ref, "status": record.status}.get(each.key, _repository(record))
    if each.sign == "!=":
        return value != each.value
    return value == each.value if each.key == "status" else each.value in value


def _time(key: str, record: BuildRecord) -> float:
    if key == "duration":
        return record.duration or 0.0
    moment = record.created if key == "startedAt" else record.completed
    return moment.timestamp() if moment is not None else 0.0


def _repository(record: BuildRecord) -> str:
    return record.attributes.get("vcs:source") or record.attributes.get("context", "")

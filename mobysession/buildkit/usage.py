"""The records of a build cache, and how some of them are asked for.

Source: moby/buildkit api/services/control/control.proto; for the filters that users write, docker/buildx
commands/prune.go; containerd/containerd pkg/filters/parser.go.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.timestamp_pb2 import Timestamp

    from mobysession._pb import control_pb2

__all__ = [
    "CacheRecord",
    "CacheSelection",
    "cache_record",
    "go_duration",
    "moment",
    "parse_filters",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
#: What needs no quotes in containerd's filter syntax.
_PLAIN = re.compile(r"[\w.:-]+", re.ASCII)
#: What a record is or has, without a value. Source: moby/buildkit cache/manager.go, adaptUsageInfo.
_PRESENT = ("inuse", "mutable", "immutable", "shared", "private", "id", "parents", "description", "type")
#: Under either name it is a duration and no filter of BuildKit's.
_UNTIL = ("until", "unused-for")


class CacheRecord(NamedTuple):
    """One piece of the build cache.

    Attributes:
        type: ``regular``, ``source.local``, ``exec.cachemount``, ``frontend``, ``source.git.checkout``, ``internal``.
        size: bytes.
        in_use: something holds it now, so that it cannot go.
        shared: an image has the same layer, so that nothing is gained where it goes.
        parents: IDs of the records that it is made on.
    """

    id: str
    type: str
    description: str
    size: int
    created: datetime | None
    last_used: datetime | None
    usage_count: int
    in_use: bool
    mutable: bool
    shared: bool
    parents: tuple[str, ...]


class CacheSelection(NamedTuple):
    """Which records are meant: filters in containerd's syntax, and seconds since their last use."""

    filters: tuple[str, ...] = ()
    unused_for: float = 0.0


def cache_record(message: control_pb2.UsageRecord) -> CacheRecord:
    """Return a record as a value."""
    parents = tuple(message.Parents) or ((message.Parent,) if message.Parent else ())
    return CacheRecord(
        id=message.ID,
        type=message.RecordType,
        description=message.Description,
        size=message.Size,
        created=moment(message.CreatedAt) if message.HasField("CreatedAt") else None,
        last_used=moment(message.LastUsedAt) if message.HasField("LastUsedAt") else None,
        usage_count=message.UsageCount,
        in_use=message.InUse,
        mutable=message.Mutable,
        shared=message.Shared,
        parents=parents,
    )


def moment(timestamp: Timestamp) -> datetime:
    """Return a time to the microsecond, in UTC; one that no calendar has is the nearest that it has.

    A daemon may send any number.
    """
    seconds = max(-62_135_596_800, min(253_402_300_799, timestamp.seconds))
    return _EPOCH + timedelta(seconds=seconds, microseconds=max(0, min(999_999, timestamp.nanos // 1000)))


def parse_filters(texts: Iterable[str]) -> CacheSelection:
    """Read ``--filter`` as buildx has it: ``type=regular``, ``inuse``, ``description~=text``, ``until=24h``; all hold.

    Raises:
        UsageError: one is empty, given twice, or has no value and needs one.
    """
    found: dict[str, str | None] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        key = key.strip().lower()
        if not key:
            raise UsageError(f"{text!r} is no filter", hint="It looks like type=regular, inuse or until=24h.")
        if found.setdefault(key, value if separator else None) != (value if separator else None):
            raise UsageError(f"the filter {key!r} is given twice, and expects one value")
    times = {key: found.pop(key) for key in _UNTIL if key in found}
    if len(times) > 1:
        raise UsageError('conflicting filters "until" and "unused-for"')
    unused_for = go_duration(next(iter(times.values())) or "") if times else 0.0
    terms = [_term(key, value) for key, value in found.items()]
    return CacheSelection((",".join(terms),) if terms else (), unused_for)


def _term(key: str, value: str | None) -> str:
    if value is None:
        if key not in _PRESENT:
            # It would hold for nothing.
            raise UsageError(f"{key!r} alone is no filter", hint=f"Write {key}=VALUE, or one of {', '.join(_PRESENT)}.")
        return key
    if _PLAIN.fullmatch(value) is None:
        # Quoted as Go quotes, which for what can be typed is as JSON does.
        value = json.dumps(value)
    if key == "id":
        return f"id~={value}"
    return f"{key}={value}" if key.endswith(("!", "~")) else f"{key}=={value}"


def go_duration(text: str) -> float:
    """Return the seconds in a duration as Go writes it: ``24h``, ``1h30m``, ``250ms``.

    Raises:
        UsageError: it is none.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != text:
        raise UsageError(f"{text!r} is no duration", hint="Write it as 24h, 1h30m or 45s.")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)

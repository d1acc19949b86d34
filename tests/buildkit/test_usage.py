"""The records of a build cache as values, and the filters that users write."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from mobysession._pb import control_pb2, ops_pb2, worker_pb2
from mobysession.buildkit.usage import CacheSelection, cache_record, go_duration, moment, parse_filters
from mobysession.buildkit.workers import GarbagePolicy, worker
from mobysession.errors import UsageError


def test_a_record_has_its_fields() -> None:
    """Times in UTC; an old engine's single parent is one of several."""
    message = control_pb2.UsageRecord(ID="a", Size=3, Parent="p", RecordType="regular", Mutable=True, UsageCount=2)
    message.CreatedAt.FromSeconds(86400)
    record = cache_record(message)
    assert (record.id, record.size, record.type, record.mutable, record.usage_count) == ("a", 3, "regular", True, 2)
    assert record.created == datetime(1970, 1, 2, tzinfo=UTC)
    assert record.last_used is None
    assert record.parents == ("p",)
    message.Parents.extend(["q", "r"])
    assert cache_record(message).parents == ("q", "r")


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
def test_any_time_of_a_daemon_is_a_time(seconds: int, nanoseconds: int) -> None:
    """Also one that no calendar has."""
    assert moment(Timestamp(seconds=seconds, nanos=nanoseconds)).tzinfo is UTC


def test_a_worker_has_its_fields() -> None:
    """Platforms are written as users write them, durations are seconds."""
    message = worker_pb2.WorkerRecord(
        ID="w",
        Labels={"a": "b"},
        platforms=[ops_pb2.Platform(OS="linux", Architecture="arm", Variant="v7")],
        GCPolicy=[{"all": True, "keepDuration": 3 * 10**9, "reservedSpace": 7}],
        BuildkitVersion=worker_pb2.BuildkitVersion(version="v1"),
        CDIDevices=[worker_pb2.CDIDevice(Name="vendor/gpu=0")],
    )
    found = worker(message)
    assert found.platforms == ("linux/arm/v7",)
    assert found.policies == (GarbagePolicy(True, (), 3.0, 7, 0, 0),)
    assert (found.id, found.version, found.labels, found.devices) == ("w", "v1", {"a": "b"}, ("vendor/gpu=0",))


@pytest.mark.parametrize(
    ("texts", "selection"),
    [
        ([], CacheSelection()),
        (["type=regular"], CacheSelection(("type==regular",))),
        (["inuse", "Type=regular"], CacheSelection(("inuse,type==regular",))),
        (["id=abc"], CacheSelection(("id~=abc",))),
        (["description~=a.b"], CacheSelection(("description~=a.b",))),
        (['description~=/cache "a"'], CacheSelection(('description~="/cache \\"a\\""',))),
        (["type!=internal"], CacheSelection(("type!=internal",))),
        (["until=24h"], CacheSelection((), 86400.0)),
        (["unused-for=1h30m", "shared"], CacheSelection(("shared",), 5400.0)),
    ],
)
def test_filters_are_read_as_buildx_reads_them(texts: list[str], selection: CacheSelection) -> None:
    """All hold together; until is a duration and no filter."""
    assert parse_filters(texts) == selection


@pytest.mark.parametrize(
    "texts", [["=a"], ["bogus"], ["type=a", "type=b"], ["until=1h", "unused-for=1h"], ["until"], ["until=x"]]
)
def test_a_filter_that_makes_no_sense_is_refused(texts: list[str]) -> None:
    """Before an engine is asked."""
    with pytest.raises(UsageError):
        parse_filters(texts)


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("1h30m", 5400), ("1.5h", 5400), ("250ms", 0.25), (".5s", 0.5)]
)
def test_a_duration_is_read_as_go_reads_it(text: str, seconds: float) -> None:
    """In units, one after the other."""
    assert go_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "h", "1h ", "-1h", "1d"])
def test_no_duration_is_refused(text: str) -> None:
    """Days are none of Go's units."""
    with pytest.raises(UsageError, match="is no duration"):
        go_duration(text)

"""The status model: what real engines told, what messages no engine has sent do, and what cannot grow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobysession import limits
from mobysession._pb import control_pb2, ops_pb2
from mobysession.buildkit.status import BuildStatus, Vertex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.timestamp_pb2 import Timestamp

Messages = list[control_pb2.StatusResponse]
SECOND = 1_000_000_000


def put(field: Timestamp, seconds: float) -> None:
    """Set a field to a moment near the epoch."""
    field.seconds, field.nanos = divmod(round(seconds * SECOND), SECOND)
    field.SetInParent()


def vertex(digest: str, *, start: float | None = None, end: float | None = None, **fields: Any) -> control_pb2.Vertex:
    """Return a vertex message; times in seconds near the epoch."""
    message = control_pb2.Vertex(digest=digest, name=fields.pop("name", f"step {digest}"), **fields)
    if start is not None:
        put(message.started, start)
    if end is not None:
        put(message.completed, end)
    return message


def log(digest: str, data: bytes, *, moment: float = 0, stream: int = 1) -> control_pb2.VertexLog:
    """Return a log message."""
    message = control_pb2.VertexLog(vertex=digest, stream=stream, msg=data)
    put(message.timestamp, moment)
    return message


def transfer(digest: str, name: str, *, moment: float = 0) -> control_pb2.VertexStatus:
    """Return a status message."""
    message = control_pb2.VertexStatus(ID=name, vertex=digest)
    put(message.timestamp, moment)
    return message


def told(*parts: object) -> control_pb2.StatusResponse:
    """Return one message of vertices, statuses, logs and warnings."""
    response = control_pb2.StatusResponse()
    for part in parts:
        if isinstance(part, control_pb2.Vertex):
            response.vertexes.append(part)
        elif isinstance(part, control_pb2.VertexStatus):
            response.statuses.append(part)
        elif isinstance(part, control_pb2.VertexLog):
            response.logs.append(part)
        elif isinstance(part, control_pb2.VertexWarning):
            response.warnings.append(part)
    return response


def folded(messages: Iterable[control_pb2.StatusResponse]) -> BuildStatus:
    """Return the model after these messages."""
    status = BuildStatus()
    for message in messages:
        status.apply(message)
    return status


def state(status: BuildStatus) -> tuple[object, ...]:
    """Return everything that can be read from the model, comparable."""
    vertices = [
        (
            *(getattr(each, name) for name in Vertex.__slots__ if name != "log"),
            each.log.last(limits.LOG_TAIL_LINES),
        )
        for each in status.vertices
    ]
    return vertices, status.warnings, status.totals, status.started, status.failure and status.failure.digest


def texts(status: BuildStatus, digest: str) -> list[str]:
    """Return the lines that are kept of a step."""
    owner = status.vertex(digest)
    assert owner is not None
    return [line.text for line in owner.log.last(1000)]


@pytest.mark.parametrize(
    ("build", "steps", "cached", "transferred"),
    [
        ("engine-20.10.24-image", 9, 0, 41005),
        ("engine-28.5.2-image", 9, 0, 41065),
        ("engine-28.5.2-unchanged", 9, 3, 593),
        ("engine-28.5.2-local", 6, 0, 40458),
        ("engine-api1.56-image", 9, 0, 41065),
    ],
)
def test_a_recorded_build_is_counted(
    recorded: Callable[[str], Messages], build: str, steps: int, cached: int, transferred: int
) -> None:
    """The totals of a recorded build are its steps, its cached ones and the bytes that passed."""
    totals = folded(recorded(build)).totals
    assert totals[:4] == (steps, steps, cached, transferred)
    assert totals.duration > 0


@pytest.mark.parametrize("engine", ["engine-20.10.24", "engine-28.5.2", "engine-api1.56"])
def test_a_recorded_failure_has_its_step_and_log(recorded: Callable[[str], Messages], engine: str) -> None:
    """The step that failed is found, with what its process wrote."""
    failure = folded(recorded(f"{engine}-failing")).failure
    assert failure is not None
    assert failure.name.startswith("[2/2] RUN")
    assert failure.error.endswith("exit code: 1")
    assert {"before", "ls: /nonexistent: No such file or directory"} == {line.text for line in failure.log.last(9)}


def test_steps_are_numbered_as_they_start() -> None:
    """Numbers follow the order of starting, not that of being known; a step never started has none."""
    status = folded(
        [told(vertex("a"), vertex("b"), vertex("c")), told(vertex("b", start=1)), told(vertex("a", start=2))]
    )
    assert [(each.digest, each.number) for each in status.vertices] == [("a", 2), ("b", 1), ("c", 0)]


def test_a_restarted_step_is_open_again_and_its_runs_add_up() -> None:
    """A new start reopens a completed step; its duration is the union of its runs."""
    status = folded([told(vertex("a", start=1, end=2)), told(vertex("a", start=5))])
    (step,) = status.vertices
    assert (step.is_completed, step.duration(9 * SECOND)) == (False, 5 * SECOND)
    status.apply(told(vertex("a", start=5, end=7)))
    status.apply(told(vertex("a", start=6, end=8)))
    assert (step.is_completed, step.duration()) == (True, 4 * SECOND)


def test_a_repeated_first_telling_undoes_nothing() -> None:
    """The telling without a start may come again after the start and is then ignored."""
    status = folded([told(vertex("a", start=1, end=2, cached=True)), told(vertex("a"))])
    assert status.vertices[0].is_completed
    assert status.vertices[0].cached


def test_a_cancelled_sibling_is_not_the_cause() -> None:
    """Of a step that failed and one that was cancelled for it, the former is the failure, whichever came first."""
    cancelled = vertex("a", start=1, end=2, error="process did not complete: context canceled")
    failed = vertex("b", start=1, end=3, error="exit code: 1")
    status = folded([told(cancelled), told(failed)])
    assert [each.digest for each in status.failures] == ["b"]
    assert status.vertices[0].is_cancelled


def test_lines_are_put_together_across_messages_and_characters() -> None:
    """A line cut within a character comes out whole, once, with the time of its first byte."""
    status = folded([told(vertex("a", start=0))])
    word = "caf\u00e9\n".encode()
    assert not status.apply(told(log("a", word[:4], moment=1))).logs
    changes = status.apply(told(log("a", word[4:] + b"next", moment=2)))
    assert [(line.time, line.text) for _, line in changes.logs] == [(SECOND, "caf\u00e9")]
    assert texts(status, "a") == ["caf\u00e9", "next"]


def test_the_two_streams_of_a_process_are_not_mixed_within_a_line() -> None:
    """Half a line of standard output is not continued by standard error."""
    status = folded([told(vertex("a", start=0))])
    status.apply(told(log("a", b"out"), log("a", b"err\n", stream=2), log("a", b"put\n")))
    assert texts(status, "a") == ["err", "output"]


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    """Undecodable bytes become replacement characters."""
    status = folded([told(vertex("a", start=0), log("a", b"\xff!\n"))])
    assert texts(status, "a") == ["\ufffd!"]


def test_a_line_that_was_begun_ends_with_its_step_or_with_the_build() -> None:
    """What has no newline is told when the step completes, and by finish() at the latest."""
    status = folded([told(vertex("a", start=0), log("a", b"one"))])
    changes = status.apply(told(vertex("a", start=0, end=1), log("a", b"two")))
    assert [line.text for _, line in changes.logs] == ["one"]
    assert [line.text for _, line in status.finish().logs] == ["two"]
    assert not status.finish()


@pytest.mark.parametrize(("excess", "lines"), [(0, 1), (1, 2)])
def test_a_line_has_a_bound(excess: int, lines: int) -> None:
    """A line of the longest length stays one; one byte more makes two, also where no newline ever comes."""
    data = b"x" * (limits.MAX_LOG_LINE + excess)
    for message in (log("a", data + b"\n"), log("a", data)):
        assert len(texts(folded([told(vertex("a", start=0), message)]), "a")) == lines


def test_only_a_tail_of_the_log_is_kept() -> None:
    """Of many lines the last are kept, of long ones fewer."""
    status = folded([told(vertex("a", start=0), *(log("a", b"%d\n" % number) for number in range(1000)))])
    assert texts(status, "a") == [str(number) for number in range(1000 - limits.LOG_TAIL_LINES, 1000)]
    status.apply(told(log("a", (b"y" * limits.MAX_LOG_LINE + b"\n") * 20)))
    assert sum(map(len, texts(status, "a"))) <= limits.LOG_TAIL_SIZE


def test_warnings_that_are_repeated_count_once() -> None:
    """The engine repeats warnings in every part of a split message; the same at another line is another."""
    first = control_pb2.VertexWarning(vertex="a", short=b"JSON arguments recommended", url="https://example.com")
    first.ranges.append(ops_pb2.Range(start=ops_pb2.Position(line=3), end=ops_pb2.Position(line=3)))
    second = control_pb2.VertexWarning()
    second.CopyFrom(first)
    second.ranges[0].start.line = 4
    status = folded([told(first), told(first, second)])
    assert [warning.source.ranges for warning in status.warnings] == [((3, 3),), ((4, 3),)]


def test_a_progress_group_is_one_step() -> None:
    """Members of a group appear as one step, hidden as long as only weak members run, cached if all are."""
    weak, strong = (ops_pb2.ProgressGroup(id="g", name="COPY a b", weak=weak) for weak in (True, False))
    status = folded([told(vertex("a", start=1, end=2, cached=True, progressGroup=weak))])
    assert status.steps == []
    status.apply(told(vertex("b", start=3, progressGroup=strong)))
    (step,) = status.steps
    assert (step.name, step.number, step.cached, step.is_completed) == ("COPY a b", 1, False, False)
    status.apply(told(vertex("b", start=3, end=4, error="no", progressGroup=strong), log("b", b"why\n")))
    assert step.error == "no"
    assert status.vertex("a") is step
    assert texts(status, "b") == ["why"]


def test_what_belongs_to_no_known_step_is_ignored() -> None:
    """Logs and transfers of a step that was never told change nothing."""
    status = BuildStatus()
    assert not status.apply(told(log("a", b"x\n"), transfer("a", "layer")))
    assert state(status) == state(BuildStatus())


def test_the_number_of_steps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound further steps are not followed, those known still are."""
    monkeypatch.setattr(limits, "MAX_VERTICES", 2)
    status = folded([told(vertex("a"), vertex("b"), vertex("c")), told(vertex("b", start=1), log("c", b"x\n"))])
    assert [each.digest for each in status.vertices] == ["a", "b"]
    assert status.vertices[1].is_started


def test_transfers_and_runs_of_a_step_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither statuses nor runs of one step can be piled up."""
    monkeypatch.setattr(limits, "MAX_STATUSES", 2)
    status = folded([told(*(vertex("a", start=start, end=start) for start in range(1, 5)))])
    status.apply(told(*(transfer("a", str(each)) for each in range(4))))
    assert list(status.vertices[0].statuses) == ["0", "1"]
    assert len(status.vertices[0].intervals) == 2


def _part() -> st.SearchStrategy[object]:
    digests = st.sampled_from(["a", "b", "c"])
    groups = st.sampled_from([None, ops_pb2.ProgressGroup(id="g", name="g", weak=True), ops_pb2.ProgressGroup(id="g")])
    moments = st.integers(0, 4)
    vertices = st.builds(
        lambda digest, start, length, cached, error, group: vertex(
            digest,
            start=start,
            end=None if start is None or length is None else start + length,
            cached=cached,
            error=error,
            progressGroup=group,
        ),
        digests,
        st.none() | moments,
        st.none() | moments,
        st.booleans(),
        st.sampled_from(["", "boom", "context canceled"]),
        groups,
    )
    statuses = st.builds(
        lambda digest, name, moment: transfer(digest, name, moment=moment),
        digests,
        st.sampled_from(["layer", "context"]),
        moments,
    )
    logs = st.builds(
        lambda digest, data, moment, stream: log(digest, data, moment=moment, stream=stream),
        digests,
        st.text("ab\n\u00e9", max_size=9).map(str.encode) | st.binary(max_size=6),
        moments,
        st.integers(0, 3),
    )
    warnings = st.builds(
        lambda digest, short: control_pb2.VertexWarning(vertex=digest, short=short), digests, st.binary(max_size=1)
    )
    return vertices | statuses | logs | warnings


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(_part(), max_size=8), max_size=4))
def test_how_messages_are_cut_makes_no_difference(messages: list[list[object]]) -> None:
    """The same model comes of whole messages and of their elements one by one."""
    whole = [told(*parts) for parts in messages]
    single = [
        told(part)
        for message in whole
        for part in (*message.vertexes, *message.statuses, *message.logs, *message.warnings)
    ]
    assert state(folded(whole)) == state(folded(single))


def test_a_large_build_is_folded_quickly() -> None:
    """300 steps and 100,000 lines take a small part of the time in which an engine could tell them."""
    messages = [told(*(vertex(str(number), start=number) for number in range(300)))]
    chunk = b"the quick brown fox jumps over the lazy dog\n" * 10
    messages += [told(*(log(str(number), chunk) for number in range(100))) for _ in range(100)]
    began = time.perf_counter()
    status = folded(messages)
    assert time.perf_counter() - began < 1.5
    assert len(texts(status, "99")) == limits.LOG_TAIL_LINES

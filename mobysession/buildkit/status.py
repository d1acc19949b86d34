"""How a build goes, as one model: a pure fold over the messages of ``Control.Status``.

BuildKit tells of a build in increments. A *vertex* is a step; it is told again whenever it changes, may be started and
completed several times, and is cached, failed or cancelled in the end. *Statuses* are transfers and layers within a
vertex, *logs* are what its process wrote, *warnings* are remarks. Nothing is told twice except warnings, which come
again with every part of a message that the engine had to split.

:meth:`BuildStatus.apply` takes one message and says what it changed; the model is the same however the messages were
cut. Times are nanoseconds since the epoch on the engine's clock. Text is kept as it came: whoever shows it makes it
:func:`~mobysession.buildkit.printable.printable`. What is kept is bounded, as the engine is a peer and not a friend.

Vertices of one *progress group* are shown as a single step; one that is only weakly grouped appears when another
member runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mobysession import limits
from mobysession.buildkit.source import Source
from mobysession.buildkit.vertex import Vertex, VertexStatus, VertexWarning

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from mobysession._pb import control_pb2
    from mobysession.buildkit.logs import LogLine
    from mobysession.buildkit.transfer import Arrival, Transfer

__all__ = ["BuildStatus", "Changes", "Totals", "Vertex", "VertexStatus", "VertexWarning"]

_TRANSFER = "transferring"


class Totals(NamedTuple):
    """A build in numbers: steps known, completed and cached, bytes between client and engine, duration in ns."""

    steps: int
    completed: int
    cached: int
    transferred: int
    duration: int


class Changes:
    """What one message changed. Vertices appear once each, statuses and lines in the order in which they came.

    ``message`` is the message itself; None where the changes are those of no message, as at the end.
    """

    __slots__ = ("logs", "message", "statuses", "vertices", "warnings")

    def __init__(self, message: control_pb2.StatusResponse | None = None) -> None:
        self.message = message
        self.vertices: dict[str, Vertex] = {}
        self.statuses: list[tuple[Vertex, VertexStatus]] = []
        self.logs: list[tuple[Vertex, LogLine]] = []
        self.warnings: list[VertexWarning] = []

    def __bool__(self) -> bool:
        return bool(self.vertices or self.statuses or self.logs or self.warnings)


class _Group:
    """A progress group: the vertex that is shown for it, and its members as they were last told."""

    __slots__ = ("members", "vertex")

    def __init__(self, vertex: Vertex) -> None:
        self.vertex = vertex
        self.members: dict[str, tuple[bool, str]] = {}


class BuildStatus:
    """The state of one build.

    Attributes:
        transfers: how far the engine's reading of our directories is, by the name of the directory; no message of the
            engine brings it.
        arrivals: how far the outputs are that the engine sends us, by the index of the exporter.
    """

    def __init__(self) -> None:
        self.vertices: list[Vertex] = []
        self.warnings: list[VertexWarning] = []
        self.transfers: dict[str, Transfer] = {}
        self.arrivals: dict[int, Arrival] = {}
        self.started: int | None = None
        self._by_digest: dict[str, Vertex] = {}
        self._groups: dict[str, _Group] = {}
        self._seen_warnings: set[tuple[object, ...]] = set()
        self._numbered = 0

    @property
    def steps(self) -> list[Vertex]:
        """The vertices to be shown, in order of appearance."""
        return [vertex for vertex in self.vertices if not vertex.hidden]

    @property
    def failures(self) -> list[Vertex]:
        """The steps that ended in an error of their own, earliest first."""
        failed = [vertex for vertex in self.steps if vertex.is_failed]
        return sorted(failed, key=lambda vertex: vertex.completed or 0)

    @property
    def failure(self) -> Vertex | None:
        """The step that failed first; None when none did."""
        return next(iter(self.failures), None)

    @property
    def totals(self) -> Totals:
        """The build in numbers, as of the last message."""
        steps = self.steps
        completed = [vertex for vertex in steps if vertex.is_completed]
        ends = [stop for vertex in steps for stop in vertex.intervals.values() if stop is not None]
        return Totals(
            steps=len(steps),
            completed=len(completed),
            cached=sum(vertex.cached for vertex in completed),
            transferred=sum(_transferred(vertex) for vertex in steps),
            duration=max(0, max(ends) - self.started) if ends and self.started is not None else 0,
        )

    def vertex(self, digest: str) -> Vertex | None:
        """Return the step of this digest, its progress group's where it has one; None when it was never told."""
        return self._by_digest.get(digest)

    def snapshot(self) -> BuildStatus:
        """Return a copy that stays as it is, for another thread to read; it takes no more messages."""
        copy = BuildStatus()
        copies = {id(vertex): vertex.snapshot() for vertex in self.vertices}
        copy.vertices = list(copies.values())
        copy.warnings = list(self.warnings)
        copy.transfers = dict(self.transfers)
        copy.arrivals = dict(self.arrivals)
        copy.started = self.started
        copy._by_digest = {digest: copies[id(vertex)] for digest, vertex in self._by_digest.items()}
        return copy

    def apply(self, response: control_pb2.StatusResponse) -> Changes:
        """Take the next message and return what it changed.

        Source: moby/buildkit util/progress/progressui/display.go, trace.update.
        """
        changes = Changes(response)
        for vertex in response.vertexes:
            self._apply_vertex(vertex, changes)
        for status in response.statuses:
            self._apply_status(status, changes)
        for log in response.logs:
            owner = self._by_digest.get(log.vertex)
            if owner is not None:
                lines = owner.log.feed(_time(log.timestamp), log.stream, log.msg)
                changes.logs.extend((owner, line) for line in lines)
        for warning in response.warnings:
            self._apply_warning(warning, changes)
        return changes

    def finish(self) -> Changes:
        """End the lines that were begun, as no more messages will come, and return them."""
        changes = Changes()
        for vertex in self.vertices:
            changes.logs.extend((vertex, line) for line in vertex.log.flush())
        return changes

    def _apply_vertex(self, message: control_pb2.Vertex, changes: Changes) -> None:
        vertex = self._find(message)
        if vertex is None:
            return
        if message.HasField("progressGroup"):
            self._fold_member(vertex, message)
        elif message.HasField("started") or not vertex.is_started:
            # The first telling, without a start, may come twice; it must not undo what is known by then.
            _tell(vertex, message)
        if vertex.is_started and not vertex.hidden and not vertex.number:
            self._numbered += 1
            vertex.number = self._numbered
            self.started = vertex.started if self.started is None else self.started
        if vertex.is_completed:
            changes.logs.extend((vertex, line) for line in vertex.log.flush())
        changes.vertices[vertex.digest] = vertex

    def _find(self, message: control_pb2.Vertex) -> Vertex | None:
        known = self._by_digest.get(message.digest)
        if known is not None or len(self._by_digest) >= limits.MAX_VERTICES:
            return known
        if message.HasField("progressGroup"):
            group = self._groups.get(message.progressGroup.id)
            if group is None:
                vertex = Vertex(message.progressGroup.id, message.progressGroup.name, hidden=True)
                group = self._groups[vertex.digest] = _Group(vertex)
                self.vertices.append(vertex)
            self._by_digest[message.digest] = group.vertex
            return group.vertex
        vertex = self._by_digest[message.digest] = Vertex(message.digest)
        self.vertices.append(vertex)
        return vertex

    def _fold_member(self, vertex: Vertex, message: control_pb2.Vertex) -> None:
        group = self._groups.get(message.progressGroup.id)
        if group is None or group.vertex is not vertex:
            return
        if message.HasField("started"):
            _run(vertex, message)
            vertex.hidden = vertex.hidden and message.progressGroup.weak
        if message.HasField("started") or message.digest not in group.members:
            group.members[message.digest] = (message.cached, message.error)
        vertex.cached = all(cached for cached, _ in group.members.values())
        vertex.error = next((error for _, error in group.members.values() if error), "")

    def _apply_status(self, message: control_pb2.VertexStatus, changes: Changes) -> None:
        vertex = self._by_digest.get(message.vertex)
        if vertex is None or (message.ID not in vertex.statuses and len(vertex.statuses) >= limits.MAX_STATUSES):
            return
        status = VertexStatus(
            message.ID,
            message.name,
            message.current,
            message.total,
            _time(message.timestamp),
            _time(message.started) if message.HasField("started") else None,
            _time(message.completed) if message.HasField("completed") else None,
        )
        vertex.statuses[message.ID] = status
        changes.statuses.append((vertex, status))

    def _apply_warning(self, message: control_pb2.VertexWarning, changes: Changes) -> None:
        warning = _warning(message)
        key = (
            warning.vertex,
            warning.level,
            warning.short,
            warning.url,
            warning.source.filename,
            warning.source.ranges,
        )
        if key in self._seen_warnings or len(self._seen_warnings) >= limits.MAX_STATUSES:
            return
        self._seen_warnings.add(key)
        self.warnings.append(warning)
        changes.warnings.append(warning)


def _tell(vertex: Vertex, message: control_pb2.Vertex) -> None:
    vertex.name = message.name
    vertex.inputs = tuple(message.inputs)
    vertex.cached = message.cached
    vertex.error = message.error
    if message.HasField("started"):
        _run(vertex, message)


def _run(vertex: Vertex, message: control_pb2.Vertex) -> None:
    started = _time(message.started)
    if started not in vertex.intervals and len(vertex.intervals) >= limits.MAX_STATUSES:
        return
    vertex.started = started
    vertex.completed = _time(message.completed) if message.HasField("completed") else None
    vertex.intervals[started] = vertex.completed


def _time(stamp: Timestamp) -> int:
    return stamp.seconds * 1_000_000_000 + stamp.nanos


def _transferred(vertex: Vertex) -> int:
    return sum(status.current for status in vertex.statuses.values() if status.name == _TRANSFER)


def _warning(message: control_pb2.VertexWarning) -> VertexWarning:
    return VertexWarning(
        vertex=message.vertex,
        level=message.level,
        short=message.short.decode("utf-8", "replace"),
        detail=tuple(line.decode("utf-8", "replace") for line in message.detail),
        url=message.url,
        source=Source(
            message.info.filename,
            message.info.data.decode("utf-8", "replace"),
            tuple((bounds.start.line, bounds.end.line) for bounds in message.ranges),
        ),
    )

"""The steps that a build had to wait for, one after the other: had one of them been quicker, so might the build.

From the step that failed, or else the one that ended last, the way goes back, each time to what it had to wait for: of
its inputs the one that ended last, steps that never ran being looked through. A step of whose inputs none ran, as the
export or the reading of a Dockerfile, was let go by whatever ended last before it; for that the engine's messages have
no edge.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobysession.buildkit.status import BuildStatus, Vertex

__all__ = ["critical_path"]


def critical_path(status: BuildStatus) -> list[Vertex]:
    """Return the steps of the critical path, first to last; empty where nothing has ended."""
    ended = sorted((vertex for vertex in status.steps if vertex.is_completed), key=_end)
    ends = [_end(vertex) for vertex in ended]
    path: list[Vertex] = []
    at = status.failure or (ended[-1] if ended else None)
    passed: set[str] = set()
    while at is not None:
        path.append(at)
        # Each comes before the one that it was followed by, so there is an end to it.
        at = _latest_input(status, at, passed) or _before(ended, ends, at)
    return path[::-1]


def _latest_input(status: BuildStatus, vertex: Vertex, passed: set[str]) -> Vertex | None:
    """Return the input that ended last; ``passed`` are those that never ran and were looked through, once a build."""
    latest: Vertex | None = None
    waiting = list(vertex.inputs)
    while waiting:
        found = status.vertex(waiting.pop())
        if found is None or found.digest in passed:
            continue
        if not found.is_completed:
            passed.add(found.digest)
            waiting.extend(found.inputs)
        elif not found.hidden and _end(found) < _end(vertex) and (latest is None or _end(found) > _end(latest)):
            latest = found
    return latest


def _before(ended: list[Vertex], ends: list[int], vertex: Vertex) -> Vertex | None:
    begin = min(vertex.intervals)
    at = bisect_right(ends, begin) - 1
    found = ended[at] if at >= 0 else None
    return found if found is not None and _end(found) < _end(vertex) else None


def _end(vertex: Vertex) -> int:
    return max(stop for stop in vertex.intervals.values() if stop is not None)

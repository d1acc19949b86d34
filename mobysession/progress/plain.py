"""Lines that only ever append, as ``--progress=plain`` of BuildKit's clients writes them.

Steps run at the same time, lines come one after another. So one step is *current* and is written until it completes;
the others are held back meanwhile. Completed ones come first, each as a whole. A current step that has been
written for long gives way, marked by ``...``, to one that has waited too long or has much more to say.
Steps are numbered in the order in which they are first written.

Writing happens at most every tenth of a second, so that a transfer does not get a line for each packet.

Source: moby/buildkit util/progress/progressui/printer.go, for the form of the lines and the numbers below.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

from mobysession.buildkit.printable import printable
from mobysession.progress.text import (
    SECOND,
    failed_logs,
    log_line,
    status_progress,
    status_time,
    warning_summary,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession.buildkit.status import BuildStatus, Changes, Vertex, VertexStatus

__all__ = ["PlainView"]

_REFRESH = 0.1
_TICK = 0.15
#: Seconds for which the current step is not given up, unless others say much more.
_ANTI_FLICKER = 5.0
#: Seconds after which a step that was held back is written in any case.
_MAX_DELAY = 10.0
#: A status is written again only after this share of its total, or this time (ns).
_MIN_PROGRESS = 0.05
_MIN_TIME = 5 * SECOND
#: Lines held back for one step before it is written in any case; our bound.
_MAX_HELD = 1000


class _Step:
    """A vertex, and what of it is not written yet."""

    __slots__ = ("count", "last", "lines", "number", "since", "statuses", "told", "vertex", "warnings")

    def __init__(self, vertex: Vertex) -> None:
        self.vertex = vertex
        self.number = 0
        self.told: tuple[object, ...] = ()
        self.statuses: set[str] = set()
        self.last: dict[str, VertexStatus] = {}
        self.warnings: list[str] = []
        self.lines: list[str] = []
        self.count = 0
        self.since = 0.0

    def touch(self, now: float) -> None:
        if not self.count:
            self.since = now
        self.count += 1

    def speed(self, now: float) -> float:
        return self.count / max(now - self.since, 1e-6)

    def is_overdue(self, now: float) -> bool:
        return len(self.lines) > _MAX_HELD or (self.count > 0 and now - self.since > _MAX_DELAY)


class PlainView:
    """A view that appends lines to a text stream.

    Args:
        stream: stays the caller's.
        clock: seconds, monotonic; decides only when lines are written, all times shown are the engine's.
    """

    interval = _TICK

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._status: BuildStatus | None = None
        self._steps: dict[str, _Step] = {}
        self._dirty: dict[str, _Step] = {}
        self._current: _Step | None = None
        self._numbered = 0
        self._begun = False
        self._written_at = float("-inf")
        self._out: list[str] = []

    def update(self, status: BuildStatus, changes: Changes) -> None:
        """Take what one message changed; write it unless something was written a moment ago."""
        self._status = status
        now = self._clock()
        self._take(status, changes, now)
        if now - self._written_at >= _REFRESH:
            self._refresh(now)

    def tick(self) -> None:
        """Write what was held back for a moment."""
        now = self._clock()
        if now - self._written_at >= _REFRESH:
            self._refresh(now)

    def close(self, error: BaseException | None = None) -> None:
        """Write everything that is left, the logs of the failed steps after an error, and the warnings."""
        status, self._status = self._status, None
        if status is None:
            return
        self._take(status, status.finish(), self._clock())
        self._refresh(self._clock())
        for step in [step for step in self._dirty.values() if not step.vertex.hidden]:
            self._write(step)
        if error is not None:
            self._out.extend(failed_logs(status))
        self._out.extend(warning_summary(status.warnings))
        self._flush()

    def _take(self, status: BuildStatus, changes: Changes, now: float) -> None:
        for vertex in changes.vertices.values():
            told = (vertex.name, vertex.started, vertex.completed, vertex.cached, vertex.error)
            if vertex.is_started and self._step(vertex).told != told:
                self._touch(vertex, now).told = told
        for vertex, each in changes.statuses:
            self._touch(vertex, now).statuses.add(each.id)
        for vertex, line in changes.logs:
            self._touch(vertex, now).lines.append(log_line(vertex, line))
        for warning in changes.warnings:
            owner = status.vertex(warning.vertex)
            if owner is not None:
                self._touch(owner, now).warnings.append(printable(warning.short))

    def _step(self, vertex: Vertex) -> _Step:
        step = self._steps.get(vertex.digest)
        if step is None:
            step = self._steps[vertex.digest] = _Step(vertex)
        return step

    def _touch(self, vertex: Vertex, now: float) -> _Step:
        step = self._step(vertex)
        step.touch(now)
        self._dirty[vertex.digest] = step
        return step

    def _refresh(self, now: float) -> None:
        self._written_at = now
        shown = [step for step in self._dirty.values() if not step.vertex.hidden]
        completed = [step for step in shown if step.vertex.is_completed]
        running = [step for step in shown if not step.vertex.is_completed]
        current = self._current
        # The current one first, else it would have to be left and taken up again.
        for step in sorted(completed, key=lambda step: (step is not current, _end(step.vertex))):
            self._write(step)
        if running:
            self._write_running(running, current, now)
        elif current is None or current.vertex.is_completed:
            self._write_any_open()
        self._flush()

    def _write_any_open(self) -> None:
        for step in self._steps.values():
            if step.vertex.is_started and not step.vertex.is_completed and not step.vertex.hidden:
                self._write(step)
                return

    def _write_running(self, running: list[_Step], current: _Step | None, now: float) -> None:
        if current is None or current.vertex.is_completed:
            self._write(max(running, key=lambda step: (step.is_overdue(now), step.speed(now))))
            return
        if current in running:
            self._write(current)
        others = [step for step in running if step is not current]
        overdue = next((step for step in others if step.is_overdue(now)), None)
        if overdue is not None:
            self._write(overdue)
        elif others and self._must_share(current, others, now):
            self._write(max(others, key=lambda step: step.speed(now)))

    def _must_share(self, current: _Step, others: list[_Step], now: float) -> bool:
        speeds = sum(step.speed(now) for step in others)
        # The more of all that is said comes from the current step, the longer it may go on.
        share = current.speed(now) / (current.speed(now) + speeds)
        return (now - current.since) * (1 - share) > _ANTI_FLICKER

    def _write(self, step: _Step) -> None:
        self._dirty.pop(step.vertex.digest, None)
        if not step.number:
            self._numbered += 1
            step.number = self._numbered
        if self._current is not step:
            self._head(step)
        mark = f"#{step.number}"
        is_open = self._write_statuses(step, mark)
        self._out.extend(f"{mark} WARN: {short}" for short in step.warnings)
        self._out.extend(f"{mark} {line}" for line in step.lines)
        step.warnings.clear()
        step.lines.clear()
        self._current = step
        # The import of a remote cache tells of transfers after its vertex has completed.
        if step.vertex.is_completed and not is_open:
            self._current = None
            step.count = 0
            self._out.append(f"{mark} {_ending(step.vertex)}")

    def _head(self, step: _Step) -> None:
        if self._current is not None:
            self._current.count = 0
            self._out.append(f"#{self._current.number} ...")
        if self._begun:
            self._out.append("")
        self._begun = True
        self._out.append(f"#{step.number} {printable(step.vertex.name)}")

    def _write_statuses(self, step: _Step, mark: str) -> bool:
        is_open = False
        updated = [status for id_, status in step.vertex.statuses.items() if id_ in step.statuses]
        step.statuses.clear()
        for status in updated:
            if status.started is None or not _is_worth_a_line(status, step.last.get(status.id)):
                continue
            step.last[status.id] = status
            is_open = is_open or status.completed is None
            self._out.append(f"{mark} {printable(status.id)}{status_progress(status)}{status_time(status)}")
        return is_open

    def _flush(self) -> None:
        lines, self._out = self._out, []
        write(self._stream, lines)


def _is_worth_a_line(status: VertexStatus, last: VertexStatus | None) -> bool:
    if last is None or status.completed is not None:
        return True
    progress = (status.current - last.current) / status.total if status.total > 0 else 0.0
    return progress >= _MIN_PROGRESS or status.timestamp - last.timestamp >= _MIN_TIME


def _end(vertex: Vertex) -> int:
    return max((stop for stop in vertex.intervals.values() if stop is not None), default=0)


def _ending(vertex: Vertex) -> str:
    if vertex.is_cancelled:
        return "CANCELED"
    if vertex.error:
        return f"ERROR: {printable(vertex.error, newlines=True)}"
    if vertex.cached:
        return "CACHED"
    return f"DONE {vertex.duration() / SECOND:.1f}s"

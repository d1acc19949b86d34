"""A build over time: what its steps, their transfers and the engine's callbacks were doing when.

:class:`Timeline` is fed like a view, and with the events of the session. In the end it is one value,
:class:`Recorded`, of which a page (`mobysession.progress.page`) or a trace (`mobysession.progress.trace`) is made.

Steps are told on the engine's clock, callbacks on ours, and these are moved by how far ours is ahead. Texts are made
printable here, and what is kept of logs is bounded.
"""

from __future__ import annotations

import re
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from mobysession import limits
from mobysession.buildkit.logs import STDERR
from mobysession.buildkit.printable import printable
from mobysession.events import AccessDecided, CallEnded, CallStarted
from mobysession.progress.critical import critical_path
from mobysession.progress.engine_clock import EngineClock
from mobysession.progress.text import SECOND, step_warnings

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession.buildkit.logs import LogLine
    from mobysession.buildkit.status import BuildStatus, Changes, Vertex, VertexStatus
    from mobysession.events import SessionEvent

__all__ = ["HEALTH", "Call", "Moved", "Recorded", "State", "Step", "Timeline", "call_kind"]

State = Literal["done", "cached", "failed", "cancelled", "running"]

#: Calls of no build: the engine asks whether the session lives.
HEALTH = "/grpc.health.v1.Health/"
_PLACE = re.compile(r"\[(.+?)(?: +\d+/\d+)?\]")
_OUTPUTS = "results"
#: Bytes of a line besides its characters, about.
_LINE = 100
#: What a method serves, in a word; by the last parts of its URL.
_KINDS = {
    "filesync.v1.FileSync": "files",
    "filesync.v1.FileSend": "output",
    "filesync.v1.Auth": "auth",
    "secrets.v1.Secrets": "secret",
    "sshforward.v1.SSH": "ssh",
    "upload.v1.Upload": "upload",
}


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A transfer or another part of a step; times in seconds after the beginning, ``total`` 0 where it is unknown."""

    name: str
    start: float
    end: float
    current: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step: its runs as (start, end), its parts, what it wrote as (time, is stderr, text).

    ``number`` is that of the views. ``omitted`` lines came before those of ``log`` and were not kept.
    """

    number: int
    name: str
    stage: str
    state: State
    runs: tuple[tuple[float, float], ...]
    critical: bool
    error: str = ""
    parts: tuple[Moved, ...] = ()
    log: tuple[tuple[float, bool, str], ...] = ()
    omitted: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Call:
    """A callback of the engine: what it was for, whom or what it named, bytes each way, and how it was answered."""

    kind: str
    subject: str
    method: str
    start: float
    end: float
    sent: int = 0
    received: int = 0
    code: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A build over time; ``begun`` is seconds since the epoch on the engine's clock, all other times count from it."""

    title: str
    outcome: Literal["succeeded", "failed", "cancelled"]
    error: str
    begun: float
    duration: float
    steps: tuple[Step, ...]
    calls: tuple[Call, ...]


@dataclass
class _Log:
    lines: deque[LogLine] = field(default_factory=deque)
    size: int = 0
    omitted: int = 0

    def add(self, line: LogLine) -> None:
        self.lines.append(line)
        self.size += len(line.text)
        while len(self.lines) > limits.TIMELINE_LINES or self.size > limits.TIMELINE_LOG_SIZE:
            self.drop()

    def drop(self) -> None:
        """Let the oldest line go."""
        self.size -= len(self.lines.popleft().text)
        self.omitted += 1

    @property
    def cost(self) -> int:
        """Bytes that it takes, about."""
        return self.size + _LINE * len(self.lines)


class Timeline:
    """Remembers one build.

    Args:
        title: what the build is called.
        clock: seconds since the epoch.
        hide: takes out of a text what nobody is to read.
    """

    def __init__(
        self, title: str, *, clock: Callable[[], float] = time.time, hide: Callable[[str], str] = lambda text: text
    ) -> None:
        self._title = title
        self._clock = clock
        self._hide = hide
        self._status: BuildStatus | None = None
        self._logs: dict[str, _Log] = {}
        self._cost = 0
        self._begun: dict[int, CallStarted] = {}
        self._subjects: dict[int, tuple[str, str]] = {}
        self._ended: deque[CallEnded] = deque(maxlen=limits.TIMELINE_CALLS)
        self._engine = EngineClock(clock)

    def update(self, status: BuildStatus, changes: Changes) -> None:
        """Take what one message of the engine changed."""
        self._status = status
        for vertex, line in changes.logs:
            self._keep(self._logs.setdefault(vertex.digest, _Log()), line)
        if changes.message is not None:
            self._engine.learn(changes)

    def _keep(self, log: _Log, line: LogLine) -> None:
        before = log.cost
        log.add(line)
        self._cost += log.cost - before
        while self._cost > limits.TIMELINE_SIZE and log.lines:
            before = log.cost
            log.drop()
            self._cost += log.cost - before

    def event(self, event: SessionEvent) -> None:
        """Take what happened on the session; that the engine asks whether it lives is nothing that a build does."""
        match event:
            case CallStarted(method=method) | CallEnded(method=method) if method.startswith(HEALTH):
                pass
            case CallStarted() if len(self._begun) < limits.TIMELINE_CALLS:
                self._begun[event.call_id] = event
            case AccessDecided() if event.call_id in self._begun:
                self._subjects[event.call_id] = (event.kind, event.subject)
            case CallEnded():
                self._begun.pop(event.call_id, None)
                self._ended.append(event)

    def recorded(self, error: BaseException | None = None) -> Recorded:
        """Return the build as it has been so far; ``error`` is what ended it."""
        steps = self._status.steps if self._status is not None else []
        vertices = [vertex for vertex in steps if vertex.is_started]
        shift = -self._engine.ahead / SECOND
        moments = [moment for vertex in vertices for moment in _moments(vertex)]
        ends = [moment / SECOND for moment in moments] + [call.time - shift for call in self._ended]
        starts = [*ends, *(call.time - call.duration - shift for call in self._ended)]
        starts += [call.time - shift for call in self._begun.values()]
        begun, end = min(starts, default=self._clock()), max([*ends, *starts], default=self._clock())
        return Recorded(
            title=printable(self._title),
            outcome=_outcome(error),
            error=printable(self._hide(str(error))) if isinstance(error, Exception) else "",
            begun=begun,
            duration=end - begun,
            steps=self._steps(vertices, begun, end),
            calls=tuple(self._calls(begun + shift, end + shift)),
        )

    def _steps(self, vertices: list[Vertex], begun: float, end: float) -> tuple[Step, ...]:
        if self._status is None:
            return ()
        critical = {vertex.digest for vertex in critical_path(self._status)}
        warnings = step_warnings(self._status)
        return tuple(
            self._step(
                vertex,
                tuple(map(printable, warnings.get(vertex.digest, ()))),
                critical=vertex.digest in critical,
                begun=begun,
                end=end,
            )
            for vertex in sorted(vertices, key=lambda vertex: vertex.number)
        )

    def _step(self, vertex: Vertex, warnings: tuple[str, ...], *, critical: bool, begun: float, end: float) -> Step:
        def after(moment: int) -> float:
            return moment / SECOND - begun

        log = self._logs.get(vertex.digest, _Log())
        runs = [(start, stop if stop is not None else round(end * SECOND)) for start, stop in vertex.intervals.items()]
        return Step(
            number=vertex.number,
            name=printable(vertex.name),
            stage=_stage(vertex.name),
            state=_state(vertex),
            runs=tuple((after(start), max(after(start), after(stop))) for start, stop in sorted(runs)),
            critical=critical,
            error=printable(vertex.error),
            parts=tuple(_part(status, begun, end) for status in vertex.statuses.values() if status.started is not None),
            # What was hidden in each message may have been cut in two by messages.
            log=tuple(
                (after(line.time), line.stream == STDERR, printable(self._hide(line.text))) for line in log.lines
            ),
            omitted=log.omitted,
            warnings=warnings,
        )

    def _calls(self, begun: float, end: float) -> list[Call]:
        ended = [
            replace(
                self._call(call.call_id, call.method),
                start=call.time - call.duration - begun,
                end=call.time - begun,
                sent=call.sent,
                received=call.received,
                code=call.code.name,
                message=printable(self._hide(call.message)),
            )
            for call in self._ended
        ]
        running = [
            replace(self._call(call.call_id, call.method), start=call.time - begun, end=end - begun)
            for call in self._begun.values()
        ]
        return sorted(ended + running, key=lambda call: call.start)

    def _call(self, call_id: int, method: str) -> Call:
        """Return what is known of a call from its beginning on."""
        kind, subject = self._subjects.get(call_id, ("", ""))
        return Call(
            kind=printable(call_kind(method) or kind),
            subject=printable(self._hide(subject)) if subject != method else "",
            method=printable(method),
            start=0.0,
            end=0.0,
        )


def call_kind(method: str) -> str:
    """Return in a word what a method serves; the name of its service, should it be none of BuildKit's."""
    service = method.strip("/").rpartition("/")[0]
    return next((word for end, word in _KINDS.items() if service.endswith(end)), service.rpartition(".")[2])


def _part(status: VertexStatus, begun: float, end: float) -> Moved:
    start = (status.started or 0) / SECOND
    stop = status.completed / SECOND if status.completed is not None else end
    return Moved(
        name=printable(status.id),
        start=start - begun,
        end=max(start, stop) - begun,
        current=status.current,
        total=status.total,
    )


def _moments(vertex: Vertex) -> list[int]:
    ends = [stop for stop in vertex.intervals.values() if stop is not None]
    parts = [moment for status in vertex.statuses.values() for moment in (status.started, status.completed) if moment]
    return [*vertex.intervals, *ends, *parts]


def _stage(name: str) -> str:
    """Return what the name has in brackets without the number in it: stage and platform, in the frontend's words."""
    found = _PLACE.match(name)
    return printable(found[1]) if found else _OUTPUTS


def _state(vertex: Vertex) -> State:
    if not vertex.is_completed:
        return "running"
    if vertex.error:
        return "cancelled" if vertex.is_cancelled else "failed"
    return "cached" if vertex.cached else "done"


def _outcome(error: BaseException | None) -> Literal["succeeded", "failed", "cancelled"]:
    if error is None:
        return "succeeded"
    return "failed" if isinstance(error, Exception) else "cancelled"

"""A step of a build, as far as it is known, and what happens within it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mobysession.buildkit.logs import LogTail

if TYPE_CHECKING:
    from mobysession.buildkit.source import Source

__all__ = ["Vertex", "VertexStatus", "VertexWarning"]

_CANCELLED = "context canceled"


class VertexStatus(NamedTuple):
    """One transfer or other part of a step.

    ``id`` is what is shown, ``name`` the kind (``transferring`` for what passes between client and engine), ``current``
    and ``total`` mostly bytes, a total of 0 unknown. Times are ns since the epoch.
    """

    id: str
    name: str
    current: int
    total: int
    timestamp: int
    started: int | None
    completed: int | None


class VertexWarning(NamedTuple):
    """A remark on a step: its text, the lines explaining it, where to read more, and the place in the Dockerfile."""

    vertex: str
    level: int
    short: str
    detail: tuple[str, ...]
    url: str
    source: Source


class Vertex:
    """One step, as far as it is known; changed in place by :class:`BuildStatus`.

    Attributes:
        digest: its content address; the ID of a progress group.
        number: 1, 2, ... in the order in which steps were first started; 0 before that.
        started: start of the latest run; None before it.
        completed: end of the latest run; None while it runs.
        error: why it failed, in the engine's words; empty otherwise.
        hidden: a weak progress group of which nothing else runs yet: not to be shown.
        intervals: every run by its start; the end is None while it runs.
        statuses: by ID, in order of appearance.
    """

    __slots__ = (
        *("digest", "name", "number", "inputs", "cached", "started", "completed", "error", "hidden"),
        *("intervals", "statuses", "log"),
    )

    def __init__(self, digest: str, name: str = "", *, hidden: bool = False) -> None:
        self.digest = digest
        self.name = name
        self.number = 0
        self.inputs: tuple[str, ...] = ()
        self.cached = False
        self.started: int | None = None
        self.completed: int | None = None
        self.error = ""
        self.hidden = hidden
        self.intervals: dict[int, int | None] = {}
        self.statuses: dict[str, VertexStatus] = {}
        self.log = LogTail()

    def __repr__(self) -> str:
        return f"<Vertex {self.digest} {self.name!r}>"

    @property
    def is_started(self) -> bool:
        """It has been started at least once."""
        return bool(self.intervals)

    @property
    def is_completed(self) -> bool:
        """Every run of it has ended."""
        return bool(self.intervals) and None not in self.intervals.values()

    @property
    def is_cancelled(self) -> bool:
        """It ended because the build did, which makes it no cause."""
        return self.error.endswith(_CANCELLED)

    @property
    def is_failed(self) -> bool:
        """It ended in an error of its own."""
        return bool(self.error) and not self.is_cancelled

    def snapshot(self) -> Vertex:
        """Return a copy that stays as it is."""
        copy = Vertex.__new__(Vertex)
        for name in Vertex.__slots__:
            setattr(copy, name, getattr(self, name))
        copy.intervals = dict(self.intervals)
        copy.statuses = dict(self.statuses)
        copy.log = self.log.snapshot()
        return copy

    def duration(self, now: int | None = None) -> int:
        """Return for how long it ran, in ns: runs that overlap count once, an open one lasts until ``now``."""
        total, until = 0, 0
        for start, stop in sorted(self.intervals.items(), key=lambda interval: interval[0]):
            end = stop if stop is not None else (now if now is not None else start)
            total += max(0, end - max(start, until))
            until = max(until, end)
        return total

"""Builds to show: recorded ones with the times at which engines told them, and made-up ones."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mobysession._pb import control_pb2
from mobysession.buildkit.status import BuildStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.progress import View

_DATA = Path(__file__).parent.parent / "data"


class Build:
    """A build that a view is shown: the model, and a clock that only goes when told to."""

    def __init__(self) -> None:
        self.status = BuildStatus()
        self.now = 1000.0
        self._begin = self.now

    def clock(self) -> float:
        """Return the seconds of the clock."""
        return self.now

    def tell(self, view: View, response: control_pb2.StatusResponse) -> None:
        """Fold one message and show what it changed."""
        view.update(self.status, self.status.apply(response))

    def step(
        self,
        view: View,
        digest: str,
        *,
        name: str = "",
        start: float | None = None,
        end: float | None = None,
        log: bytes = b"",
        error: str = "",
        cached: bool = False,
    ) -> None:
        """Tell of one step; times in seconds after the beginning, logs are written at the moment of the clock."""
        response = control_pb2.StatusResponse()
        vertex = response.vertexes.add(digest=digest, name=name or f"step {digest}", error=error, cached=cached)
        if start is not None:
            vertex.started.seconds, vertex.started.nanos = _stamp(start)
        if end is not None:
            vertex.completed.seconds, vertex.completed.nanos = _stamp(end)
        if log:
            self.log(view, digest, log, response)
        else:
            self.tell(view, response)

    def log(self, view: View, digest: str, data: bytes, response: control_pb2.StatusResponse | None = None) -> None:
        """Tell what a step wrote just now."""
        response = response if response is not None else control_pb2.StatusResponse()
        line = response.logs.add(vertex=digest, stream=1, msg=data)
        line.timestamp.seconds, line.timestamp.nanos = _stamp(self.now - self._begin)
        self.tell(view, response)

    def transfer(
        self, view: View, digest: str, name: str, current: int, *, total: int = 0, start: float = 0, done: bool = False
    ) -> None:
        """Tell of a transfer, begun at ``start``, as of now."""
        response = control_pb2.StatusResponse()
        status = response.statuses.add(vertex=digest, ID=name, name="transferring", current=current, total=total)
        status.timestamp.seconds, status.timestamp.nanos = _stamp(self.now - self._begin)
        status.started.seconds, status.started.nanos = _stamp(start)
        if done:
            status.completed.CopyFrom(status.timestamp)
        self.tell(view, response)

    def replay(self, view: View, recording: str) -> None:
        """Show a recorded build as it came, with the ticks between the messages."""
        tick = float("inf")
        for moment, message in _recorded(recording):
            while tick < moment:
                self.now = self._begin + tick
                view.tick()
                tick += view.interval
            self.now = self._begin + moment
            self.tell(view, message)
            tick = min(tick, moment + view.interval)


def _stamp(seconds: float) -> tuple[int, int]:
    return divmod(1_000_000_000 * 1_000_000_000 + round(seconds * 1_000_000_000), 1_000_000_000)


def _recorded(recording: str) -> Iterator[tuple[float, control_pb2.StatusResponse]]:
    for line in (_DATA / f"status-{recording}.txt").read_text("ascii").splitlines():
        moment, message = line.split()
        yield int(moment) / 1000, control_pb2.StatusResponse.FromString(base64.b64decode(message))


@pytest.fixture
def build() -> Build:
    """Give a build of which nothing has been told."""
    return Build()

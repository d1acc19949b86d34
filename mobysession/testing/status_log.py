"""The status of one build, as an engine tells it: increments, kept from the first on, for whoever asks and whenever."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import trio

from mobysession._pb import control_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

__all__ = ["FakeVertex", "StatusLog"]


class StatusLog:
    """Status messages, and the news that no more will come."""

    def __init__(self) -> None:
        self._messages: list[control_pb2.StatusResponse] = []
        self._over = False
        self._changed = trio.lowlevel.ParkingLot()

    def publish(self, message: control_pb2.StatusResponse) -> None:
        """Tell ``message``."""
        self._messages.append(message)
        self._changed.unpark_all()

    def finish(self) -> None:
        """Tell that it was the last."""
        self._over = True
        self._changed.unpark_all()

    def vertices(self) -> list[control_pb2.Vertex]:
        """Return each step as it was last told."""
        return list({vertex.digest: vertex for message in self._messages for vertex in message.vertexes}.values())

    def as_file(self) -> bytes:
        """Return what was told as a record keeps it: each message behind its length in four bytes, the lowest first."""
        encoded = [message.SerializeToString() for message in self._messages]
        return b"".join(len(message).to_bytes(4, "little") + message for message in encoded)

    async def follow(self) -> AsyncIterator[control_pb2.StatusResponse]:
        """Yield every message, from the first to the last."""
        told = 0
        while True:
            while told < len(self._messages):
                yield self._messages[told]
                told += 1
            if self._over:
                return
            await self._changed.park()


class FakeVertex:
    """A step as the engine tells it: its state, its transfers, its output.

    Args:
        log: where it is told.
        name: as shown.
        inputs: the vertices it builds on.
    """

    def __init__(self, log: StatusLog, name: str, inputs: Iterable[FakeVertex] = ()) -> None:
        self.name = name
        self._vertex = control_pb2.Vertex(name=name, inputs=[vertex.digest for vertex in inputs])
        seed = "\0".join((name, *self._vertex.inputs))
        self._vertex.digest = f"sha256:{hashlib.sha256(seed.encode()).hexdigest()}"
        self._log = log
        self._statuses: dict[str, control_pb2.VertexStatus] = {}

    @property
    def digest(self) -> str:
        """What identifies it."""
        return self._vertex.digest

    def announce(self) -> None:
        """Tell that it will come."""
        self._tell()

    def start(self) -> None:
        """Tell that it has begun."""
        self._vertex.started.GetCurrentTime()
        self._tell()

    def complete(self, *, cached: bool = False, error: str = "") -> None:
        """Tell that it is over."""
        self._vertex.completed.GetCurrentTime()
        self._vertex.cached = cached
        self._vertex.error = error
        self._tell()

    def log(self, text: str | bytes, *, stream: int = 1) -> None:
        """Tell output of its process: 1 is standard output, 2 standard error."""
        data = text.encode() if isinstance(text, str) else text
        line = control_pb2.VertexLog(vertex=self.digest, stream=stream, msg=data)
        line.timestamp.GetCurrentTime()
        self._log.publish(control_pb2.StatusResponse(logs=[line]))

    def status(self, status_id: str, *, current: int = 0, total: int = 0, name: str = "", done: bool = False) -> None:
        """Tell how far a part of it is; ``name`` is ``transferring`` for bytes on their way."""
        status = self._statuses.get(status_id)
        if status is None:
            status = self._statuses[status_id] = control_pb2.VertexStatus(
                ID=status_id, vertex=self.digest, name=name, total=total
            )
            status.started.GetCurrentTime()
        status.current = current
        status.timestamp.GetCurrentTime()
        if done:
            status.completed.GetCurrentTime()
        self._log.publish(control_pb2.StatusResponse(statuses=[status]))

    def warn(self, short: str, *, detail: Iterable[str] = (), url: str = "", level: int = 1) -> None:
        """Tell a warning."""
        warning = control_pb2.VertexWarning(
            vertex=self.digest, level=level, short=short.encode(), detail=[line.encode() for line in detail], url=url
        )
        self._log.publish(control_pb2.StatusResponse(warnings=[warning]))

    def _tell(self) -> None:
        self._log.publish(control_pb2.StatusResponse(vertexes=[self._vertex]))

"""Noticing a secret where it does not belong: in a build argument, in a label, in the log of a step.

A build argument is kept in the image's history, a label in its configuration, a log in the engine's build history; all
three are read by whoever gets them. A secret that stands there is told as a warning of the build, by its ID and never
by its value, as soon as the value is known: at once for bytes, for others when the daemon asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mobysession import limits
from mobysession._pb import control_pb2
from mobysession.redaction import SHORTEST

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LeakWatch"]

#: Bytes from which on a value also counts inside of a longer text. Shorter ones stand there by chance.
_SHORTEST_PART: Final = 8
_ARGUMENT: Final = "is kept in the image's history. Use RUN --mount=type=secret alone."
_LABEL: Final = "is kept in the image's configuration."


class LeakWatch:
    """The places of one build where no secret should be.

    Args:
        arguments: its build arguments.
        labels: its labels.
    """

    def __init__(self, arguments: Mapping[str, str], labels: Mapping[str, str]) -> None:
        self._places = [
            (f"{kind} {name}", value.encode("utf-8", "surrogateescape"), why)
            for kind, given, why in (("build argument", arguments, _ARGUMENT), ("label", labels, _LABEL))
            for name, value in given.items()
        ]
        self._told: set[tuple[str, str]] = set()
        self._pending: list[tuple[str, str]] = []

    def look(self, secret_id: str, value: bytes) -> None:
        """Take note of every place that holds the value of a secret."""
        value = value.strip()
        if len(value) < SHORTEST:
            return
        for place, held, why in self._places:
            if value == held.strip() or (len(value) >= _SHORTEST_PART and value in held):
                self._tell("", f"SecretInBuild: {place} holds the value of secret {secret_id!r}, and {why}")

    def printed(self, vertex: str) -> None:
        """Take note that a step, known by its digest, printed a secret."""
        self._tell(
            vertex, "SecretInLog: a step printed the value of a secret; it is hidden here, but the engine has kept it."
        )

    def take(self) -> list[control_pb2.VertexWarning]:
        """Return the warnings that were not returned yet, each told once in a build."""
        pending, self._pending = self._pending, []
        return [control_pb2.VertexWarning(vertex=vertex, level=1, short=text.encode()) for vertex, text in pending]

    def _tell(self, vertex: str, text: str) -> None:
        if (vertex, text) not in self._told and len(self._told) < limits.MAX_STATUSES:
            self._told.add((vertex, text))
            self._pending.append((vertex, text))

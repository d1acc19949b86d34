"""Secrets in what an engine reports, hidden before anything is made of it.

The output of a step arrives as it was read from a pipe: a value may come in two messages. So the end of a message that
may be the beginning of a value is held back, until the next message of the same output or the end of the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mobysession import limits
from mobysession._pb import control_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mobysession.build.leaks import LeakWatch
    from mobysession.redaction import Redactor

__all__ = ["StatusHiding"]


class _Held(NamedTuple):
    """The end of a message, which was not shown yet, and the message without its text."""

    log: control_pb2.VertexLog
    data: bytes


class StatusHiding:
    """Hide secrets in the messages of one build.

    Args:
        redactor: knows them.
        leaks: is told of steps that print one.
    """

    def __init__(self, redactor: Redactor, leaks: LeakWatch | None = None) -> None:
        self._redactor = redactor
        self._leaks = leaks
        self._held: dict[tuple[str, int], _Held] = {}

    def hide(self, response: control_pb2.StatusResponse) -> list[control_pb2.StatusResponse]:
        """Change a message where it shows a secret, and return what is to be shown: it, and what was held back."""
        if not self._redactor:
            return [response]
        for log in response.logs:
            self._hide_log(log)
        for message, names in _shown(response):
            for name in names:
                text = getattr(message, name)
                if (hidden := self._redactor.redact(text)) is not text:
                    setattr(message, name, hidden)
        for warning in response.warnings:
            for number, line in enumerate(warning.detail):
                warning.detail[number] = self._redactor.redact(line)
        ended = {vertex.digest for vertex in response.vertexes if vertex.HasField("completed")}
        # Before the news of the end, with which the lines that were begun are ended too.
        return [*self._let_go(key for key in self._held if key[0] in ended), response]

    def rest(self) -> list[control_pb2.StatusResponse]:
        """Return what is still held back: nothing more will come."""
        return self._let_go(self._held)

    def _hide_log(self, log: control_pb2.VertexLog) -> None:
        key = log.vertex, log.stream
        held = self._held.pop(key, None)
        text = log.msg if held is None else held.data + log.msg
        hidden = self._redactor.redact(text)
        if self._leaks is not None and hidden is not text:
            self._leaks.printed(log.vertex)
        kept = self._redactor.unfinished(hidden)
        # An engine could name any number of steps, and say the beginning of a long value on each.
        if kept > limits.MAX_LOG_LINE or len(self._held) >= limits.MAX_STATUSES:
            kept = 0
        if kept:
            self._held[key] = _Held(
                control_pb2.VertexLog(vertex=log.vertex, stream=log.stream, timestamp=log.timestamp), hidden[-kept:]
            )
            hidden = hidden[:-kept]
        if held is not None or hidden is not text:
            log.msg = hidden

    def _let_go(self, keys: Iterable[tuple[str, int]]) -> list[control_pb2.StatusResponse]:
        logs = []
        for key in list(keys):
            log, data = self._held.pop(key)
            log.msg = data
            logs.append(log)
        return [control_pb2.StatusResponse(logs=logs)] if logs else []


def _shown(response: control_pb2.StatusResponse) -> Iterator[tuple[object, tuple[str, ...]]]:
    """Yield the parts of a message but the logs, each with the names of its fields that are shown to people."""
    for vertex in response.vertexes:
        yield vertex, ("name", "error")
        if vertex.HasField("progressGroup"):
            yield vertex.progressGroup, ("name",)
    for status in response.statuses:
        yield status, ("ID", "name")
    for warning in response.warnings:
        yield warning, ("short", "url")
        if warning.HasField("info"):
            yield warning.info, ("data",)

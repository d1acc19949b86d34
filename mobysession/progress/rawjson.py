"""Each message of the engine as a line of JSON, as ``--progress=rawjson`` of BuildKit's clients writes it.

A line is an object with what the message had of ``vertexes``, ``statuses``, ``logs`` and ``warnings``. Names are those
of BuildKit's Go types, empty values are left out, times are RFC 3339 in UTC with as many digits as they need, bytes are
base64. Nothing is put together or held back: whoever reads this folds it, as :class:`BuildStatus` does.

Everything beyond ASCII is written as an escape, which makes no difference to a reader of JSON, and none of it reaches a
terminal.

Source: moby/buildkit client/graph.go and solver/pb/ops.pb.go for the names, progressui/display.go for one line a
message.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from mobysession.progress.text import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    from mobysession._pb import control_pb2
    from mobysession.buildkit.status import BuildStatus, Changes

__all__ = ["RawJsonView", "solve_status"]

#: Escaped by Go's encoder too, for whoever puts the line into a page.
_MARKUP = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\x7f"})


class RawJsonView:
    """A view that writes the engine's messages, one a line, each at once."""

    interval = 60.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def update(self, status: BuildStatus, changes: Changes) -> None:
        """Write the message that brought the changes; what no message brought is no line."""
        if changes.message is not None:
            value = solve_status(changes.message)
            write(self._stream, [json.dumps(value, separators=(",", ":")).translate(_MARKUP)])

    def tick(self) -> None:
        """Show nothing."""

    def close(self, error: BaseException | None = None) -> None:
        """Show nothing: why a build failed is in what was written."""


def solve_status(response: control_pb2.StatusResponse) -> dict[str, Any]:
    """Return a message as the value that BuildKit's Go client makes JSON of."""
    return _filled(
        vertexes=_each(_vertex, response.vertexes),
        statuses=_each(_status, response.statuses),
        logs=_each(_log, response.logs),
        warnings=_each(_warning, response.warnings),
    )


def _each(form: Callable[[Any], dict[str, Any]], messages: Iterable[Any]) -> list[dict[str, Any]]:
    return [form(message) for message in messages]


def _filled(**values: Any) -> dict[str, Any]:
    """Leave out what Go's ``omitempty`` does; an empty object, unlike an empty list, is something."""
    return {name: value for name, value in values.items() if value or isinstance(value, dict)}


def _vertex(vertex: control_pb2.Vertex) -> dict[str, Any]:
    group = {"progressGroup": _generic(vertex.progressGroup)} if vertex.HasField("progressGroup") else {}
    return _filled(
        digest=vertex.digest,
        inputs=list(vertex.inputs),
        name=vertex.name,
        started=_time_of(vertex, "started"),
        completed=_time_of(vertex, "completed"),
        cached=vertex.cached,
        error=vertex.error,
        **group,
    )


def _status(status: control_pb2.VertexStatus) -> dict[str, Any]:
    return {
        "id": status.ID,
        **_filled(vertex=status.vertex, name=status.name, total=status.total),
        "current": status.current,
        "timestamp": _time(status.timestamp),
        **_filled(started=_time_of(status, "started"), completed=_time_of(status, "completed")),
    }


def _log(log: control_pb2.VertexLog) -> dict[str, Any]:
    return {
        **_filled(vertex=log.vertex, stream=log.stream),
        "data": _bytes(log.msg) if log.msg else None,
        "timestamp": _time(log.timestamp),
    }


def _warning(warning: control_pb2.VertexWarning) -> dict[str, Any]:
    info = {"sourceInfo": _generic(warning.info)} if warning.HasField("info") else {}
    return _filled(
        vertex=warning.vertex,
        level=warning.level,
        short=_bytes(warning.short),
        detail=[_bytes(line) for line in warning.detail],
        url=warning.url,
        **info,
        range=[_generic(bounds) for bounds in warning.ranges],
    )


def _generic(message: Message) -> dict[str, Any]:
    """Return a message as Go writes the type generated for it: the names are those of the fields."""
    return {field.name: _value(field, value) for field, value in message.ListFields()}


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return {str(key): _value(inner, value[key]) for key in sorted(value)}
    if isinstance(value, (str, bytes, int, float)):
        return _bytes(value) if isinstance(value, bytes) else value
    if hasattr(value, "ListFields"):
        return _generic(value)
    return [_value(field, each) for each in value]


def _bytes(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _time_of(message: control_pb2.Vertex | control_pb2.VertexStatus, name: str) -> str:
    return _time(getattr(message, name)) if message.HasField(name) else ""


def _time(stamp: Timestamp) -> str:
    try:
        second = datetime.fromtimestamp(stamp.seconds, UTC)
    except (ValueError, OverflowError, OSError):
        # A moment that no calendar has; the engine is a peer and not a friend.
        second = datetime.fromtimestamp(0, UTC)
    digits = f".{stamp.nanos % 1_000_000_000:09d}".rstrip("0").rstrip(".")
    return f"{second:%Y-%m-%dT%H:%M:%S}{digits}Z"

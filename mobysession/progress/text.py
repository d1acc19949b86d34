"""The words and numbers that the views share, formatted as BuildKit's clients format them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from mobysession.buildkit.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mobysession.buildkit.logs import LogLine
    from mobysession.buildkit.status import BuildStatus, Vertex, VertexStatus, VertexWarning

__all__ = [
    "failed_logs",
    "format_bytes",
    "log_line",
    "status_progress",
    "status_time",
    "step_warnings",
    "warning_summary",
    "write",
]

SECOND = 1_000_000_000
#: Lines of its log shown under a failed step, as in BuildKit's printer.
FAILED_LOG_LINES = 10
_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")
_SHORTEST_SHOWN = 0.01


def format_bytes(count: int) -> str:
    """Return bytes in decimal units with two digits, whole below 1 kB: ``94B``, ``40.76kB``."""
    size = float(count)
    if size < 1000:
        return f"{count}B"
    for unit in _UNITS:
        size /= 1000
        if size < 1000 or unit == _UNITS[-1]:
            break
    return f"{size:.2f}{unit}"


def status_progress(status: VertexStatus) -> str:
    """Return ``" 1.20MB / 3.00MB"``, ``" 1.20MB"`` with an unknown total, or nothing."""
    if status.total:
        return f" {format_bytes(status.current)} / {format_bytes(status.total)}"
    return f" {format_bytes(status.current)}" if status.current else ""


def status_time(status: VertexStatus) -> str:
    """Return ``" 0.3s"``, ``" 0.3s done"``, ``" done"`` or nothing."""
    end = status.completed if status.completed is not None else status.timestamp
    seconds = (end - status.started) / SECOND if status.started is not None else 0.0
    spent = f" {seconds:.1f}s" if seconds > _SHORTEST_SHOWN else ""
    return spent if status.completed is None else f"{spent} done"


def log_line(vertex: Vertex, line: LogLine) -> str:
    """Return a line of a step's log behind the seconds since the step was started."""
    seconds = max(0, line.time - vertex.started) / SECOND if vertex.started is not None else 0.0
    digits = 3 if seconds < 10 else 2 if seconds < 100 else 1
    return f"{seconds:.{digits}f} {printable(line.text)}"


def failed_logs(status: BuildStatus) -> Iterator[str]:
    """Yield the last lines of every failed step, each block between rules, in the order of failing."""
    for vertex in status.failures:
        yield "------"
        yield f" > {printable(vertex.name)}:"
        for line in vertex.log.last(FAILED_LOG_LINES):
            yield log_line(vertex, line)
        yield "------"


def step_warnings(status: BuildStatus) -> dict[str, list[str]]:
    """Return the warnings that are about a step, by its digest, as the engine wrote them."""
    remarks: dict[str, list[str]] = {}
    for warning in status.warnings:
        owner = status.vertex(warning.vertex)
        if owner is not None:
            remarks.setdefault(owner.digest, []).append(warning.short)
    return remarks


def warning_summary(warnings: Sequence[VertexWarning]) -> Iterator[str]:
    """Yield the warnings as they are listed after a build; nothing when there are none."""
    if not warnings:
        return
    yield ""
    yield " 1 warning found:" if len(warnings) == 1 else f" {len(warnings)} warnings found:"
    for warning in warnings:
        yield f" - {printable(warning.short)}"


def write(stream: TextIO, lines: Sequence[str]) -> None:
    """Write the lines and flush. What the stream cannot encode is written as an escape."""
    if not lines:
        return
    text = "\n".join(lines) + "\n"
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()

"""The table that the terminal view draws: a header, and for each step a row, its transfers and the end of its log.

Rows are plain values; how wide a character is and what a style looks like is the terminal's business. Where the height
does not allow all: running steps are always part of the table; then the ends of their logs, whoever wrote last first;
then completed steps, newest first, without their transfers where there is room for a single row only.

Source: moby/buildkit util/progress/progressui/display.go, for the form of the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from mobysession.buildkit.printable import printable
from mobysession.progress.text import SECOND, status_progress, step_warnings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession.buildkit.status import BuildStatus, Vertex

__all__ = ["Row", "Style", "all_rows", "header", "step_rows"]

Style = Literal["plain", "done", "failed", "cancelled", "warning", "faint"]

#: Lines of its log shown under a running step, as in BuildKit's display.
LOG_WINDOW = 6
#: Seconds below which a duration is shown as none.
_SHORTEST = 0.05


class Row(NamedTuple):
    """One line: text that may be cut, a note behind it that may be left out, a time at the right edge."""

    text: str
    note: str = ""
    time: str = ""
    style: Style = "plain"


def header(status: BuildStatus, now: int, *, finished: bool) -> Row:
    """Return the first line: ``[+] Building 1.2s (5/9)``."""
    totals = status.totals
    started = status.started if status.started is not None else now
    ending = " FINISHED" if finished else ""
    return Row(f"[+] Building {max(0, now - started) / SECOND:.1f}s ({totals.completed}/{totals.steps}){ending}")


def step_rows(status: BuildStatus, now: int, height: int | None, window: int = LOG_WINDOW) -> list[Row]:
    """Return the rows of all started steps, in the order of starting.

    Args:
        status: the model.
        now: ns since the epoch on the engine's clock.
        height: rows that there is room for; None for all steps, which then show no logs.
        window: lines shown at most of the log of a running step.
    """
    known = all_rows(status, now)
    if height is None:
        return [row for _, rows in known for row in rows]
    steps = [vertex for vertex, _ in known]
    rows = {vertex.number: rows for vertex, rows in known}
    running = [vertex for vertex in steps if not vertex.is_completed]
    chosen = {vertex.number: rows[vertex.number] for vertex in running}
    room = height - sum(map(len, chosen.values()))
    for vertex in sorted(running, key=_last_written, reverse=True):
        log = _log_rows(vertex, min(window, room))
        chosen[vertex.number] = [*chosen[vertex.number], *log]
        room -= len(log)
    for vertex in reversed(steps):
        if vertex.number in chosen:
            continue
        if room <= 0:
            break
        chosen[vertex.number] = rows[vertex.number] if len(rows[vertex.number]) <= room else rows[vertex.number][:1]
        room -= len(chosen[vertex.number])
    table = [row for number in sorted(chosen) for row in chosen[number]]
    return table[max(0, len(table) - height) :]


def all_rows(status: BuildStatus, now: int) -> list[tuple[Vertex, list[Row]]]:
    """Return each started step with its rows, the first of which is its own, in the order of starting."""
    steps = sorted((vertex for vertex in status.steps if vertex.number), key=lambda vertex: vertex.number)
    remarks = step_warnings(status)
    return [(vertex, _rows(vertex, now, remarks.get(vertex.digest, ()))) for vertex in steps]


def _last_written(vertex: Vertex) -> int:
    return max((line.time for line in vertex.log.last(2)), default=0)


def _rows(vertex: Vertex, now: int, remarks: Sequence[str]) -> list[Row]:
    prefix, style = _state(vertex)
    rows = [Row(f" => {prefix}{_cell(vertex.name)}", time=_seconds(vertex.duration(now)), style=style)]
    for status in vertex.statuses.values():
        if status.started is not None:
            end = status.completed if status.completed is not None else now
            done: Style = "done" if status.completed is not None else "plain"
            rows.append(
                Row(f" => => {_cell(status.id)}", status_progress(status), _seconds(end - status.started), done)
            )
    rows.extend(Row(f" => WARN: {_cell(remark)}", style="warning") for remark in remarks)
    return rows


def _log_rows(vertex: Vertex, window: int) -> list[Row]:
    if window <= 0:
        return []
    lines = (_cell(line.text) for line in vertex.log.last(window))
    return [Row(f" => => # {line}", style="faint") for line in lines if line.strip()]


def _state(vertex: Vertex) -> tuple[str, Style]:
    if not vertex.is_completed:
        return "", "plain"
    if vertex.is_cancelled:
        return "CANCELED ", "cancelled"
    if vertex.error:
        return "ERROR ", "failed"
    return ("CACHED " if vertex.cached else ""), "done"


def _cell(text: str) -> str:
    return printable(text).replace("\t", " ")


def _seconds(duration: int) -> str:
    seconds = duration / SECOND
    return f"{seconds if seconds >= _SHORTEST else 0.0:.1f}s"

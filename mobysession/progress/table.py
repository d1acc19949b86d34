"""The table that the terminal view draws: a header, and for each step a row, its transfers and the end of its log.

Rows are plain values; how wide a character is and what a style looks like is the terminal's business. Running steps
are always part of the table, completed ones as far as the height allows, newest first.

Source: moby/buildkit util/progress/progressui/display.go, for the form of the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from mobysession.buildkit.printable import printable
from mobysession.progress.text import SECOND, status_progress

if TYPE_CHECKING:
    from mobysession.buildkit.status import BuildStatus, Vertex

__all__ = ["Row", "Style", "header", "step_rows"]

Style = Literal["plain", "done", "failed", "cancelled", "faint"]

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


def step_rows(status: BuildStatus, now: int, height: int | None) -> list[Row]:
    """Return the rows of all started steps, in the order of starting.

    Args:
        status: the model.
        now: ns since the epoch on the engine's clock.
        height: rows that there is room for; None for all steps, which then show no logs.
    """
    steps = sorted((vertex for vertex in status.steps if vertex.number), key=lambda vertex: vertex.number)
    if height is None:
        return [row for vertex in steps for row in _rows(vertex, now, 0)]
    running = {vertex.number: _rows(vertex, now, LOG_WINDOW) for vertex in steps if not vertex.is_completed}
    if sum(map(len, running.values())) > height:
        running = {vertex.number: _rows(vertex, now, 0) for vertex in steps if vertex.number in running}
    chosen = dict(running)
    room = height - sum(map(len, chosen.values()))
    for vertex in reversed(steps):
        if vertex.number in chosen:
            continue
        rows = _rows(vertex, now, 0)
        room -= len(rows)
        if room < 0:
            break
        chosen[vertex.number] = rows
    table = [row for number in sorted(chosen) for row in chosen[number]]
    return table[max(0, len(table) - height) :]


def _rows(vertex: Vertex, now: int, window: int) -> list[Row]:
    prefix, style = _state(vertex)
    rows = [Row(f" => {prefix}{_cell(vertex.name)}", time=_seconds(vertex.duration(now)), style=style)]
    for status in vertex.statuses.values():
        if status.started is not None:
            end = status.completed if status.completed is not None else now
            done: Style = "done" if status.completed is not None else "plain"
            rows.append(
                Row(f" => => {_cell(status.id)}", status_progress(status), _seconds(end - status.started), done)
            )
    if window:
        lines = (_cell(line.text) for line in vertex.log.last(window))
        rows.extend(Row(f" => => # {line}", style="faint") for line in lines if line.strip())
    return rows


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

"""A table in a notebook: replaced while the build runs, and left behind as a result that needs nothing to be read.

A notebook keeps what a cell has displayed, and a display can be changed by its ID; both are IPython's. Each drawing is
offered as HTML and as plain text, for whatever shows it. The HTML has no script, no style sheet and nothing to load,
for notebooks strip these from files of others; what the engine says is escaped in it.
"""

from __future__ import annotations

import html
import time
from typing import TYPE_CHECKING, Any

from mobysession.buildkit.printable import printable
from mobysession.errors import UsageError
from mobysession.progress.engine_clock import EngineClock
from mobysession.progress.table import all_rows, header, step_rows
from mobysession.progress.text import log_line, warning_summary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mobysession.buildkit.status import BuildStatus, Changes, Vertex
    from mobysession.progress.table import Row, Style

__all__ = ["NotebookView"]

_REFRESH = 0.25
#: Rows of the table while the build runs: what does not move the cells below it off the screen.
_HEIGHT = 24
#: Colours that are readable on light and on dark; the variables are Jupyter's own, in its current theme.
_STYLES: Mapping[Style, str] = {
    "plain": "",
    "done": "color:var(--jp-info-color1,#3b82c4)",
    "failed": "color:var(--jp-error-color1,#d13438)",
    "cancelled": "color:var(--jp-warn-color1,#c58b00)",
    "warning": "color:var(--jp-warn-color1,#c58b00)",
    "faint": "opacity:.7",
}
_CELL = "text-align:left;padding:0 1em 0 0;white-space:pre-wrap;overflow-wrap:anywhere"
_TIME = "text-align:right;padding:0;white-space:nowrap;vertical-align:top"


class NotebookView:
    """A view for notebooks.

    Args:
        display: as ``IPython.display.display``, which it is where nothing is given.
        clock: seconds, monotonic.

    Raises:
        UsageError: there is no IPython; the caller must install it or choose another view.
    """

    interval = 0.5

    def __init__(
        self, display: Callable[..., Any] | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._display = display or _find_display()
        self._clock = clock
        self._engine = EngineClock(clock)
        self._handle: Any = None
        self._status: BuildStatus | None = None
        self._drawn_at = float("-inf")

    def update(self, status: BuildStatus, changes: Changes) -> None:
        """Take what one message changed; draw unless that was done a moment ago."""
        self._status = status
        self._engine.learn(changes)
        if self._clock() - self._drawn_at >= _REFRESH:
            self.tick()

    def tick(self) -> None:
        """Draw, as running steps have got older."""
        if self._status is None:
            return
        self._drawn_at = self._clock()
        now = self._engine.now()
        rows = step_rows(self._status, now, _HEIGHT)
        self._show(header(self._status, now, finished=False), rows, _table("".join(map(_row, rows))))

    def close(self, error: BaseException | None = None) -> None:
        """Draw all steps a last time, with their logs to be opened; those of failed ones are open."""
        status, self._status = self._status, None
        if status is None:
            return
        status.finish()
        now = self._engine.now()
        known = all_rows(status, now)
        body = "".join(_step(rows[0], vertex) + "".join(map(_row, rows[1:])) for vertex, rows in known)
        remarks = "".join(f"<div>{_text(line)}</div>" for line in warning_summary(status.warnings) if line)
        self._show(
            header(status, now, finished=error is None),
            [row for _, rows in known for row in rows],
            _table(body) + remarks,
        )

    def _show(self, head: Row, rows: list[Row], body: str) -> None:
        plain = "\n".join(f"{row.text}{row.note}  {row.time}".rstrip() for row in (head, *rows))
        bundle = {"text/html": f"<div><b>{_text(head.text)}</b>{body}</div>", "text/plain": plain}
        if self._handle is None:
            self._handle = self._display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def _find_display() -> Callable[..., Any]:
    try:
        from IPython.display import display
    except ImportError as error:
        raise UsageError(
            "the notebook view needs IPython", hint="Install mobysession[notebook], or choose another view."
        ) from error
    found: Callable[..., Any] = display
    return found


def _table(body: str) -> str:
    return f'<table style="border-collapse:collapse;font-family:monospace">{body}</table>'


def _row(row: Row) -> str:
    return _cells(_text(row.text + row.note), row)


def _step(row: Row, vertex: Vertex) -> str:
    """Return the row of a step, with the end of its log behind it."""
    lines = vertex.log.last(len(vertex.log.lines))
    if not lines:
        return _row(row)
    log = _text("\n".join(log_line(vertex, line) for line in lines), newlines=True)
    is_open = " open" if vertex.is_failed else ""
    summary = f'<summary style="cursor:pointer">{_text(row.text)}</summary>'
    pre = f'<pre style="max-height:20em;overflow:auto;margin:0 0 0 2em;opacity:.8">{log}</pre>'
    return _cells(f"<details{is_open}>{summary}{pre}</details>", row)


def _cells(inner: str, row: Row) -> str:
    style = _STYLES[row.style]
    return (
        f'<tr style="background:none"><td style="{_CELL};{style}">{inner}</td>'
        f'<td style="{_TIME};{style}">{_text(row.time)}</td></tr>'
    )


def _text(text: str, *, newlines: bool = False) -> str:
    return html.escape(printable(text, newlines=newlines))

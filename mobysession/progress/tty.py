"""A table that is drawn again and again in the same place of a terminal.

rich moves the cursor, knows the width of characters and leaves colours out where ``NO_COLOR`` is set. The size of the
terminal is asked for each time, so a resize shows with the next drawing, a tick away, and no signal has to be caught.
A terminal that gets narrower breaks the lines that are there; the drawing begins where they begin now.

Between drawings the cursor is shown, on a line of its own below the table: whatever ends the process, the terminal is
left as it was found, and a ^C that is echoed there moves nothing of the table.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TextIO
from weakref import WeakSet

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from mobysession.progress.colours import has_colours, styles
from mobysession.progress.engine_clock import EngineClock
from mobysession.progress.table import LOG_WINDOW, Row, header, step_rows
from mobysession.progress.text import failed_logs, warning_summary, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession.buildkit.status import BuildStatus, Changes

__all__ = ["TtyView", "leave_terminal"]

_REFRESH = 0.1
_TICK = 0.15
#: Rows left free below the table: the cursor's, and one for the eye.
_MARGIN = 2
#: Cells that a name keeps before the note behind it is left out.
_NARROWEST = 12
#: Views that have a table on a terminal.
_drawing: WeakSet[TtyView] = WeakSet()


class TtyView:
    """A view for terminals.

    Args:
        stream: stays the caller's.
        clock: seconds, monotonic.
        console: where to draw instead of on ``stream``, as a terminal of known size.
    """

    interval = _TICK

    def __init__(
        self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic, console: Console | None = None
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._console = console or Console(
            file=stream,
            force_terminal=True,
            no_color=None if has_colours(stream) else True,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._styles = styles()
        self._window = _window()
        #: Widths of the lines that are on the terminal, and of the terminal when they were drawn.
        self._widths: list[int] = []
        self._width = 0
        self._live = self._new_live()
        self._status: BuildStatus | None = None
        self._drawn_at = float("-inf")
        self._engine = EngineClock(clock)

    def update(self, status: BuildStatus, changes: Changes) -> None:
        """Take what one message changed; draw unless that was done a moment ago."""
        self._status = status
        self._engine.learn(changes)
        if self._clock() - self._drawn_at >= _REFRESH:
            self._draw(status)

    def tick(self) -> None:
        """Draw, as running steps have got older."""
        if self._status is not None:
            self._draw(self._status)

    def leave(self) -> None:
        """Take the table away, so that something else can be written there; the next drawing begins below it."""
        _drawing.discard(self)
        if self._live.is_started:
            self._live.transient = True
            self._mend_breaks()
            self._live.stop()
        self._widths = []
        # One that is started again would look for its table where it left it.
        self._live = self._new_live()

    def close(self, error: BaseException | None = None) -> None:
        """Draw all steps a last time, then the logs of the failed ones after an error, then the warnings."""
        status, self._status = self._status, None
        if status is None:
            return
        status.finish()
        try:
            self._start()
            self._mend_breaks()
            self._live.update(self._table(status, None, finished=error is None), refresh=False)
        finally:
            self._live.stop()
            _drawing.discard(self)
        logs = failed_logs(status) if error is not None else ()
        write(self._stream, [*logs, *warning_summary(status.warnings)])

    def _new_live(self) -> Live:
        return Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )

    def _draw(self, status: BuildStatus) -> None:
        self._drawn_at = self._clock()
        self._start()
        self._mend_breaks()
        height = max(1, self._console.height - _MARGIN - 1)
        table = self._table(status, height, finished=False)
        self._widths = [cell_len(line) for line in table.plain.split("\n")]
        self._width = self._console.width
        self._live.update(table.append("\n"), refresh=True)

    def _mend_breaks(self) -> None:
        """Put the cursor where rich expects it, should the terminal have broken the lines that were drawn."""
        width = self._console.width
        if width >= self._width or not self._widths or not _breaks_lines():
            return
        broken = sum(max(0, (cells - 1) // max(1, width)) for cells in self._widths)
        if broken:
            self._stream.write(f"\x1b[{broken}A\r\x1b[J")

    def _start(self) -> None:
        if not self._live.is_started:
            _drawing.add(self)
            self._live.start()
            self._console.show_cursor(True)

    def _table(self, status: BuildStatus, height: int | None, *, finished: bool) -> Text:
        now = self._engine.now()
        rows = [header(status, now, finished=finished), *step_rows(status, now, height, self._window)]
        width = max(2, self._console.width)
        lines = (_line(row, width - 1, self._styles[row.style]) for row in rows)
        return Text("\n", no_wrap=True, overflow="crop").join(lines)


def leave_terminal() -> None:
    """Take every table off its terminal, for whoever is about to write a line there: they are drawn again below it."""
    for view in list(_drawing):
        view.leave()


def _window() -> int:
    """Return how many lines of a log are shown; BuildKit's clients have a variable for it."""
    text = os.environ.get("BUILDKIT_TTY_LOG_LINES", "")
    return int(text) if text.isdecimal() and int(text) else LOG_WINDOW


def _breaks_lines() -> bool:
    """Tell whether the terminal breaks lines anew when it gets narrower; xterm itself and the console cut them."""
    return "XTERM_VERSION" not in os.environ and os.environ.get("TERM") != "linux"


def _line(row: Row, width: int, style: str) -> Text:
    room = width - cell_len(row.time) - 1 if row.time else width
    note = row.note if room - cell_len(row.note) >= _NARROWEST else ""
    text = row.text
    if cell_len(text) + cell_len(note) > room:
        text = set_cell_size(text, max(0, room - cell_len(note)))
    text += note
    if row.time:
        text = f"{set_cell_size(text, max(0, room))} {row.time}"
    return Text(text, style=style, no_wrap=True, overflow="crop")

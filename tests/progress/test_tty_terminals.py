"""The terminal view on terminals of all kinds: narrow, colourless, with colours of one's own, and with a ^C on them."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from mobysession._pb import control_pb2
from mobysession.progress.colours import styles
from mobysession.progress.table import step_rows
from mobysession.progress.tty import TtyView
from tests.cli.screen import Screen

if TYPE_CHECKING:
    from tests.progress.conftest import Build


class Terminal:
    """A stream that looks like a terminal, and what is seen on it."""

    def __init__(self, build: Build, width: int = 60, height: int = 12) -> None:
        self.stream = io.StringIO()
        self.console = Console(
            file=self.stream, force_terminal=True, color_system="256", width=width, height=height, highlight=False
        )
        self.view = TtyView(self.stream, clock=build.clock, console=self.console)

    def resize(self, width: int, height: int = 12) -> None:
        """Change the size."""
        self.console.size = self.console.size._replace(width=width, height=height)

    def written(self) -> str:
        """Return what was written since the last call."""
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return text


@pytest.fixture
def terminal(build: Build, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Give a terminal of 60 by 12 that is no xterm."""
    for name in ("XTERM_VERSION", "BUILDKIT_COLORS", "BUILDKIT_TTY_LOG_LINES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal(build)


def test_an_echoed_interrupt_leaves_no_line_behind(terminal: Terminal, build: Build) -> None:
    """The terminal writes ^C where the cursor is, which is below the table, whose rows are as wide as can be."""
    screen = Screen()
    build.step(terminal.view, "a", name="RUN " + "x" * 80, start=0)
    screen.write("$ before\n" + terminal.written())
    assert (screen.column, screen.lines[screen.row]) == (0, "")
    screen.write("^C")
    build.now += 1
    terminal.view.tick()
    terminal.view.close(KeyboardInterrupt())
    screen.write(terminal.written() + "$ after")
    assert [line.split()[0] for line in screen.text.splitlines()] == ["$", "[+]", "=>", "$"]


def test_a_terminal_that_gets_narrower_breaks_lines(terminal: Terminal, build: Build) -> None:
    """The drawing begins above the lines that are two now: the cursor goes up by as many before it is drawn anew."""
    build.step(terminal.view, "a", name="RUN " + "x" * 80, start=0)
    build.step(terminal.view, "b", name="RUN " + "y" * 80, start=0)
    build.now += 1
    terminal.view.tick()
    terminal.resize(25)
    terminal.written()
    terminal.view.tick()
    # Two rows of 59 cells are three lines each at 25, and the header one.
    assert terminal.written().startswith("\x1b[4A\r\x1b[J")
    build.now += 1
    terminal.view.tick()
    assert "\x1b[J" not in terminal.written()


@pytest.mark.parametrize(("name", "value"), [("XTERM_VERSION", "XTerm(390)"), ("TERM", "linux")])
def test_a_terminal_that_cuts_lines_is_left_alone(
    terminal: Terminal, build: Build, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """What stands above the table would be lost."""
    monkeypatch.setenv(name, value)
    build.step(terminal.view, "a", name="RUN " + "x" * 80, start=0)
    terminal.resize(25)
    terminal.view.tick()
    assert "\x1b[J" not in terminal.written()


def test_colours_are_those_of_buildkits_variable(
    terminal: Terminal, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names and numbers, as BuildKit's clients read them; a kind that is not named keeps its own."""
    monkeypatch.setenv("BUILDKIT_COLORS", "run=light-green:ERROR=255,0,0")
    terminal = Terminal(build)
    build.step(terminal.view, "a", start=0, end=1)
    build.step(terminal.view, "b", start=0, end=1, error="no")
    build.step(terminal.view, "c", start=0, end=1, error="context canceled")
    terminal.view.close()
    text = terminal.written()
    assert "\x1b[92m => step a" in text
    assert "\x1b[38;5;196m => ERROR step b" in text
    assert "\x1b[33m => CANCELED step c" in text


def test_what_the_variable_says_wrongly_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """With a warning for each, and the rest is taken."""
    chosen = styles({"BUILDKIT_COLORS": "run=pink:nothing=red:error=1,2,300:cancel=a,b,c:warning:run=cyan:"})
    assert chosen["done"] == "cyan"
    assert chosen["failed"] == "red"
    assert len(caplog.records) == 5


_COLOURED = """
import sys
from mobysession.progress.colours import has_colours
print(has_colours(sys.stderr))
"""


@pytest.mark.parametrize(
    ("term", "coloured"), [("vt100", False), ("xterm-256color", True), ("linux", True), ("no-such-terminal", True)]
)
def test_a_terminal_without_colours_gets_none(term: str, coloured: bool) -> None:
    """The database of terminals knows; one that it does not know is believed to have some."""
    ours, theirs = pty.openpty()
    try:
        environ = {**{name: value for name, value in os.environ.items() if name != "COLORTERM"}, "TERM": term}
        done = subprocess.run(
            [sys.executable, "-c", _COLOURED], env=environ, stderr=theirs, stdout=subprocess.PIPE, check=True
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stdout.decode().strip() == str(coloured)


def texts(build: Build, height: int | None, window: int = 6) -> list[str]:
    """Return the rows' texts, shortened."""
    now = round((build.now + 1_000_000_000 - 1000) * 1e9)
    return [row.text.removeprefix(" => ") for row in step_rows(build.status, now, height, window)]


def test_logs_share_what_room_there_is(terminal: Terminal, build: Build) -> None:
    """Who wrote last has its whole window, the next what is left, and no log takes a step's row."""
    for number, digest in enumerate("abc"):
        build.now += 1
        build.step(terminal.view, digest, start=number, log=b"".join(b"%d\n" % each for each in range(9)))
    assert texts(build, 12) == [
        "step a",
        "step b",
        *(f"=> # {each}" for each in (6, 7, 8)),
        "step c",
        *(f"=> # {each}" for each in range(3, 9)),
    ]
    assert texts(build, 2) == ["step b", "step c"]


def test_the_window_has_a_variable(terminal: Terminal, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """BUILDKIT_TTY_LOG_LINES, as with BuildKit's clients."""
    monkeypatch.setenv("BUILDKIT_TTY_LOG_LINES", "2")
    narrow = Terminal(build)
    build.step(narrow.view, "a", start=0, log=b"1\n2\n3\n")
    text = narrow.written()
    assert "# 2" in text
    assert "# 1" not in text


def test_completed_steps_fold_before_they_go(terminal: Terminal, build: Build) -> None:
    """Where there is one row for a step, its transfers are left out."""
    for digest in "ab":
        build.step(terminal.view, digest, start=0)
        for layer in range(3):
            build.transfer(terminal.view, digest, f"{digest}{layer}", 1, done=True)
        build.step(terminal.view, digest, start=0, end=1)
    assert texts(build, 5) == ["step a", "step b", "=> b0", "=> b1", "=> b2"]
    assert texts(build, 3) == ["step a", "step b"]


def test_warnings_stand_with_their_steps(terminal: Terminal, build: Build) -> None:
    """As with buildx; those of no known step are only listed at the end."""
    build.step(terminal.view, "a", start=0, end=1)
    response = control_pb2.StatusResponse()
    response.warnings.add(vertex="a", short=b"be\x1b[2J careful")
    response.warnings.add(vertex="unknown", short=b"anyway")
    build.tell(terminal.view, response)
    assert texts(build, None) == ["step a", "WARN: be careful"]
    terminal.view.close()
    assert "\x1b[33m => WARN: be careful" in terminal.written()


def test_a_progress_bar_is_its_last_writing(terminal: Terminal, build: Build) -> None:
    """What a program overwrites with carriage returns is one row, as it is by then."""
    build.step(terminal.view, "a", start=0, log=b"10%\r20%\r30%\r")
    assert texts(build, 12) == ["step a", "=> # 30%"]

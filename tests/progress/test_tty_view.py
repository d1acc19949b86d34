"""The terminal view, drawn on a terminal of known size at known times."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from mobysession._pb import control_pb2
from mobysession.errors import BuildFailed
from mobysession.progress.tty import TtyView

if TYPE_CHECKING:
    from tests.progress.conftest import Build

_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class Terminal:
    """A stream that looks like a terminal, with a size that can be changed."""

    def __init__(self, build: Build, *, colours: bool = True) -> None:
        self.stream = io.StringIO()
        self.console = Console(
            file=self.stream,
            force_terminal=True,
            color_system="standard",
            width=60,
            height=12,
            highlight=False,
            no_color=not colours,
        )
        self.view = TtyView(self.stream, clock=build.clock, console=self.console)

    def resize(self, width: int, height: int) -> None:
        """Change the size."""
        self.console.size = self.console.size._replace(width=width, height=height)

    @property
    def text(self) -> str:
        """Everything that was written."""
        return self.stream.getvalue()

    @property
    def frame(self) -> list[str]:
        """The lines of the last drawing and what follows it, without sequences."""
        return _SEQUENCE.sub("", self.text).replace("\r", "\n").rpartition("[+]")[2].splitlines()


@pytest.fixture
def terminal(build: Build) -> Terminal:
    """Give a terminal of 60 by 12."""
    return Terminal(build)


def row(text: str, time: str) -> str:
    """Return a row of the table at 60 columns."""
    return f"{text:<{59 - 1 - len(time)}} {time}"


def test_a_running_build_is_a_table(terminal: Terminal, build: Build) -> None:
    """Header with counts, a row for each started step, its transfers, the end of the running step's log."""
    view = terminal.view
    build.step(view, "z")
    build.step(view, "a", name="[1/2] FROM x", start=0, end=0, cached=True)
    build.step(view, "b", name="[internal] load build context", start=0)
    build.now += 1
    build.transfer(view, "b", "transferring context:", 1_200_000, total=3_000_000)
    build.step(view, "c", name="[2/2] RUN make", start=0.5, log=b"".join(b"line %d\n" % each for each in range(9)))
    build.now += 1
    terminal.resize(60, 20)
    view.tick()
    assert terminal.frame == [
        " Building 2.0s (1/4)",
        row(" => CACHED [1/2] FROM x", "0.0s"),
        row(" => [internal] load build context", "2.0s"),
        row(" => => transferring context: 1.20MB / 3.00MB", "2.0s"),
        row(" => [2/2] RUN make", "1.5s"),
        *(f" => => # line {each}" for each in range(3, 9)),
    ]


def test_a_finished_build_shows_all_steps_and_no_logs(terminal: Terminal, build: Build) -> None:
    """The last drawing is complete even where the terminal is lower, and says FINISHED."""
    for number in range(20):
        build.step(terminal.view, str(number), start=number, end=number + 1, log=b"gone\n")
    terminal.view.close()
    assert terminal.frame[0].endswith("(20/20) FINISHED")
    assert terminal.frame[1:] == [row(f" => step {number}", "1.0s") for number in range(20)]


def test_a_table_that_does_not_fit_keeps_what_runs(terminal: Terminal, build: Build) -> None:
    """Old completed steps go first, then the logs; no drawing is higher than the terminal."""
    view = terminal.view
    for number in range(30):
        build.step(view, str(number), start=number, end=number + 1)
    build.step(view, "run", name="RUN make", start=3, log=b"a\nb\n")
    build.now += 1
    view.tick()
    assert len(terminal.frame) == 10
    shown = [line.split("  ")[0].strip() for line in terminal.frame[1:]]
    assert shown == [*(f"=> step {number}" for number in range(24, 30)), "=> RUN make", "=> => # a", "=> => # b"]
    for number in range(9):
        build.step(view, f"r{number}", start=4, log=b"x\n" * 9)
    build.now += 1
    view.tick()
    assert len(terminal.frame) == 10
    assert "#" not in "".join(terminal.frame)


def test_a_resize_shows_with_the_next_drawing(terminal: Terminal, build: Build) -> None:
    """Rows are cut to the new width; names give way before the times do."""
    build.step(terminal.view, "a", name="RUN " + "x" * 80, start=0)
    terminal.resize(30, 12)
    build.now += 1
    terminal.view.tick()
    assert terminal.frame[1] == " => RUN xxxxxxxxxxxxxxxxx 1.0s"[:29].ljust(24)[:24] + " 1.0s"
    build.transfer(terminal.view, "a", "sha256:" + "f" * 64, 1, total=2)
    terminal.view.tick()
    assert terminal.frame[2] == " => => sha256:fff 1B / 2B 1.0s"[:16] + " 1B / 2B" + " 1.0s"
    terminal.resize(3, 2)
    terminal.view.tick()
    assert max(map(len, terminal.frame)) <= 30


def test_wide_characters_keep_the_edge_straight(terminal: Terminal, build: Build) -> None:
    """A character of two cells counts as two."""
    build.step(terminal.view, "a", name="\u65e5\u672c" * 40, start=0)
    build.now += 1
    terminal.view.tick()
    assert terminal.frame[1].endswith(" 1.0s")
    assert sum(2 if ord(char) > 0x2000 else 1 for char in terminal.frame[1]) == 59


def test_it_draws_at_most_ten_times_a_second(terminal: Terminal, build: Build) -> None:
    """Many changes within a tenth of a second are one drawing; time alone is drawn by ticks."""
    for number in range(100):
        build.now += 0.0011
        build.step(terminal.view, "a", start=0, log=b"%d\n" % number)
    drawn = terminal.text.count("[+]")
    assert drawn == 2
    terminal.view.tick()
    assert terminal.text.count("[+]") == drawn + 1


@pytest.mark.parametrize("error", [None, BuildFailed("failed"), KeyboardInterrupt()])
def test_the_terminal_is_given_back(terminal: Terminal, build: Build, error: BaseException | None) -> None:
    """However the build ends, the cursor is shown, and it never is hidden between two drawings."""
    build.step(terminal.view, "a", start=0)
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
    terminal.view.close(error)
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
    assert terminal.text.endswith(("\n", "\x1b[?25h"))
    written = terminal.text
    terminal.view.close(error)
    assert terminal.text == written


def test_a_failed_step_ends_with_its_log(terminal: Terminal, build: Build) -> None:
    """After the last drawing come the failed step's lines; the header does not say FINISHED."""
    build.step(terminal.view, "a", name="RUN false", start=0, log=b"boom\n")
    build.step(terminal.view, "b", start=0, end=1, error="context canceled")
    build.step(terminal.view, "a", name="RUN false", start=0, end=1, error="exit code: 1")
    terminal.view.close(BuildFailed("failed"))
    assert terminal.frame[0].endswith("(2/2)")
    assert terminal.frame[1:] == [
        row(" => ERROR RUN false", "1.0s"),
        row(" => CANCELED step b", "1.0s"),
        "------",
        " > RUN false:",
        "0.000 boom",
        "------",
    ]


def test_warnings_are_listed_at_the_end(terminal: Terminal, build: Build) -> None:
    """The list of warnings follows the last drawing."""
    build.step(terminal.view, "a", start=0, end=1)
    response = control_pb2.StatusResponse()
    response.warnings.add(vertex="a", short=b"be careful")
    build.tell(terminal.view, response)
    terminal.view.close()
    assert terminal.frame[-3:] == ["", " 1 warning found:", " - be careful"]


def test_no_color_is_obeyed(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR set there is no colour, without it there is."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for value, coloured in ((None, True), ("1", False)):
        if value is not None:
            monkeypatch.setenv("NO_COLOR", value)
        stream = io.StringIO()
        view = TtyView(stream, clock=build.clock)
        build.step(view, "a", start=0, end=1)
        view.close()
        assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", stream.getvalue())) is coloured


def test_a_hostile_engine_sends_no_sequences(build: Build) -> None:
    """Only the sequences of the view itself are written, and markup of rich means nothing."""
    terminal = Terminal(build, colours=False)
    evil = "\x1b[2J\x1b]0;evil\x07\x9b31m[red]x[/red]\ny\x08\x00"
    build.step(terminal.view, "a", name=evil, start=0, log=evil.encode())
    build.transfer(terminal.view, "a", evil, 1)
    build.now += 1
    terminal.view.tick()
    assert "[red]x[/red]" in terminal.frame[1]
    build.step(terminal.view, "a", name=evil, start=0, end=1, error=evil)
    terminal.view.close(BuildFailed("failed"))
    allowed = re.sub(r"\x1b\[(?:\?25[lh]|2K|[0-9]*A|[0-9;]*m)|\r", "", terminal.text)
    assert not [char for char in allowed if char not in "\n\t" and not char.isprintable()]


def test_nothing_told_is_nothing_drawn(terminal: Terminal) -> None:
    """A build that never began leaves the terminal untouched."""
    terminal.view.tick()
    terminal.view.close(KeyboardInterrupt())
    assert terminal.text == ""


@pytest.mark.parametrize("recording", ["engine-20.10.24-image", "engine-28.5.2-image", "engine-api1.56-image"])
def test_a_recorded_build_is_drawn(terminal: Terminal, build: Build, recording: str) -> None:
    """The drawings of a real build end with all its steps completed, in the time it took."""
    build.replay(terminal.view, recording)
    terminal.view.close()
    assert re.fullmatch(r" Building 0\.[2-6]s \(9/9\) FINISHED", terminal.frame[0])
    assert sum(line.startswith(" => ") and not line.startswith(" => =>") for line in terminal.frame) == 9

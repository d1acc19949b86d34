"""A view that keeps still while a question is on the terminal, and a table that leaves its place for it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from mobysession.progress.held import HeldView
from mobysession.progress.plain import PlainView
from mobysession.progress.tty import TtyView, leave_terminal

if TYPE_CHECKING:
    from tests.progress.conftest import Build


@pytest.fixture
def stream() -> io.StringIO:
    """Give what the view writes to."""
    return io.StringIO()


@pytest.fixture
def held(stream: io.StringIO) -> HeldView:
    """Give a view of lines that can be held."""
    return HeldView(PlainView(stream))


def table(build: Build, stream: io.StringIO) -> TtyView:
    """Make a table on a terminal of 60 by 12."""
    console = Console(file=stream, force_terminal=True, width=60, height=12, highlight=False, no_color=True)
    return TtyView(stream, clock=build.clock, console=console)


def test_what_happens_during_a_question_is_shown_after_it(build: Build, held: HeldView, stream: io.StringIO) -> None:
    """In order, and nothing of it before; without a question everything passes at once."""
    build.step(held, "a", start=0, log=b"before\n")
    before = stream.getvalue()
    assert "before" in before
    held.hold(True)
    build.step(held, "a", start=0, end=1, log=b"during\n")
    held.tick()
    assert stream.getvalue() == before
    held.hold(False)
    build.step(held, "b", start=1, end=2, log=b"after\n")
    held.close()
    text = stream.getvalue()
    assert text.index("before") < text.index("during") < text.index("after")


def test_two_questions_are_held_until_the_last_one_ends(build: Build, held: HeldView, stream: io.StringIO) -> None:
    """Approvals may wait for each other's turn: the first answer does not let the view write over the second."""
    held.hold(True)
    held.hold(True)
    build.step(held, "a", start=0, end=1)
    held.hold(False)
    assert stream.getvalue() == ""
    held.hold(False)
    assert "step a" in stream.getvalue()


def test_the_end_does_not_wait_for_an_answer(build: Build, held: HeldView, stream: io.StringIO) -> None:
    """A build that is cancelled while somebody is asked still shows what was held back; nobody holds it afterwards."""
    ended: list[bool] = []
    held.on_close = lambda: ended.append(True)
    held.hold(True)
    build.step(held, "a", start=0, end=1)
    held.close(KeyboardInterrupt())
    assert "step a" in stream.getvalue()
    assert ended == [True]
    assert held.interval == PlainView(io.StringIO()).interval


def test_a_table_leaves_its_place(build: Build, stream: io.StringIO) -> None:
    """It is wiped off before the question, and drawn below it afterwards without a look back."""
    held = HeldView(table(build, stream))
    build.step(held, "a", start=0)
    held.hold(True)
    wiped = stream.getvalue()
    assert wiped.endswith("\x1b[1A\x1b[2K")
    stream.write("a question? y\n")
    held.hold(False)
    build.now += 1
    held.tick()
    drawn = stream.getvalue().partition("a question? y\n")[2]
    assert "step a" in drawn
    assert "\x1b[1A" not in drawn
    held.close()


def test_a_line_of_the_log_does_not_break_a_table(build: Build, stream: io.StringIO) -> None:
    """Whoever writes a line takes the table off first; one that has been closed stays as it is."""
    view = table(build, stream)
    build.step(view, "a", start=0)
    leave_terminal()
    assert stream.getvalue().endswith("\x1b[1A\x1b[2K")
    view.close()
    done = stream.getvalue()
    leave_terminal()
    assert stream.getvalue() == done

"""Which view is chosen, how it is fed with time, and what the quiet one says."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING, cast

import pytest
import trio

from mobysession.errors import BuildFailed, UsageError
from mobysession.progress import ViewKind, keep_ticking, open_view, render_failure
from mobysession.progress.plain import PlainView
from mobysession.progress.quiet import QuietView
from mobysession.progress.silent import SilentView
from mobysession.progress.tty import TtyView

if TYPE_CHECKING:
    from tests.progress.conftest import Build


class _Stream(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("kind", "terminal", "term", "view"),
    [
        ("auto", True, "xterm", TtyView),
        ("auto", True, "dumb", PlainView),
        ("auto", True, None, PlainView),
        ("auto", False, "xterm", PlainView),
        ("plain", True, "xterm", PlainView),
        ("tty", False, "xterm", TtyView),
        ("quiet", True, "xterm", QuietView),
        ("none", True, "xterm", SilentView),
    ],
)
def test_the_view_follows_kind_and_stream(
    monkeypatch: pytest.MonkeyPatch, kind: ViewKind, terminal: bool, term: str | None, view: type
) -> None:
    """auto is tty on a terminal that can move its cursor, else plain; a kind that is named is taken."""
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    assert type(open_view(kind, _Stream(terminal=terminal))) is view


def test_an_unknown_kind_is_the_callers_mistake() -> None:
    """The error names what was asked for and what there is."""
    with pytest.raises(UsageError, match="unknown progress 'fancy'") as caught:
        open_view(cast("ViewKind", "fancy"), io.StringIO())
    assert "plain" in (caught.value.hint or "")


def test_only_the_terminal_view_loads_rich() -> None:
    """A plain view costs no import of rich."""
    code = (
        "import io, sys; from mobysession.progress import open_view; open_view('plain', io.StringIO());"
        "sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_ticks_come_regularly_until_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    """A view is ticked at its interval, and cancelling ends it."""
    moments = []

    class Ticked(QuietView):
        interval = 0.5

        def tick(self) -> None:
            moments.append(trio.current_time() - began)

    began = trio.current_time()
    with trio.move_on_after(1.75):
        await keep_ticking(Ticked(io.StringIO()))
    assert moments == pytest.approx([0.5, 1.0, 1.5])


@pytest.mark.parametrize("failed", [False, True])
def test_quiet_speaks_only_of_a_failure(build: Build, failed: bool) -> None:
    """Nothing while it runs, nothing after success; after an error the failed step's log."""
    stream = io.StringIO()
    view = QuietView(stream)
    build.step(view, "a", start=0, log=b"boom\n")
    build.step(view, "a", start=0, end=1, error="exit code: 1" if failed else "")
    view.tick()
    assert stream.getvalue() == ""
    view.close(BuildFailed("failed") if failed else None)
    assert stream.getvalue() == ("------\n > step a:\n0.000 boom\n------\n" if failed else "")


def test_none_says_nothing_of_a_failure_either(build: Build) -> None:
    """Whoever gets the error says what there is to say."""
    stream = io.StringIO()
    view = open_view("none", stream)
    build.step(view, "a", start=0, end=1, log=b"boom\n", error="exit code: 1")
    view.tick()
    view.close(BuildFailed("failed"))
    assert stream.getvalue() == ""


def test_a_failure_is_rendered_with_its_place() -> None:
    """The marked lines, whole and ready to print; before them, where asked for, the log."""
    error = BuildFailed("failed", step="RUN x", log=["boom"], excerpt="Dockerfile:1\n   1 | >>> RUN x")
    place = "Dockerfile:1\n   1 | >>> RUN x\n"
    assert render_failure(error) == place
    assert render_failure(error, log=True) == f"------\n > RUN x:\nboom\n------\n{place}"
    assert render_failure(BuildFailed("failed")) == ""


def test_a_failure_made_elsewhere_is_harmless_too() -> None:
    """Whoever made the error, no escape sequence is rendered."""
    error = BuildFailed("failed", step="\x1b[2JRUN", log=["\x07boom"], excerpt="\x1b]0;x\x07Dockerfile:1\n\x1b[1m1")
    assert render_failure(error, log=True) == "------\n > RUN:\nboom\n------\nDockerfile:1\n1\n"

"""The view for notebooks: what it displays, when, and what it leaves behind."""

from __future__ import annotations

import io
import sys
from html.parser import HTMLParser
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from mobysession._pb import control_pb2
from mobysession.errors import BuildFailed, UsageError
from mobysession.progress import open_view
from mobysession.progress.notebook import NotebookView
from mobysession.progress.plain import PlainView

if TYPE_CHECKING:
    from pathlib import Path

    from tests.progress.conftest import Build


class Cell:
    """The output of a cell: every bundle that was displayed there, the last of which is what is seen."""

    def __init__(self) -> None:
        self.displayed = 0
        self.bundles: list[dict[str, str]] = []

    def display(self, bundle: dict[str, str], *, raw: bool, display_id: bool) -> Cell:
        """As IPython's."""
        assert raw
        assert display_id
        self.displayed += 1
        self.bundles.append(bundle)
        return self

    def update(self, bundle: dict[str, str], *, raw: bool) -> None:
        """As of IPython's handles."""
        assert raw
        self.bundles.append(bundle)

    @property
    def html(self) -> str:
        """What is seen."""
        return self.bundles[-1]["text/html"]

    @property
    def text(self) -> list[str]:
        """What is seen where there is no HTML."""
        return self.bundles[-1]["text/plain"].splitlines()


@pytest.fixture
def cell() -> Cell:
    """Give a cell without output."""
    return Cell()


@pytest.fixture
def view(cell: Cell, build: Build) -> NotebookView:
    """Give a view that displays there."""
    return NotebookView(cell.display, clock=build.clock)


def test_one_display_is_replaced_while_the_build_runs(view: NotebookView, build: Build, cell: Cell) -> None:
    """At most four times a second, and by ticks where only time passes."""
    build.step(view, "a", name="[1/1] RUN make", start=0, log=b"one\n")
    for number in range(10):
        build.now += 0.01
        build.log(view, "a", b"%d\n" % number)
    assert len(cell.bundles) == 1
    build.now += 1.9
    view.tick()
    assert cell.displayed == 1
    assert cell.text[:2] == ["[+] Building 2.0s (0/1)", " => [1/1] RUN make  2.0s"]
    assert " =&gt; =&gt; # 9" in cell.html


def test_what_is_left_behind_needs_nothing(view: NotebookView, build: Build, cell: Cell) -> None:
    """All steps, logs to be opened, those of failed steps open, warnings; no script, no style sheet, no address."""
    build.step(view, "a", name="[1/2] RUN one", start=0, end=1, log=b"said\n")
    build.step(view, "b", name="[2/2] RUN two", start=1, log=b"wrong\n")
    message = control_pb2.StatusResponse()
    message.warnings.add(vertex="a", short=b"careful")
    build.tell(view, message)
    build.step(view, "b", name="[2/2] RUN two", start=1, end=2, error="exit code: 1")
    view.close(BuildFailed("failed"))
    assert cell.html.count("<details") == 2
    assert cell.html.count("<details open") == 1
    assert cell.html.index("said") < cell.html.index("WARN: careful") < cell.html.index("wrong")
    assert "1 warning found:" in cell.html
    assert not {"<script", "<style", "http:", "https:", "src="} & set(cell.html.replace("<", " <").split())
    view.close()
    view.tick()
    assert cell.displayed == 1
    assert cell.text[0] == "[+] Building 2.0s (2/2)"


def test_a_long_build_keeps_the_cell_small(view: NotebookView, build: Build, cell: Cell) -> None:
    """While it runs; the result has all steps."""
    for number in range(100):
        build.step(view, str(number), start=number, end=number + 1)
    view.tick()
    assert len(cell.text) == 25
    view.close()
    assert len(cell.text) == 101
    assert cell.text[0].endswith("(100/100) FINISHED")


def test_a_hostile_engine_displays_text(view: NotebookView, build: Build, cell: Cell) -> None:
    """Whatever it says is neither an element nor an attribute, nor a sequence; nor is another step's log it's own."""
    evil = '</pre></details><script>alert(1)</script><img src=x onerror="alert(1)">\x1b[2J'
    build.step(view, evil, name=f"=> {evil}", start=0, log=evil.encode())
    build.transfer(view, evil, evil, 1)
    build.now += 1
    view.tick()
    message = control_pb2.StatusResponse()
    message.warnings.add(vertex=evil, short=evil.encode())
    build.tell(view, message)
    build.step(view, evil, name=f"=> {evil}", start=0, end=1, error=evil)
    view.close(BuildFailed(evil))
    for bundle in cell.bundles:
        assert elements(bundle["text/html"]) <= {"div", "b", "table", "tr", "td", "details", "summary", "pre"}
        assert "\x1b" not in bundle["text/html"] + bundle["text/plain"]
    assert "&lt;script&gt;alert(1)" in cell.html


def elements(text: str) -> set[str]:
    """Return the names of the elements."""
    names: set[str] = set()

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            names.add(tag)
            assert {name for name, _ in attrs} <= {"style", "open"}

    Parser().feed(text)
    return names


def test_nothing_told_is_nothing_displayed(view: NotebookView, cell: Cell) -> None:
    """A build that never began leaves no output."""
    view.tick()
    view.close(KeyboardInterrupt())
    assert cell.bundles == []


def test_auto_is_a_notebook_in_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not in IPython's shell on a terminal, nor where IPython is only installed."""
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    shell: Any = SimpleNamespace(kernel=object())
    vars(ipython).update(get_ipython=lambda: shell)
    vars(display).update(display=Cell().display)
    for name in [name for name in sys.modules if name.partition(".")[0] == "IPython"]:
        monkeypatch.delitem(sys.modules, name)
    assert type(open_view("auto", io.StringIO())) is PlainView
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    assert type(open_view("auto", io.StringIO())) is NotebookView
    del shell.kernel
    assert type(open_view("auto", io.StringIO())) is PlainView


def test_without_ipython_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller named a view that needs it."""
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(UsageError, match="needs IPython") as caught:
        open_view("notebook", io.StringIO())
    assert "mobysession[notebook]" in (caught.value.hint or "")


def test_it_speaks_to_the_ipython_that_there_is(
    build: Build, monkeypatch: pytest.MonkeyPatch, isolated_environment: Path
) -> None:
    """IPython itself publishes one display and its updates, by one ID."""
    isolated_environment.mkdir()
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    # Its history is a database, and a thread that writes it.
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    try:
        published = CapturingDisplayPublisher()
        monkeypatch.setattr(shell, "display_pub", published)
        view = open_view("notebook", io.StringIO())
        build.step(view, "a", start=0, end=1)
        view.close()
    finally:
        InteractiveShell.clear_instance()
    outputs: list[dict[str, Any]] = published.outputs
    assert [bool(output["update"]) for output in outputs] == [False, True]
    assert len({output["transient"]["display_id"] for output in outputs}) == 1
    assert "FINISHED" in outputs[-1]["data"]["text/html"]

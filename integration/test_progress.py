"""Progress on real engines: our JSON beside buildx's, and the timeline of a real build in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from integration.contexts import make_context
from integration.images import BUILD_TIMEOUT

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Buildx, Engine

#: A warning, two logs, a transfer, markup, and a stage beside the other.
DOCKERFILE = """\
FROM mobysession-base AS one
COPY greeting.txt /
RUN echo '<b>&' ; echo err >&2
FROM mobysession-base as two
RUN echo $undefined
COPY --from=one /greeting.txt /
"""
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: Seconds for a browser to show a page on a busy machine.
_BROWSER_TIMEOUT = 120


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Give what is built."""
    directory = make_context(tmp_path / "context", DOCKERFILE)
    (directory / "greeting.txt").write_text("hello")
    return directory


def _ours(engine: Engine, context: Path, *options: str | Path) -> str:
    command = [sys.executable, "-m", "mobysession", "-H", engine.host, "build", "--no-cache", *options, context]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr


def _shapes(value: Any, path: str = "") -> set[tuple[str, ...]]:
    """Return where there is which kind of value, and in which order an object has its names."""
    if isinstance(value, list):
        return {shape for each in value for shape in _shapes(each, f"{path}[]")}
    if not isinstance(value, dict):
        is_time = isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d*[1-9])?Z", value)
        return {(path, "time" if is_time else type(value).__name__)}
    names = ["*" if name.startswith("sha256:") else name for name in value]
    shapes: set[tuple[str, ...]] = {(path, *dict.fromkeys(names))}
    return shapes.union(*(_shapes(each, f"{path}.{name}") for name, each in zip(names, value.values(), strict=True)))


def _read(lines: str) -> tuple[set[tuple[str, ...]], set[str]]:
    """Return the shapes of lines of JSON, and the names of the steps."""
    values = [json.loads(line) for line in lines.splitlines()]
    # Stages that begin alike share that step, and it bears the name of one of them.
    vertices = [vertex for value in values for vertex in value.get("vertexes", ())]
    names = {re.sub(r"^\[\w+ 1/\d\] FROM", "FROM", vertex["name"]) for vertex in vertices}
    # What comes together in one message depends on the moment, and is left out.
    return {shape for value in values for shape in _shapes(value) if shape[0]}, names


def test_the_json_is_buildxs(engine: Engine, buildx: Buildx, context: Path, tmp_path: Path) -> None:
    """The same names, in the same order, with the same kinds of values, and the same steps."""
    ours, our_steps = _read(_ours(engine, context, "--progress", "rawjson"))
    arguments = ("build", "--no-cache", "--provenance=false", "--progress=rawjson", context)
    done = buildx.run(engine.host, *arguments, config_dir=tmp_path / "buildx")
    theirs, their_steps = _read(done.stderr.decode())
    assert our_steps == their_steps
    assert {shape for shape in ours if len(shape) == 2} == {shape for shape in theirs if len(shape) == 2}
    # Which of a vertex's values are told at once is chance too.
    assert ours ^ theirs <= {shape for shape in ours | theirs if shape[0] == ".vertexes[]"}


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.classes: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.classes += (dict(attrs).get("class") or "").split()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_timeline_is_shown_by_a_browser(engine: Engine, context: Path, tmp_path: Path, scheme: str) -> None:
    """Every step and callback has its row, and the console is empty: no error, and nothing that the policy stopped."""
    page = tmp_path / "out.html"
    _ours(engine, context, "--progress", "plain", "--timeline", page)
    found = re.search(r'id="recorded">(.*?)</script>', page.read_text())
    assert found is not None
    recorded = json.loads(found[1])
    command = [
        str(BROWSER),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--enable-logging=stderr", "--virtual-time-budget=2000", f"--user-data-dir={tmp_path / 'profile'}"),
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
        *("--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_BROWSER_TIMEOUT, check=False)
    shown = _Page(done.stdout)
    assert shown.classes.count("row") == len(recorded["steps"]) + len(recorded["calls"]) > 8
    assert "critical" in shown.classes
    assert "img" not in shown.tags
    assert "CONSOLE" not in done.stderr

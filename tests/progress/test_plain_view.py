"""The plain view writes what buildx wrote of the same builds, and stays harmless and bounded with any other."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mobysession._pb import control_pb2
from mobysession.buildkit.solve_errors import build_failed
from mobysession.errors import BuildFailed, RpcError, StatusCode
from mobysession.progress import render_failure
from mobysession.progress.plain import PlainView

if TYPE_CHECKING:
    from tests.progress.conftest import Build

_DATA = Path(__file__).parent.parent / "data"


def settled(text: str) -> list[str]:
    """Return the lines without those that a later one completes: whether such a line is written depends on chance."""
    lines = text.splitlines()
    done = {re.sub(r"( \d+\.\ds)? done$", "", line) for line in lines if line.endswith(" done")}
    return [line for line in lines if line not in done]


@pytest.fixture
def out() -> io.StringIO:
    """Give the stream that is written to."""
    return io.StringIO()


@pytest.fixture
def view(out: io.StringIO, build: Build) -> PlainView:
    """Give a view on the clock of the build."""
    return PlainView(out, clock=build.clock)


@pytest.mark.parametrize(
    "recording",
    [
        "engine-20.10.24-image",
        "engine-28.5.2-image",
        "engine-28.5.2-local",
        "engine-28.5.2-unchanged",
        "engine-api1.56-image",
    ],
)
def test_a_recorded_build_looks_as_buildx_showed_it(
    view: PlainView, out: io.StringIO, build: Build, recording: str
) -> None:
    """Line for line, numbers and times included."""
    build.replay(view, recording)
    view.close()
    assert settled(out.getvalue()) == settled((_DATA / f"status-{recording}.output.txt").read_text())


@pytest.mark.parametrize("engine", ["engine-20.10.24", "engine-28.5.2", "engine-api1.56"])
@pytest.mark.parametrize("case", ["failing", "missing-dockerfile"])
def test_a_recorded_failure_looks_as_buildx_showed_it(
    view: PlainView, out: io.StringIO, build: Build, engine: str, case: str
) -> None:
    """The steps, the log of the failed one, the lines of the Dockerfile; then whoever reports it adds the message."""
    code, text, details = (_DATA / f"status-{engine}-{case}.error.txt").read_text().split("\n")[:3]
    build.replay(view, f"{engine}-{case}")
    error = build_failed(RpcError(StatusCode(int(code)), text, details=base64.b64decode(details)), build.status)
    view.close(error)
    shown, _, message = (
        (_DATA / f"status-{engine}-{case}.output.txt").read_text().rpartition("ERROR: failed to build: ")
    )
    assert settled(out.getvalue() + render_failure(error)) == settled(shown)
    assert message.strip().replace("failed to solve: rpc error: code = Unknown desc = ", "") == error.message


@pytest.mark.parametrize(("step", "fewest", "most"), [(0.2, 21, 21), (0.002, 2, 3)])
def test_a_transfer_gets_few_lines(
    view: PlainView, out: io.StringIO, build: Build, step: float, fewest: int, most: int
) -> None:
    """What moves less than a twentieth of the total has no line, nor what comes within a tenth of a second."""
    build.step(view, "a", start=0)
    for percent in range(101):
        build.now += step
        build.transfer(view, "a", "sha256:layer", percent * 10**6, total=10**8, done=percent == 100)
    view.close()
    lines = [line for line in out.getvalue().splitlines() if "layer" in line]
    assert fewest <= len(lines) <= most
    assert lines[-1] == f"#1 sha256:layer 100.00MB / 100.00MB {101 * step:.1f}s done"


def test_what_was_held_back_for_a_moment_comes_with_the_tick(view: PlainView, out: io.StringIO, build: Build) -> None:
    """A log line right after another message is written by the next tick, not by the next message."""
    build.step(view, "a", start=0)
    build.now += 0.05
    build.log(view, "a", b"hello\n")
    assert "hello" not in out.getvalue()
    build.now += view.interval
    view.tick()
    assert out.getvalue() == "#1 step a\n#1 0.050 hello\n"


def test_one_running_step_is_written_at_a_time(view: PlainView, out: io.StringIO, build: Build) -> None:
    """The other step's lines wait, and are written as a whole when it completes; the first is then taken up again."""
    build.step(view, "a", start=0)
    for _ in range(2):
        build.now += 0.2
        build.log(view, "a", b"from a\n")
        build.step(view, "b", start=0, log=b"from b\n")
    build.now += 0.2
    build.step(view, "b", start=0, end=0.6)
    build.now += 0.2
    build.step(view, "a", start=0, end=0.8)
    view.close()
    assert out.getvalue().splitlines() == [
        "#1 step a",
        "#1 0.200 from a",
        "#1 0.400 from a",
        "#1 ...",
        "",
        "#2 step b",
        "#2 0.200 from b",
        "#2 0.400 from b",
        "#2 DONE 0.6s",
        "",
        "#1 step a",
        "#1 DONE 0.8s",
    ]


def test_a_step_that_has_waited_for_long_gets_its_turn(view: PlainView, out: io.StringIO, build: Build) -> None:
    """After ten seconds a talkative step gives way to one that has said little."""
    build.step(view, "a", start=0)
    build.now += 0.2
    build.step(view, "b", start=0, log=b"quiet\n")
    for _ in range(120):
        build.now += 0.1
        build.log(view, "a", b"talk\ntalk\ntalk\n")
    assert "#1 ...\n\n#2 step b\n#2 0.200 quiet\n" in out.getvalue()


def test_what_waits_is_bounded(view: PlainView, out: io.StringIO, build: Build) -> None:
    """A step with very many lines held back is written without waiting for its turn."""
    build.step(view, "a", start=0)
    build.now += 0.2
    build.log(view, "a", b"mine\n")
    build.step(view, "b", start=0, log=b"x\n" * 1001)
    build.now += 0.2
    build.log(view, "a", b"mine\n")
    assert out.getvalue().count("0.200 x\n") == 1001


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0.000"), (9.99, "9.990"), (10.0, "10.00"), (99.5, "99.50"), (100.0, "100.0")]
)
def test_the_time_of_a_line_keeps_its_width(
    view: PlainView, out: io.StringIO, build: Build, seconds: float, shown: str
) -> None:
    """Three digits below ten seconds, two below a hundred, then one."""
    build.step(view, "a", start=0)
    build.now += seconds
    build.log(view, "a", b"line\n")
    view.close()
    assert f"#1 {shown} line\n" in out.getvalue()


def test_steps_end_as_cached_cancelled_or_failed(view: PlainView, out: io.StringIO, build: Build) -> None:
    """The last line of a step says how it ended; a cancelled one is not listed among the failures."""
    build.step(view, "a", start=0, end=1, cached=True)
    build.step(view, "b", start=1, end=2, error="process failed: context canceled", log=b"half\n")
    build.step(view, "c", start=1, end=3, error="exit code: 7", log=b"boom\n")
    view.close(BuildFailed("failed"))
    assert out.getvalue().splitlines() == [
        "#1 step a",
        "#1 CACHED",
        "",
        "#2 step b",
        "#2 0.000 half",
        "#2 CANCELED",
        "",
        "#3 step c",
        "#3 0.000 boom",
        "#3 ERROR: exit code: 7",
        "------",
        " > step c:",
        "0.000 boom",
        "------",
    ]


def test_a_failure_that_was_survived_is_not_listed(view: PlainView, out: io.StringIO, build: Build) -> None:
    """A cache that could not be imported does not end a successful build in a block of errors."""
    build.step(view, "a", start=0, end=1, error="not found")
    view.close()
    assert "------" not in out.getvalue()


def test_the_failed_log_is_its_last_lines(view: PlainView, out: io.StringIO, build: Build) -> None:
    """Ten lines are repeated under the failed step, the one without a newline too."""
    build.step(view, "a", start=0, log=b"".join(b"line %d\n" % number for number in range(20)) + b"end")
    build.step(view, "a", start=0, end=1, error="no")
    view.close(BuildFailed("failed"))
    block = out.getvalue().split("------\n")[1].splitlines()
    assert block == [" > step a:", *(f"0.000 line {number}" for number in range(11, 20)), "0.000 end"]


def test_an_interrupted_build_leaves_nothing_unsaid(view: PlainView, out: io.StringIO, build: Build) -> None:
    """When the build is given up, the lines of all running steps are written, and a second close adds nothing."""
    build.step(view, "a", start=0, log=b"from a\n")
    build.step(view, "b", start=0, log=b"from b")
    view.close(KeyboardInterrupt())
    text = out.getvalue()
    assert "#1 0.000 from a" in text
    assert "#2 0.000 from b" in text
    view.close()
    assert out.getvalue() == text


@pytest.mark.parametrize(("count", "title"), [(1, " 1 warning found:"), (2, " 2 warnings found:")])
def test_warnings_stand_at_their_step_and_at_the_end(
    view: PlainView, out: io.StringIO, build: Build, count: int, title: str
) -> None:
    """Each warning is written where it arose and listed after everything else."""
    response = control_pb2.StatusResponse()
    for number in range(count):
        response.warnings.add(vertex="a", short=b"Casing: as and FROM (line %d)\x1b[2J" % (number + 1))
    build.step(view, "a", start=0)
    build.tell(view, response)
    build.step(view, "a", start=0, end=1)
    view.close()
    shorts = [f"Casing: as and FROM (line {number + 1})" for number in range(count)]
    assert out.getvalue().splitlines() == [
        "#1 step a",
        *(f"#1 WARN: {short}" for short in shorts),
        "#1 DONE 1.0s",
        "",
        title,
        *(f" - {short}" for short in shorts),
    ]


def test_a_repeated_completion_is_written_once(view: PlainView, out: io.StringIO, build: Build) -> None:
    """The engine may tell the end of a step again; nothing new is nothing to write."""
    for _ in range(3):
        build.now += 1
        build.step(view, "a", start=0, end=1)
    view.close()
    assert out.getvalue() == "#1 step a\n#1 DONE 1.0s\n"


def test_a_hostile_engine_cannot_command_the_terminal(view: PlainView, out: io.StringIO, build: Build) -> None:
    """No control character but newline and tab is written, wherever it was sent."""
    evil = "\x1b[2J\x1b]0;evil\x07\x9b31m\rx\ny\x08\x00"
    build.step(view, "a", name=evil, start=0, log=evil.encode())
    build.transfer(view, "a", evil, 1)
    build.step(view, "a", name=evil, start=0, end=1, error=evil)
    view.close(BuildFailed("failed"))
    assert not [char for char in out.getvalue() if char not in "\n\t" and not char.isprintable()]


def test_a_stream_that_cannot_encode_gets_escapes(build: Build) -> None:
    """A Latin or ASCII stream shows what it cannot write as an escape, and the build goes on."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    view = PlainView(stream, clock=build.clock)
    build.step(view, "a", name="COPY caf\u00e9", start=0, end=1)
    view.close()
    assert raw.getvalue() == b"#1 COPY caf\\xe9\n#1 DONE 1.0s\n"

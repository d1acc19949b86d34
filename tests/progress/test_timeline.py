"""A build over time: what is remembered, which path was critical, and the page and the trace made of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from mobysession import limits
from mobysession._pb import control_pb2
from mobysession.errors import BuildFailed, StatusCode
from mobysession.events import AccessDecided, CallEnded, CallStarted
from mobysession.progress.critical import critical_path
from mobysession.progress.page import render_page
from mobysession.progress.timeline import Call, Moved, Recorded, Step, Timeline
from mobysession.progress.trace import render_trace

if TYPE_CHECKING:
    from tests.progress.conftest import Build

GET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
#: What ends an element, opens one, and is obeyed by terminals.
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;\x1b[2J\u2028"
#: The time of the conftest's engine at its beginning, and how far this side's clock is ahead of it.
ENGINE, AHEAD = 1_000_000_000.0, 7.0


@pytest.fixture
def timeline(build: Build) -> Timeline:
    """Give a timeline on this side's clock."""
    return Timeline("demo", clock=lambda: ENGINE + build.now - 1000 + AHEAD)


class Fed:
    """A timeline as the view that the made-up builds are shown."""

    interval = 60.0

    def __init__(self, timeline: Timeline) -> None:
        self.update = timeline.update

    def tick(self) -> None:
        """Do nothing."""

    def close(self, error: BaseException | None = None) -> None:
        """Do nothing."""


def call(timeline: Timeline, number: int, begin: float, *, end: float | None = None, subject: str = "") -> None:
    """Tell of a callback, at seconds of the engine's clock after its beginning."""
    now = ENGINE + AHEAD
    timeline.event(CallStarted(session_id="s", time=now + begin, call_id=number, method=GET))
    if subject:
        decided: dict[str, Any] = {"kind": "secret", "subject": subject, "allowed": True, "by": "rule"}
        timeline.event(AccessDecided(session_id="s", time=now + begin, call_id=number, method=GET, **decided))
    if end is not None:
        ended: dict[str, Any] = {"code": StatusCode.OK, "duration": end - begin, "sent": 5, "received": 3}
        timeline.event(CallEnded(session_id="s", time=now + end, call_id=number, method=GET, **ended))


def test_a_build_is_remembered(build: Build, timeline: Timeline) -> None:
    """Steps by stage with runs, parts and logs; callbacks moved to the engine's clock; times from the beginning."""
    view = Fed(timeline)
    build.step(view, "z", name="[internal] never started")
    build.now += 1
    build.step(view, "a", name="[linux/amd64 base 1/12] FROM x", start=1, end=1, cached=True)
    build.now += 1
    build.step(view, "b", name="[base 2/12] RUN make", start=2, log=b"one\ntwo")
    build.transfer(view, "b", "sha256:ff", 10, total=20, start=2, done=True)
    build.now += 2
    call(timeline, 1, 2.5, end=3, subject="token")
    call(timeline, 2, 3.5)
    timeline.event(CallStarted(session_id="s", time=0, call_id=3, method="/grpc.health.v1.Health/Check"))
    build.step(view, "b", name="[base 2/12] RUN make", start=2, end=4, error="exit code: 1")
    build.step(view, "c", name="exporting to image", start=4)
    recorded = timeline.recorded(BuildFailed("failed to solve"))
    assert (recorded.begun, recorded.duration) == (ENGINE + 1, 3)
    assert (recorded.title, recorded.outcome, recorded.error) == ("demo", "failed", "failed to solve")
    assert recorded.steps == (
        Step(
            number=1,
            name="[linux/amd64 base 1/12] FROM x",
            stage="linux/amd64 base",
            state="cached",
            runs=((0, 0),),
            critical=True,
        ),
        Step(
            number=2,
            name="[base 2/12] RUN make",
            stage="base",
            state="failed",
            runs=((1, 3),),
            critical=True,
            error="exit code: 1",
            parts=(Moved(name="sha256:ff", start=1, end=1, current=10, total=20),),
            log=((1, False, "one"), (1, False, "two")),
        ),
        Step(number=3, name="exporting to image", stage="results", state="running", runs=((3, 3),), critical=False),
    )
    assert recorded.calls == (
        Call(kind="secret", subject="token", method=GET, start=1.5, end=2, sent=5, received=3, code="OK"),
        Call(kind="secret", subject="", method=GET, start=2.5, end=3),
    )


def test_a_message_that_comes_late_moves_no_callback(build: Build, timeline: Timeline) -> None:
    """The clocks are compared by the message that was quickest."""
    view = Fed(timeline)
    build.step(view, "a", start=0)
    build.now += 5
    build.step(view, "a", start=0, end=1)
    call(timeline, 1, 0.5, end=0.75)
    assert [(each.start, each.end) for each in timeline.recorded().calls] == [(0.5, 0.75)]


@pytest.mark.parametrize(
    ("error", "outcome"), [(None, "succeeded"), (BuildFailed("no"), "failed"), (KeyboardInterrupt(), "cancelled")]
)
def test_a_build_that_told_nothing_is_remembered_too(
    timeline: Timeline, error: BaseException | None, outcome: str
) -> None:
    """It failed before there was a step, or was left: there is a page all the same."""
    recorded = timeline.recorded(error)
    assert (recorded.outcome, recorded.duration, recorded.steps) == (outcome, 0, ())
    assert "<main" in render_page(recorded)
    assert json.loads(render_trace(recorded))["otherData"]["outcome"] == outcome


def test_what_is_kept_of_a_log_is_bounded(build: Build, timeline: Timeline) -> None:
    """The newest lines, by number and by size, and how many came before them."""
    view = Fed(timeline)
    build.step(view, "a", start=0, log=b"x\n" * (limits.TIMELINE_LINES + 5))
    build.step(view, "b", start=0, log=(b"y" * 16_000 + b"\n") * (limits.TIMELINE_LOG_SIZE // 16_000 + 3))
    many, large = timeline.recorded().steps
    assert (len(many.log), many.omitted) == (limits.TIMELINE_LINES, 5)
    assert large.omitted == 3
    assert sum(len(text) for _, _, text in large.log) <= limits.TIMELINE_LOG_SIZE


def test_what_is_kept_of_all_logs_is_bounded(build: Build, timeline: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes beyond it loses lines, however many steps there are and however short the lines."""
    monkeypatch.setattr(limits, "TIMELINE_SIZE", 10_000)
    for number in range(50):
        build.step(Fed(timeline), str(number), start=0, log=b"\n" * 10 + b"x" * 100 + b"\n")
    steps = timeline.recorded().steps
    kept = [text for step in steps for _, _, text in step.log]
    assert 5_000 < sum(map(len, kept)) + 100 * len(kept) <= 10_000
    assert sum(step.omitted for step in steps) == 50 * 11 - len(kept)


def test_callbacks_are_bounded(timeline: Timeline) -> None:
    """An engine that calls without end fills no memory."""
    for number in range(limits.TIMELINE_CALLS + 10):
        call(timeline, number, 0, end=1)
        call(timeline, -number - 1, 0)
    assert len(timeline.recorded().calls) <= 2 * limits.TIMELINE_CALLS


def test_secrets_are_hidden_in_what_messages_cut_in_two(build: Build) -> None:
    """Lines, errors, answers and names are hidden as they will be read, not only as they came."""
    timeline = Timeline("demo", hide=lambda text: text.replace("sesame", "***"))
    view = Fed(timeline)
    build.step(view, "a", start=0, log=b"open ses")
    build.log(view, "a", b"ame\n")
    call(timeline, 1, 0, end=1, subject="sesame")
    recorded = timeline.recorded(BuildFailed("it said sesame"))
    assert recorded.steps[0].log[0][2] == "open ***"
    assert (recorded.calls[0].subject, recorded.error) == ("***", "it said ***")


def graph(build: Build, *steps: tuple[str, float, float, str]) -> None:
    """Tell steps: digest, start, end, digests of inputs; a start below 0 is none."""
    response = control_pb2.StatusResponse()
    for digest, start, end, inputs in steps:
        vertex = response.vertexes.add(digest=digest, name=digest, inputs=inputs.split())
        if start >= 0:
            vertex.started.FromMilliseconds(1000 + round(start * 1000))
            vertex.completed.FromMilliseconds(1000 + round(end * 1000))
    build.status.apply(response)


def test_the_critical_path_follows_inputs(build: Build) -> None:
    """Of several inputs the one that ended last; others that ran longer, but nobody waited for, are not on it."""
    graph(
        build,
        ("load", 0, 1, ""),
        ("slow", 1, 5, ""),
        ("quick", 1, 2, ""),
        ("join", 5, 6, "quick slow"),
        ("beside", 1, 5.9, ""),
        ("export", 6, 7, ""),
    )
    assert [vertex.name for vertex in critical_path(build.status)] == ["load", "slow", "join", "export"]


def test_the_critical_path_looks_through_what_never_ran(build: Build) -> None:
    """A step between two that ran may be known without having run."""
    graph(build, ("a", 0, 1, ""), ("b", 0, 2, ""), ("between", -1, -1, "a"), ("c", 2, 3, "between"))
    assert [vertex.name for vertex in critical_path(build.status)] == ["a", "c"]


def test_the_critical_path_ends_with_a_circle(build: Build) -> None:
    """An engine that tells impossible graphs keeps nobody busy."""
    graph(build, ("a", 0, 1, "a b"), ("b", 0, 1, "a b"), ("x", -1, -1, "y"), ("y", -1, -1, "x"), ("c", 1, 1, "x a c"))
    assert len(critical_path(build.status)) <= 3
    assert critical_path(type(build.status)()) == []


class Elements(HTMLParser):
    """The elements of a page: their names, their attributes, and what is in scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.inside: list[str] = []
        self._raw = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the beginning of an element."""
        self.names.append(tag)
        self.attributes += attrs
        self._raw = tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        """Take what stands in one."""
        if self._raw:
            self.inside.append(data)
        self._raw = False


@pytest.fixture
def hostile(build: Build) -> Recorded:
    """Give a build of which every text tries to become markup."""
    timeline = Timeline(EVIL)
    view = Fed(timeline)
    build.step(view, EVIL, name=f"[{EVIL} 1/2] {EVIL}", start=0, log=f"{EVIL}\n".encode())
    build.transfer(view, EVIL, EVIL, 1)
    message = control_pb2.StatusResponse()
    message.warnings.add(vertex=EVIL, short=EVIL.encode(), url="javascript:alert(1)")
    build.tell(view, message)
    build.step(view, EVIL, name=f"[{EVIL} 1/2] {EVIL}", start=0, end=1, error=EVIL)
    timeline.event(CallStarted(session_id="s", time=0, call_id=1, method=f"/{EVIL}/{EVIL}"))
    return timeline.recorded(BuildFailed(EVIL))


def test_nothing_that_was_said_becomes_markup(hostile: Recorded) -> None:
    """The page has the elements that it always has, and the texts are whole where the script reads them."""
    elements = Elements(render_page(hostile))
    assert elements.names == Elements(render_page(Timeline("demo").recorded())).names
    assert not [name for name, _ in elements.attributes if name.startswith("on") or name in ("src", "href")]
    style, data, script = elements.inside
    value = json.loads(data)
    shown = value["steps"][0]
    for text in (
        value["title"],
        value["error"],
        shown["name"],
        shown["error"],
        shown["log"][0][2],
        shown["warnings"][0],
    ):
        assert "</script><script>alert(1)</script>" in text
        assert text.isprintable()
    assert "alert" not in style + script


def test_the_page_allows_what_it_brings_and_nothing_else(hostile: Recorded) -> None:
    """Its policy names its one script and its one style by their hashes; no request can be made."""
    elements = Elements(render_page(hostile))
    style, _, script = elements.inside
    policy = next(value for name, value in elements.attributes if name == "content" and "default-src" in (value or ""))
    digests = {
        f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for kind, text in (("style", style), ("script", script))
    }
    assert set((policy or "").split("; ")) == {"default-src 'none'", "base-uri 'none'", *digests}
    assert not re.findall(r"https?://|innerHTML|insertAdjacent|document\.write|eval\(|@import|url\(", style + script)


def test_the_page_follows_the_scheme_of_its_reader(hostile: Recorded) -> None:
    """Light and dark, with the same colours defined in both."""
    style = Elements(render_page(hostile)).inside[0]
    light, dark = (set(re.findall(r"(--[a-z]+):", block)) for block in re.findall(r":root \{([^}]*)\}", style)[:2])
    assert "prefers-color-scheme: dark" in style
    assert dark == light - {"--names", "--zoom"}


def test_a_trace_is_what_viewers_read(build: Build, timeline: Timeline) -> None:
    """Complete events in microseconds; those of one thread lie apart, and every thread has a name."""
    view = Fed(timeline)
    build.step(view, "a", name="[base 1/3] a", start=0, end=2, log=b"said\n")
    build.step(view, "b", name="[base 2/3] b", start=1, end=3)
    build.step(view, "c", name="[base 3/3] c", start=2, end=4)
    build.transfer(view, "c", "sha256:ff", 1, start=2, done=True)
    call(timeline, 1, 0.5, end=1, subject="token")
    trace = json.loads(render_trace(timeline.recorded()))
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    threads = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in trace["traceEvents"]
        if event["name"] == "thread_name"
    }
    where = {event["name"]: threads[event["pid"], event["tid"]] for event in events}
    assert where == {
        "[base 1/3] a": "base",
        "[base 2/3] b": "base (2)",
        "[base 3/3] c": "base",
        "sha256:ff": "base",
        "secret token": "secret",
    }
    first = next(event for event in events if event["name"].endswith("a"))
    assert (first["ts"], first["dur"], first["cat"], first["args"]["log"]) == (0, 2e6, "done", "said")


@pytest.mark.parametrize("recording", ["engine-20.10.24-image", "engine-28.5.2-image", "engine-api1.56-image"])
def test_a_recorded_build_has_a_page(build: Build, timeline: Timeline, recording: str) -> None:
    """A real build's steps are all there, and its path leads from the Dockerfile to the export."""
    build.replay(Fed(timeline), recording)
    recorded = timeline.recorded()
    path = [step.name for step in recorded.steps if step.critical]
    assert len(recorded.steps) == 9
    assert (path[0], path[-1]) == ("[internal] load build definition from Dockerfile", "exporting to image")
    assert json.loads(Elements(render_page(recorded)).inside[1])["duration"] == recorded.duration

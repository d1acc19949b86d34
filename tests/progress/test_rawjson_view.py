"""The machine's view: what BuildKit's Go client would write of the same messages."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING

import pytest

from mobysession._pb import control_pb2
from mobysession.errors import BuildFailed
from mobysession.progress import open_view
from mobysession.progress.rawjson import RawJsonView

if TYPE_CHECKING:
    from tests.progress.conftest import Build


def written(build: Build, *messages: control_pb2.StatusResponse) -> str:
    """Return what the view writes of the messages."""
    stream = io.StringIO()
    view = RawJsonView(stream)
    for message in messages:
        build.tell(view, message)
    view.tick()
    view.close()
    return stream.getvalue()


def test_a_vertex_is_written_as_go_writes_it(build: Build) -> None:
    """Names, their order, times with the digits they need, markup as escapes; what is empty is left out."""
    message = control_pb2.StatusResponse()
    message.vertexes.add(digest="sha256:aa", name="[internal] load")
    vertex = message.vertexes.add(digest="sha256:bb", inputs=["sha256:aa"], name="RUN echo '<b>&'", error="no")
    vertex.started.seconds, vertex.started.nanos = 1_795_252_925, 292_037_400
    vertex.completed.seconds = 1_795_252_926
    vertex.progressGroup.id, vertex.progressGroup.weak = "g", True
    assert written(build, message) == (
        '{"vertexes":[{"digest":"sha256:aa","name":"[internal] load"},'
        '{"digest":"sha256:bb","inputs":["sha256:aa"],"name":"RUN echo \'\\u003cb\\u003e\\u0026\'",'
        '"started":"2026-11-21T09:22:05.2920374Z","completed":"2026-11-21T09:22:06Z","error":"no",'
        '"progressGroup":{"id":"g","weak":true}}]}\n'
    )


def test_a_status_and_a_log_are_written_as_go_writes_them(build: Build) -> None:
    """Some values stand there although they are zero; a log's bytes are base64."""
    message = control_pb2.StatusResponse()
    status = message.statuses.add(ID="transferring", vertex="sha256:aa")
    status.timestamp.seconds = 1
    status.started.seconds = 1
    log = message.logs.add(vertex="sha256:aa", stream=2, msg=b"\xff\n")
    log.timestamp.nanos = 5
    message.logs.add(vertex="sha256:aa")
    assert written(build, message) == (
        '{"statuses":[{"id":"transferring","vertex":"sha256:aa","current":0,"timestamp":"1970-01-01T00:00:01Z",'
        '"started":"1970-01-01T00:00:01Z"}],'
        '"logs":[{"vertex":"sha256:aa","stream":2,"data":"/wo=","timestamp":"1970-01-01T00:00:00.000000005Z"},'
        '{"vertex":"sha256:aa","data":null,"timestamp":"1970-01-01T00:00:00Z"}]}\n'
    )


def test_a_warning_is_written_with_its_graph(build: Build) -> None:
    """The source with the definition, of which Go writes an empty object but no empty list."""
    message = control_pb2.StatusResponse()
    warning = message.warnings.add(vertex="sha256:aa", level=1, short=b"short", detail=[b"more"], url="https://x")
    warning.info.filename, warning.info.language = "Dockerfile", "Dockerfile"
    getattr(warning.info.definition, "def").append(b"op")
    warning.info.definition.metadata["sha256:b"].caps["source.local"] = True
    warning.info.definition.metadata["sha256:b"].ignore_cache = True
    warning.info.definition.metadata["sha256:a"].description["x"] = "y"
    warning.info.definition.Source.locations["sha256:b"].SetInParent()
    bounds = warning.ranges.add()
    bounds.start.line = bounds.end.line = 4
    assert json.loads(written(build, message))["warnings"] == [
        {
            "vertex": "sha256:aa",
            "level": 1,
            "short": base64.b64encode(b"short").decode(),
            "detail": [base64.b64encode(b"more").decode()],
            "url": "https://x",
            "sourceInfo": {
                "filename": "Dockerfile",
                "definition": {
                    "def": ["b3A="],
                    "metadata": {
                        "sha256:a": {"description": {"x": "y"}},
                        "sha256:b": {"ignore_cache": True, "caps": {"source.local": True}},
                    },
                    "Source": {"locations": {"sha256:b": {}}},
                },
                "language": "Dockerfile",
            },
            "range": [{"start": {"line": 4}, "end": {"line": 4}}],
        }
    ]


def test_a_hostile_engine_writes_one_line_of_ascii(build: Build) -> None:
    """No sequence, no second line, no moment that ends the build; the text itself is kept for the reader."""
    evil = "\x1b[2J\n\x9b31m\u2028\x7f</script>"
    message = control_pb2.StatusResponse()
    message.vertexes.add(digest="a", name=evil).started.seconds = 10**15
    line = written(build, message)
    assert line.count("\n") == 1
    assert line.isascii()
    assert line.rstrip("\n").isprintable()
    assert "<" not in line
    assert json.loads(line)["vertexes"][0]["name"] == evil


def test_what_no_message_brought_is_no_line(build: Build) -> None:
    """A line that was never ended is flushed at the end for other views; here it is written already."""
    stream = io.StringIO()
    view = open_view("rawjson", stream)
    build.step(view, "a", start=0, log=b"begun")
    lines = stream.getvalue()
    changes = build.status.finish()
    assert changes.logs
    view.update(build.status, changes)
    view.close(BuildFailed("failed"))
    assert stream.getvalue() == lines != ""


@pytest.mark.parametrize("recording", ["engine-20.10.24-image", "engine-28.5.2-image", "engine-api1.56-image"])
def test_a_recorded_build_is_a_line_a_message(build: Build, recording: str) -> None:
    """Every message of a real build is one line, and its steps are all there."""
    stream = io.StringIO()
    build.replay(RawJsonView(stream), recording)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    digests = {vertex["digest"] for line in lines for vertex in line.get("vertexes", ())}
    assert digests == {vertex.digest for vertex in build.status.vertices}

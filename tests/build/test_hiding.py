"""Secrets that an engine's messages show, also in pieces."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from mobysession import limits
from mobysession._pb import control_pb2
from mobysession.build.leaks import LeakWatch
from mobysession.build.progress import BuildProgress
from mobysession.redaction import Redactor

if TYPE_CHECKING:
    from mobysession.buildkit.status import BuildStatus, Changes

VALUE = "open sesame, said she"  # of a length at which its base64 needs no padding
STEP = "sha256:step"


def log(text: bytes, stream: int = 1) -> control_pb2.StatusResponse:
    """Return a message with some output of the step."""
    return control_pb2.StatusResponse(logs=[control_pb2.VertexLog(vertex=STEP, stream=stream, msg=text)])


def step(*, completed: bool = False) -> control_pb2.StatusResponse:
    """Return the news that the step has begun, or has ended."""
    vertex = control_pb2.Vertex(digest=STEP, name="RUN x")
    vertex.started.seconds = 1
    if completed:
        vertex.completed.seconds = 2
    return control_pb2.StatusResponse(vertexes=[vertex])


def shown(*messages: control_pb2.StatusResponse, leaks: LeakWatch | None = None) -> list[str]:
    """Return the lines of the step after these messages, and what every message that was shown had, as the last one."""
    said: list[bytes] = []
    redactor = Redactor()
    redactor.add(VALUE)

    class View:
        interval = 1.0

        def update(self, _status: BuildStatus, changes: Changes) -> None:
            if changes.message is not None:
                said.extend(each.msg for each in changes.message.logs)

        def tick(self) -> None: ...
        def leave(self) -> None: ...
        def close(self, error: BaseException | None = None) -> None: ...

    progress = BuildProgress(View(), None, redactor, leaks)
    for message in (step(), *messages):
        progress.apply(message)
    progress.finish()
    [vertex] = progress.status.vertices
    return [*(line.text for line in vertex.log.lines), b"".join(said).decode()]


@pytest.mark.parametrize("form", [VALUE.encode(), base64.b64encode(VALUE.encode()), VALUE.encode().hex().encode()])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_value_in_pieces_is_hidden(form: bytes, size: int) -> None:
    """Wherever it is cut, in the lines and in the messages; and it is a warning."""
    text = b"before " + form + b" after\n"
    leaks = LeakWatch({}, {})
    pieces = [log(text[start : start + size]) for start in range(0, len(text), size)]
    assert shown(*pieces, leaks=leaks) == ["before *** after", "before *** after\n"]
    assert leaks.take() == []


def test_a_value_in_pieces_is_a_warning() -> None:
    """As one in a single message is."""
    redactor = Redactor()
    redactor.add(VALUE)
    progress = BuildProgress(None, None, redactor, LeakWatch({}, {}))
    for message in (step(), log(b"open ses"), log(b"ame, said she\n")):
        progress.apply(message)
    assert [warning.short.partition(":")[0] for warning in progress.status.warnings] == ["SecretInLog"]


@pytest.mark.parametrize("completed", [True, False])
def test_what_only_begins_like_a_value_is_shown(completed: bool) -> None:
    """At the latest when the step ends, or the build, and in its place."""
    messages = [log(b"first\nwe ope"), *([step(completed=True)] if completed else [])]
    assert shown(*messages) == ["first", "we ope", "first\nwe ope"]
    assert shown(log(b"we open "), log(b"at nine\n")) == ["we open at nine", "we open at nine\n"]


def test_the_streams_of_a_step_are_kept_apart() -> None:
    """What one of them holds back does not end up in the other one."""
    lines = shown(log(b"we open ses", 1), log(b"ame, said she\n", 2), log(b"ame doors\n", 1))
    assert lines == ["ame, said she", "we open sesame doors", "we ame, said she\nopen sesame doors\n"]


def test_what_is_held_back_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In how much of it there is, and of how many outputs; what is more is shown as it is."""
    monkeypatch.setattr(limits, "MAX_STATUSES", 1)
    assert shown(log(b"a open", 1), log(b"b open", 2))[-1] == "a b openopen"
    monkeypatch.setattr(limits, "MAX_LOG_LINE", 4)
    assert shown(log(b"a open"), log(b"b open "))[-1] == "a openb open "

"""A build in the words of docker's older builder."""

from __future__ import annotations

import pytest

from mobysession._pb import control_pb2
from mobysession.build.calls import CallAnswer
from mobysession.build.result import BuildResult
from mobysession.buildkit.status import BuildStatus
from mobysession.dockerpy.messages import Chunk, MessageView, failure, success
from mobysession.errors import BuildFailed

START = 1_700_000_000


def view_of(*responses: control_pb2.StatusResponse) -> list[Chunk]:
    chunks: list[Chunk] = []
    view = MessageView(chunks.append)
    status = BuildStatus()
    for response in responses:
        view.update(status, status.apply(response))
    view.close()
    return chunks


def step(name: str, *, completed: bool = False, cached: bool = False) -> control_pb2.StatusResponse:
    response = control_pb2.StatusResponse()
    vertex = response.vertexes.add(digest=f"sha256:{name}", name=name, cached=cached)
    vertex.started.seconds = START
    if completed:
        vertex.completed.seconds = START + 1
    return response


def log(name: str, text: bytes, stream: int) -> control_pb2.StatusResponse:
    response = control_pb2.StatusResponse()
    response.logs.add(vertex=f"sha256:{name}", msg=text, stream=stream)
    return response


def test_steps_are_told_once_in_the_older_builders_words() -> None:
    """With number and count, whatever the stage is called; BuildKit's own steps are not told."""
    name = "[build linux/amd64 2/3] RUN make"
    assert view_of(step("[internal] load metadata"), step(name), step(name, completed=True)) == [
        {"stream": "Step 2/3 : RUN make\n"}
    ]


def test_a_cached_step_says_so_once() -> None:
    """As programs that count cache hits expect it."""
    name = "[1/2] FROM a"
    cached = step(name, completed=True, cached=True)
    assert view_of(cached, cached) == [{"stream": "Step 1/2 : FROM a\n"}, {"stream": " ---> Using cache\n"}]


def test_output_is_told_line_by_line_and_errors_in_red() -> None:
    """Also a last line that was not ended."""
    name = "[1/1] RUN a"
    assert view_of(step(name), log(name, b"one\nt", 1), log(name, b"bad\n", 2), log(name, b"wo", 1))[1:] == [
        {"stream": "one\n"},
        {"stream": "\x1b[91mbad\n\x1b[0m"},
        {"stream": "two\n"},
    ]


def test_success_ends_with_the_id_and_the_tags() -> None:
    """A name without a tag gets the one that it stands for; a port is no tag."""
    result = BuildResult(image_id="sha256:0123456789abcdef", digest="", tags=("a:1", "localhost:5000/b"))
    assert success(result, quiet=False) == [
        {"aux": {"ID": "sha256:0123456789abcdef"}},
        {"stream": "Successfully built 0123456789ab\n"},
        {"stream": "Successfully tagged a:1\n"},
        {"stream": "Successfully tagged localhost:5000/b:latest\n"},
    ]
    assert success(result, quiet=True) == [{"stream": "sha256:0123456789abcdef\n"}]


def test_an_answer_is_told_with_what_kept_it_from_being_whole() -> None:
    """In red, as all that is wrong."""
    document = {"buildError": {"message": "unknown instruction"}}
    answer = CallAnswer(name="check", data=document, json="{}", error="unknown instruction")
    result = BuildResult(image_id="", digest="", tags=("a",), answer=answer)
    assert success(result, quiet=True, form="json") == [
        {"stream": "{}\n"},
        {"stream": "\x1b[91munknown instruction\n\x1b[0m"},
    ]


@pytest.mark.parametrize(
    "text",
    [
        'failed to solve: process "/bin/sh -c exit 7" did not complete successfully: exit code: 7',
        "failed to solve: executor failed running [/bin/sh -c exit 7]: exit code: 7",
    ],
)
def test_a_commands_failure_is_told_in_the_older_builders_words(text: str) -> None:
    """With its code; any other failure in BuildKit's."""
    error = BuildFailed(text, exit_code=7)
    message = "The command '/bin/sh -c exit 7' returned a non-zero code: 7"
    assert failure(error) == {"errorDetail": {"message": message, "code": 7}, "error": message}
    assert failure(BuildFailed("no")) == {"errorDetail": {"message": "no"}, "error": "no"}

"""``POST /build``: what its stream of JSON objects is taken for, good, bad and broken off."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import pytest
import trio

from mobysession._pb import control_pb2
from mobysession.build import classic_driver
from mobysession.build.classic_driver import ClassicBuildError, build_classic
from mobysession.build.options import BuildOptions
from mobysession.build.progress import BuildProgress
from mobysession.errors import ApiError, ConnectionLost, HandshakeError, UnsupportedByEngine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.build.conftest import Answering, HttpAnswer

IMAGE = b'{"id":"moby.image.id","aux":{"ID":"sha256:abc"}}'


def trace(*, name: str = "[1/1] RUN x", log: bytes = b"") -> bytes:
    """One status message as the engine wraps it."""
    message = control_pb2.StatusResponse(vertexes=[control_pb2.Vertex(digest="v", name=name)])
    message.vertexes[0].started.FromSeconds(1)
    if log:
        message.logs.add(vertex="v", msg=log)
    aux = base64.b64encode(message.SerializeToString()).decode()
    return json.dumps({"id": "moby.buildkit.trace", "aux": aux}).encode()


@pytest.fixture
def progress() -> BuildProgress:
    return BuildProgress()


@pytest.fixture
def ask(answer: HttpAnswer, answering: Answering, progress: BuildProgress):
    """Give ``await ask(...)``: the driver's response to the server's answer."""

    async def ask(
        options: BuildOptions | None = None,
        *,
        progress: BuildProgress = progress,
        given_attrs: Mapping[str, str] | None = None,
    ) -> Mapping[str, str]:
        async with answering(answer) as endpoint:
            return await build_classic(
                endpoint,
                options or BuildOptions(),
                session_id="sid",
                dockerfile="Dockerfile",
                progress=progress,
                given_attrs=given_attrs or {},
            )

    return ask


async def test_traces_and_the_image_id_are_read(answer, ask, progress) -> None:
    """Base64 traces become the status; the ID goes under the key that the other driver's response has."""
    answer.json_lines(trace(log=b"hello\n"), IMAGE)
    assert await ask() == {"containerimage.digest": "sha256:abc"}
    (step,) = progress.status.steps
    assert step.name == "[1/1] RUN x"
    assert [line.text for line in step.log.last(5)] == ["hello"]


async def test_the_request_names_session_and_options(answer, ask) -> None:
    """The context comes through the session; the body is empty and says that it would be a tar."""
    answer.json_lines(IMAGE)
    await ask(BuildOptions(tags=["a:1"], target="final"))
    head = answer.requests[0].decode()
    query = dict(parse_qsl(urlsplit(head.split()[1]).query))
    assert head.startswith("POST /build?")
    assert "application/x-tar" in head
    assert {key: query[key] for key in ("version", "session", "remote", "t", "target")} == {
        "version": "2",
        "session": "sid",
        "remote": "client-session",
        "t": "a:1",
        "target": "final",
    }


async def test_a_line_of_megabytes_is_one_status_message(answer, ask, progress) -> None:
    """The base64 of a big log arrives in thousands of reads and is one line."""
    answer.json_lines(trace(log=b"x" * 3_000_000 + b"\n"), IMAGE)
    await ask()
    (step,) = progress.status.steps
    assert sum(len(line.text) for line in step.log.last(1000)) > 10_000


async def test_a_line_without_end_is_refused(answer, ask, monkeypatch) -> None:
    """What is longer than `limits.MAX_TRACE_LINE` is no answer of an engine."""
    monkeypatch.setattr(classic_driver, "MAX_TRACE_LINE", 1000)
    answer.json_lines(b'"' + b"x" * 2000)
    with pytest.raises(HandshakeError, match="longer than 1000 bytes"):
        await ask()


async def test_empty_lines_and_unknown_objects_are_passed_over(answer, ask) -> None:
    """An engine may say more than we know; lists and numbers are no objects."""
    answer.json_lines(b"", b'{"id":"moby.new","aux":{"a":1}}', b'{"stream":"Step 1"}', b"[1]", b"17", IMAGE)
    assert await ask() == {"containerimage.digest": "sha256:abc"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"errorDetail":{"message":"no such stage"},"error":"short"}', "no such stage"),
        (b'{"error":"only text"}', "only text"),
        (b'{"errorDetail":"odd","error":"still text"}', "still text"),
        (b'{"errorDetail":{}}', "the engine gave no reason"),
    ],
)
async def test_an_error_object_fails_the_build(answer, ask, line, words) -> None:
    """With the longest of the words that there are, whatever shape they have."""
    answer.json_lines(trace(), line)
    with pytest.raises(ClassicBuildError) as caught:
        await ask()
    assert caught.value.message == words


async def test_output_that_was_begun_is_told_when_the_build_fails(answer, ask, progress) -> None:
    """A last line without its end is in the status of a failed build too."""
    answer.json_lines(trace(log=b"half"), b'{"error":"no"}')
    with pytest.raises(ClassicBuildError):
        await ask()
    assert [line.text for line in progress.status.steps[0].log.last(5)] == ["half"]


@pytest.mark.parametrize(
    "line",
    [b"<html>", b"{", b"\xff\xfe", b"[" * 100_000, b'{"id":"moby.buildkit.trace","aux":"' + "é".encode() + b'"}']
    + [b'{"id":"moby.buildkit.trace","aux":"%s"}' % aux for aux in (b"A", b"////")],
)
async def test_garbage_is_a_typed_error(answer, ask, line) -> None:
    """What is no JSON, no base64 or no status message is named as such, and no traceback."""
    answer.json_lines(line, IMAGE)
    with pytest.raises(HandshakeError, match=r"not the JSON stream of a Docker engine|cannot be decoded"):
        await ask()


async def test_an_answer_without_an_image_and_without_an_error_is_an_error(answer, ask) -> None:
    """A stream that just ends proves no image."""
    answer.json_lines(trace())
    with pytest.raises(HandshakeError, match="without an image and without an error"):
        await ask()


async def test_an_answer_that_breaks_off_is_a_lost_connection(answer, ask) -> None:
    """Even behind the image's ID: the engine says that it is done by ending its answer."""
    answer.json_lines(IMAGE, whole=False)
    with pytest.raises(ConnectionLost, match=r"in the middle of its answer to POST /build"):
        await ask()


@pytest.mark.parametrize("status", [b"400 Bad Request", b"403 Forbidden", b"404 Not Found", b"500 Oops", b"302 Found"])
async def test_a_refusal_is_told_in_the_engines_words(answer, ask, status) -> None:
    """A status that is none of success is an ApiError with the daemon's message."""
    answer.error(status, b'{"message":"the daemon says why"}')
    with pytest.raises(ApiError, match=r"POST /build: .*the daemon says why") as caught:
        await ask()
    assert caught.value.status == int(status[:3])


async def test_what_a_listener_raises_is_not_taken_for_garbage(answer, ask) -> None:
    """A ValueError of the caller's own is not the engine's fault."""

    def listener(status: object) -> None:
        raise ValueError("mine")

    answer.json_lines(trace(), IMAGE)
    with pytest.raises(ValueError, match=r"^mine$"):
        await ask(progress=BuildProgress(listener=listener))


async def test_stages_without_cache_are_refused_before_anything_is_asked(answer, ask) -> None:
    """The endpoint cannot be asked for them, and ignoring the option would be a lie."""
    with pytest.raises(UnsupportedByEngine, match="single stages"):
        await ask(BuildOptions(no_cache_filter=["a"]))
    assert answer.requests == []


async def test_an_image_as_a_directory_is_refused_before_anything_is_asked(answer, ask, tmp_path) -> None:
    """The answer does not say which of the blobs is the image."""
    with pytest.raises(UnsupportedByEngine, match="tar=false"):
        await ask(BuildOptions(outputs=[f"type=oci,dest={tmp_path}/image,tar=false"]))
    assert answer.requests == []


async def test_annotations_of_an_output_are_refused_before_anything_is_asked(answer, ask) -> None:
    """As those of the build are."""
    with pytest.raises(UnsupportedByEngine, match="no annotations"):
        await ask(BuildOptions(outputs=["type=image,annotation.a=b"]))
    assert answer.requests == []


async def test_attributes_that_were_given_are_refused_and_those_that_were_found_are_not(answer, ask) -> None:
    """The endpoint has no frontend to give them to; of what git knows it takes the labels."""
    with pytest.raises(UnsupportedByEngine, match="no frontend_attrs"):
        await ask(given_attrs={"build-arg:X": "a"})
    assert answer.requests == []
    answer.json_lines(IMAGE)
    found = {"vcs:revision": "0a1b", "label:revision": "0a1b", "label:mine": "theirs"}
    await ask(BuildOptions(frontend_attrs=found, labels={"mine": "b"}))
    query = dict(parse_qsl(urlsplit(answer.requests[0].decode().split()[1]).query))
    assert json.loads(query["labels"]) == {"revision": "0a1b", "mine": "b"}


async def test_several_platforms_are_refused_before_anything_is_asked(answer, ask) -> None:
    """The endpoint makes one image."""
    with pytest.raises(UnsupportedByEngine, match="one platform only"):
        await ask(BuildOptions(platforms=["linux/amd64", "linux/arm64"]))
    assert answer.requests == []


async def test_an_engine_that_is_silent_for_minutes_is_waited_for(answer, ask, autojump_clock) -> None:
    """A step may take an hour; only the caller's own time limit ends the wait, and leaves nothing behind."""
    answer.stay = True
    with trio.move_on_after(3600) as scope:
        await ask()
    assert scope.cancelled_caught

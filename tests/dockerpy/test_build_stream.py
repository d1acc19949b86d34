"""Builds through docker-py's clients: the output as it comes, errors as docker-py's, patched and not."""

from __future__ import annotations

import contextvars
import gc
import io
import json
import threading
from typing import TYPE_CHECKING, Any

import docker
import pytest
import requests
import trio
from docker.errors import APIError, BuildError, DockerException, InvalidVersion
from docker.models.images import ImageCollection

from mobysession import limits
from mobysession.dockerpy import build, patch, start_build
from mobysession.dockerpy.failures import as_docker_error, refused_status
from mobysession.errors import (
    ApiError,
    BuildFailed,
    ConnectError,
    ContextError,
    HandshakeTimeout,
    MobysessionError,
    OutputError,
    SessionLost,
    StatusCode,
    UnsupportedByEngine,
    UpgradeRefused,
    UsageError,
)
from mobysession.testing import BlockingFakeDaemon, FakeSolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mobysession.testing.script import Script

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")
IMAGE = "sha256:" + "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration; and no thread of a build is left."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    yield
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "mobysession build":
            thread.join(5)
            assert not thread.is_alive()


def client_of(daemon: BlockingFakeDaemon) -> docker.DockerClient:
    return docker.DockerClient(base_url=daemon.endpoint.url, version="1.45")


def dockerfile() -> io.BytesIO:
    return io.BytesIO(b"FROM scratch\n")


async def solved(solve: FakeSolve) -> dict[str, str]:
    return {"containerimage.config.digest": IMAGE}


async def failed(solve: FakeSolve) -> dict[str, str]:
    solve.fail("no")


def daemon_with(script: Script) -> BlockingFakeDaemon:
    return BlockingFakeDaemon(script=script)


def test_output_is_bytes_of_json_or_dicts() -> None:
    """One message each, ended as the engine ends them."""
    with daemon_with(solved) as daemon:
        api = client_of(daemon).api
        chunks = list(start_build(api, fileobj=dockerfile(), tag="a"))
        assert all(isinstance(chunk, bytes) and chunk.endswith(b"}\r\n") for chunk in chunks)
        decoded = list(start_build(api, fileobj=dockerfile(), tag="a", decode=True))
    assert [json.loads(chunk) for chunk in chunks if isinstance(chunk, bytes)] == decoded
    assert decoded[-2:] == [
        {"stream": "Successfully built 0123456789ab\n"},
        {"stream": "Successfully tagged a:latest\n"},
    ]


def test_a_quiet_build_says_its_id_only() -> None:
    """As docker-py's does."""
    with daemon_with(solved) as daemon:
        chunks = list(start_build(client_of(daemon).api, fileobj=dockerfile(), quiet=True, decode=True))
    assert chunks == [{"stream": f"{IMAGE}\n"}]


def test_a_callback_sees_the_callers_context_variables() -> None:
    """Although the build runs in a thread."""
    secrets = []

    async def script(solve: FakeSolve) -> dict[str, str]:
        secrets.append(await (await solve.session()).get_secret("token"))
        return {}

    VARIABLE.set("of the caller")
    with daemon_with(script) as daemon:
        list(start_build(client_of(daemon).api, fileobj=dockerfile(), secrets={"token": lambda: VARIABLE.get()}))
    assert secrets == [b"of the caller"]


def test_closing_the_output_cancels_the_build() -> None:
    """When close returns, nothing of it is left here; the engine was told."""
    ended = threading.Event()
    with daemon_with(_endless(ended)) as daemon:
        stream = start_build(client_of(daemon).api, fileobj=dockerfile(), decode=True)
        assert next(stream) == {"stream": "Step 1/1 : RUN sleep\n"}
        stream.close()
        assert ended.wait(5)
        with pytest.raises(StopIteration):
            next(stream)


def test_forgetting_the_output_cancels_the_build() -> None:
    """As the end of docker-py's connection would."""
    ended = threading.Event()
    with daemon_with(_endless(ended)) as daemon:
        start_build(client_of(daemon).api, fileobj=dockerfile())
        gc.collect()
        assert ended.wait(5)


def test_a_build_that_says_nothing_is_given_up_after_the_timeout() -> None:
    """With the exception of requests that docker-py lets through."""
    ended = threading.Event()
    with daemon_with(_endless(ended)) as daemon:
        stream = start_build(client_of(daemon).api, fileobj=dockerfile(), timeout=0.1)
        next(stream)
        with pytest.raises(requests.exceptions.ReadTimeout, match=r"said nothing for 0\.1 s"):
            next(stream)
        assert ended.wait(5)


def test_what_nobody_reads_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs beyond the bound are left out, the result is not, and the reader is told."""
    monkeypatch.setattr(limits, "MAX_UNREAD_OUTPUT", 4096)

    async def script(solve: FakeSolve) -> dict[str, str]:
        async with solve.vertex("[1/1] RUN yes") as step:
            for _ in range(100):
                step.log("y\n")
        return {"containerimage.config.digest": IMAGE}

    with daemon_with(script) as daemon:
        stream = start_build(client_of(daemon).api, fileobj=dockerfile(), decode=True)
        stream._run.join()
        texts = [chunk.get("stream", "") for chunk in stream]  # type: ignore[union-attr]  # decoded
    assert texts.count("y\n") < 50
    assert any("messages are left out" in text for text in texts)
    assert "Successfully built" in texts[-1]


def test_a_failed_build_ends_in_an_error_message() -> None:
    """Where it had begun; the error itself is kept beside it."""

    with daemon_with(_failing) as daemon:
        stream = start_build(client_of(daemon).api, fileobj=dockerfile(), decode=True)
        chunks = list(stream)
    last = chunks[-1]
    assert isinstance(last, dict)
    assert "no" in last["error"]
    assert last["errorDetail"]["message"] == last["error"]
    assert stream.result is None
    assert isinstance(stream.failure, BuildFailed)


def test_a_build_that_does_not_begin_is_an_error_of_the_api() -> None:
    """As where docker-py's request is refused: whoever tries again after a fault of the server's does not here."""
    with daemon_with(_unparsed) as daemon, pytest.raises(APIError, match="unknown instruction") as caught:
        start_build(client_of(daemon).api, fileobj=dockerfile())
    assert caught.value.is_client_error()
    assert isinstance(caught.value.__cause__, BuildFailed)


def test_a_build_that_fails_before_its_steps_is_a_failed_build() -> None:
    """As with docker-py, where the Dockerfile could be parsed."""
    with daemon_with(failed) as daemon, pytest.raises(BuildError, match="no"):
        build(client_of(daemon), fileobj=dockerfile())


def test_a_context_that_cannot_be_fetched_is_an_error_of_the_api() -> None:
    """And no failed build: none had begun."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        async with solve.vertex("[internal] load remote build context"):
            solve.fail("connection refused")

    with daemon_with(script) as daemon, pytest.raises(APIError, match="connection refused") as caught:
        build(client_of(daemon), path="http://localhost/context.tar")
    assert caught.value.status_code == 500


def test_a_dockerfile_that_is_not_there_counts_from_the_context(tmp_path: Path) -> None:
    """And nobody says that it counts from anywhere else."""
    client = docker.DockerClient(base_url=f"unix://{tmp_path}/none.sock", version="1.45")
    with pytest.raises(APIError, match=r"no Dockerfile 'nope' in .* counts from the build context") as caught:
        build(client, path=str(tmp_path), dockerfile="nope")
    assert caught.value.status_code == 500


@pytest.mark.parametrize("proxies", [{}, {"default": {"httpProxy": "http://proxy"}}])
def test_build_arguments_that_are_no_mapping_are_refused(tmp_path: Path, proxies: dict[str, object]) -> None:
    """As the engine refuses them, for which docker-py writes them down as they are."""
    (tmp_path / "config.json").write_text(json.dumps({"proxies": proxies}))
    with daemon_with(solved) as daemon, pytest.raises(APIError, match="build_args takes a mapping") as caught:
        build(client_of(daemon), fileobj=dockerfile(), buildargs=["A"])
    assert caught.value.status_code == 400


def test_a_daemon_that_is_not_there_is_an_error_of_the_connection(tmp_path: Path) -> None:
    """Of requests, as from docker-py."""
    client = docker.DockerClient(base_url=f"unix://{tmp_path}/none.sock", version="1.45")
    with pytest.raises(requests.exceptions.ConnectionError, match="there is no socket"):
        build(client, fileobj=dockerfile())


def test_a_failed_build_raises_docker_pys_error() -> None:
    """With the log in it, and our error behind it."""

    with daemon_with(_failing) as daemon, pytest.raises(BuildError, match="no") as caught:
        build(client_of(daemon), fileobj=dockerfile())
    assert next(iter(caught.value.build_log)) == {"stream": "Step 1/1 : RUN no\n"}
    assert isinstance(caught.value.__cause__, BuildFailed)


def test_a_build_without_an_image_returns_none() -> None:
    """Where its output went elsewhere."""

    with daemon_with(_without_image) as daemon:
        image, logs = build(client_of(daemon), fileobj=dockerfile())
    assert image is None
    assert list(logs) == []


@pytest.mark.parametrize("quiet", [False, True])
def test_an_image_that_went_elsewhere_is_not_looked_for(quiet: bool) -> None:
    """Although the engine says its digest; nobody is told that it has an ID or a name there."""
    outputs = ["type=image,store=false"]
    with daemon_with(_elsewhere) as daemon:
        image, logs = build(client_of(daemon), fileobj=dockerfile(), tag="a", outputs=outputs, quiet=quiet)
    assert (image, list(logs)) == (None, [])


@pytest.mark.parametrize(("form", "told"), [("", "of people\n"), (",format=json", '{"a": 1}\n')])
def test_the_answer_to_a_call_is_the_log(form: str, told: str) -> None:
    """And there is no image: a tag is given to nothing."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        return {"result.json": '{"a": 1}', "result.txt": "of people\n"}

    with daemon_with(script) as daemon:
        image, logs = build(client_of(daemon), fileobj=dockerfile(), tag="a", call=f"outline{form}")
    assert (image, list(logs)) == (None, [{"stream": told}])


def test_a_connection_that_is_lost_is_an_error_of_docker_pys() -> None:
    """With the loss of the session behind it; what was said until then has been read."""
    with daemon_with(_endless(threading.Event())) as daemon:
        stream = start_build(client_of(daemon).api, fileobj=dockerfile(), decode=True)
        assert next(stream) == {"stream": "Step 1/1 : RUN sleep\n"}

        async def kill() -> None:
            daemon.daemon.kill()

        daemon.call(kill)
        with pytest.raises(DockerException, match="was lost") as caught:
            list(stream)
    assert isinstance(caught.value.__cause__, SessionLost)


def test_patched_clients_build_here_until_that_is_undone() -> None:
    """Both of docker-py's ways, with arguments by position too."""
    before = docker.APIClient.build, ImageCollection.build
    undo = patch()
    try:
        with daemon_with(solved) as daemon:
            api = client_of(daemon).api
            chunks = list(api.build(None, "a:1", True, dockerfile(), decode=True))
            assert chunks == [{"stream": f"{IMAGE}\n"}]
            with pytest.raises(TypeError, match="one of them twice"):
                api.build(".", path=".")  # type: ignore[misc]  # it is what is refused
        with daemon_with(_without_image) as daemon:
            assert client_of(daemon).images.build(fileobj=dockerfile())[0] is None
    finally:
        undo()
    assert (docker.APIClient.build, ImageCollection.build) == before


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_whoever_patched_undoes_it_for_themselves(order: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last one makes clients what they were, in any order; undoing again does nothing to who patched since."""
    before = docker.APIClient.build, ImageCollection.build
    undos = (patch(), patch())
    patched = docker.APIClient.build, ImageCollection.build
    first, last = (undos[number] for number in order)
    try:
        for _ in range(2):
            first()
            assert (docker.APIClient.build, ImageCollection.build) == patched != before
    finally:
        last()
    assert (docker.APIClient.build, ImageCollection.build) == before
    other: Any = object()
    monkeypatch.setattr(ImageCollection, "build", other)
    first()
    assert (docker.APIClient.build, ImageCollection.build) == (before[0], other)


async def _unparsed(solve: FakeSolve) -> dict[str, str]:
    solve.fail("dockerfile parse error on line 1: unknown instruction: FOO")


async def _failing(solve: FakeSolve) -> dict[str, str]:
    async with solve.vertex("[1/1] RUN no"):
        solve.fail("no")


async def _elsewhere(solve: FakeSolve) -> dict[str, str]:
    return {"containerimage.digest": IMAGE, "containerimage.descriptor": "e30="}


async def _without_image(solve: FakeSolve) -> dict[str, str]:
    return {}


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (UnsupportedByEngine("a"), InvalidVersion, None),
        (UpgradeRefused("a", status=403, reason="b"), APIError, 403),
        (ApiError("a", status=404), APIError, 404),
        (UsageError("a", hint="b"), APIError, 400),
        (ContextError("a"), APIError, 500),
        (BuildFailed("a", code=StatusCode.INVALID_ARGUMENT), APIError, 400),
        (ConnectError("a"), requests.exceptions.ConnectionError, None),
        (HandshakeTimeout("a"), requests.exceptions.ReadTimeout, None),
        (OutputError("a"), DockerException, None),
    ],
)
def test_each_error_becomes_one_of_docker_pys(
    error: MobysessionError, kind: type[Exception], status: int | None
) -> None:
    """The one that code written for docker-py would catch in its place."""
    found = as_docker_error(error, "unix:///a")
    assert (type(found), found.__cause__) == (kind, error)
    assert "a" in str(found)
    if isinstance(found, APIError):
        assert found.status_code == status


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("failed to solve: dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)", 400),
        ("failed to solve with frontend dockerfile.v0: failed to create LLB definition: dockerfile parse error", 400),
        ('failed to solve: target stage "nope" could not be found', 400),
        ("failed to create LLB definition: target stage nope could not be found", 400),
        ("failed to solve: the Dockerfile cannot be empty", 400),
        ("failed to solve: file with no instructions", 400),
        ("failed to solve: no build stage in current context", 400),
        ("failed to solve: failed to read dockerfile: open nope: no such file or directory", 500),
        ("failed to solve: base name (${X}) should not be blank", None),
    ],
)
def test_what_the_engine_refuses_with_a_status(message: str, status: int | None) -> None:
    """By the words of engines 20.10 and 28.5; in a step nothing is refused any more, whatever it says."""
    assert refused_status(BuildFailed(message)) == status
    assert refused_status(BuildFailed(message, step="[1/1] RUN a")) is None


def _endless(ended: threading.Event) -> Callable[[FakeSolve], Any]:
    async def script(solve: FakeSolve) -> dict[str, str]:
        async with solve.vertex("[1/1] RUN sleep"):
            try:
                await trio.sleep_forever()
            finally:
                ended.set()
        return {}

    return script

"""Pushing through the Engine API: what is asked, with which login, what its answer becomes in the build."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession.build.options import BuildOptions
from mobysession.build.progress import BuildProgress
from mobysession.build.push import names_to_push, push_images
from mobysession.concurrency import open_nursery
from mobysession.errors import BuildFailed
from mobysession.redaction import Redactor
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LOGINS = {"registry.example:5000": ("ada", "s3cret-word"), "registry-1.docker.io": ("hub", "h-word")}


class Engine:
    """An engine's HTTP API with three answers: what it is, a push, and what the registry has."""

    def __init__(self, *, containerd: bool = False, lines: tuple[dict[str, Any], ...] = (), status: int = 200) -> None:
        self.requests: list[str] = []
        self.logins: list[dict[str, str]] = []
        kind = "io.containerd.snapshotter.v1"
        self._info = {"DriverStatus": [["driver-type", kind]]} if containerd else {"Driver": "overlay2"}
        self._lines = lines
        self._status = status

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[Endpoint]:
        with trio.socket.socket(trio.socket.AF_UNIX) as sock:
            await sock.bind(str(path))
            sock.listen()
            async with open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, self._serve, [trio.SocketListener(sock)])
                yield Endpoint.parse(f"unix://{path}")
                nursery.cancel_scope.cancel()

    async def _serve(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        lines = head.decode().splitlines()
        self.requests.append(lines[0].removesuffix(" HTTP/1.1"))
        for line in lines:
            if line.lower().startswith("x-registry-auth:"):
                self.logins.append(json.loads(base64.urlsafe_b64decode(line.partition(":")[2].strip())))
        body, status = self._answer(lines[0])
        fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        await stream.send_all(f"HTTP/1.1 {status} X\r\n{fields}".encode() + body)
        await stream.aclose()

    def _answer(self, request: str) -> tuple[bytes, int]:
        if "/info" in request:
            return json.dumps(self._info).encode(), 200
        if "/distribution/" in request:
            return json.dumps({"Descriptor": {"digest": "sha256:remote"}}).encode(), 200
        if self._status != 200:
            return json.dumps({"message": "no such image"}).encode(), self._status
        return b"".join(json.dumps(line).encode() + b"\r\n" for line in self._lines), 200


PUSHED = (
    {"status": "The push refers to repository"},
    {"status": "Preparing", "id": "layer"},
    {"status": "Pushing", "id": "layer", "progressDetail": {"current": 5, "total": 10}},
    {"status": "Pushed", "id": "layer", "progressDetail": {}},
)


async def push(engine: Engine, path: Path, **options: Any) -> tuple[str | None, BuildProgress]:
    progress = BuildProgress(redactor=Redactor())
    async with engine.listening(path / "docker.sock") as endpoint:
        return await push_images(endpoint, BuildOptions(push=True, **options), progress), progress


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"push": True, "tags": ["a", "b:1"]}, ["a", "b:1"]),
        ({"outputs": ["type=registry,name=x"]}, ["x"]),
        ({"outputs": ['type=image,push=true,"name=x,y"']}, ["x", "y"]),
        ({"outputs": ["type=image,push=true,name=x", "type=registry,name=y", "type=registry,name=x"]}, ["x", "y"]),
        ({"outputs": ["type=image,push=true", "type=registry"], "tags": ["a"]}, ["a"]),
        ({"outputs": ["type=image,push=false"], "tags": ["a"]}, []),
        ({"outputs": ["type=local,dest=a"], "tags": ["a"]}, []),
        ({"tags": ["a"]}, []),
    ],
)
def test_what_is_pushed(options: dict[str, Any], names: list[str]) -> None:
    """The tags, or the names of all outputs that are pushed, each once."""
    assert names_to_push(BuildOptions(**options)) == names


async def test_each_name_is_pushed_with_the_login_of_its_registry(tmp_path: Path) -> None:
    """A name without a tag is the latest; Docker Hub has its own key; the digest is that of the registry."""
    engine = Engine(lines=PUSHED)
    tags = ["registry.example:5000/team/app:1.0", "app"]
    digest, progress = await push(engine, tmp_path, tags=tags, credentials=LOGINS)
    assert digest == "sha256:remote"
    assert engine.requests == [
        "GET /info",
        "POST /images/registry.example:5000/team/app/push?tag=1.0",
        "POST /images/app/push?tag=latest",
        "GET /distribution/registry.example:5000/team/app:1.0/json",
    ]
    first = {"username": "ada", "password": "s3cret-word", "serveraddress": "registry.example:5000"}
    hub = {"username": "hub", "password": "h-word", "serveraddress": "https://index.docker.io/v1/"}
    assert engine.logins == [first, hub, first]
    step = progress.status.steps[0]
    assert (step.name, step.is_completed, step.error) == (f"pushing {tags[0]} with docker", True, "")
    assert [(status.id, status.completed is None) for status in step.statuses.values()] == [
        ("pushing layer layer", False)
    ]


async def test_an_engine_with_containerd_has_pushed_already(tmp_path: Path) -> None:
    """Then nothing is asked for."""
    engine = Engine(containerd=True)
    assert (await push(engine, tmp_path, tags=["a"]))[0] is None
    assert engine.requests == ["GET /info"]


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (
            Engine(lines=({"errorDetail": {"message": "denied: s3cret-word is wrong"}, "error": "x"},)),
            "denied: \\*\\*\\*",
        ),
        (Engine(lines=({"error": "went away"},)), "went away"),
        (Engine(status=404), "no such image"),
    ],
)
async def test_a_push_that_fails_fails_the_build(tmp_path: Path, engine: Engine, words: str) -> None:
    """In the registry's or the engine's words, without the login; the step has failed."""
    with pytest.raises(BuildFailed, match=words) as caught:
        await push(engine, tmp_path, tags=["registry.example:5000/app"], credentials=LOGINS)
    assert caught.value.step == "pushing registry.example:5000/app with docker"
    assert "s3cret-word" not in str(caught.value)


async def test_without_a_login_an_empty_one_is_sent(tmp_path: Path) -> None:
    """Engines want the header all the same."""
    engine = Engine(lines=PUSHED)
    await push(engine, tmp_path, tags=["localhost/app"], credentials={})
    assert engine.logins == [{}, {}]

"""docker-py's clients on real engines, building with BuildKit: what its own tests expect, and what is new."""

from __future__ import annotations

import io
import re
import tarfile
from typing import TYPE_CHECKING, Any

import docker
import pytest
from docker.errors import APIError, BuildError, InvalidVersion, NotFound

from mobysession.dockerpy import build, patch
from mobysession.identity import new_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.engines import Engine

FAILING = b"FROM mobysession-base\nRUN exit 1\n"


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=engine.host)
    yield client
    client.close()


@pytest.fixture
def patched() -> Iterator[None]:
    undo = patch()
    yield
    undo()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM mobysession-base\nCOPY . /data\n")
    (folder / "kept").write_text("kept")
    (folder / "ignored").write_text("ignored")
    (folder / ".dockerignore").write_text("ignored\n")
    return folder


def _file(*lines: str) -> io.BytesIO:
    return io.BytesIO("\n".join(lines).encode())


def _output(client: docker.DockerClient, image: Any, *command: str) -> bytes:
    return bytes(client.containers.run(image, list(command), remove=True))


def test_an_image_comes_back(client: docker.DockerClient, context: Path) -> None:
    """With its tag and its files, and the log ends with its ID; files that are ignored stay here."""
    image, logs = build(client, path=str(context), tag="dockerpy-path:1")
    assert image is not None
    assert "dockerpy-path:1" in image.tags
    texts = [chunk.get("stream", "") for chunk in logs]
    assert texts[-2].startswith("Successfully built ")
    assert texts[-1] == "Successfully tagged dockerpy-path:1\n"
    assert sorted(_output(client, image, "ls", "/data").split()) == [b"Dockerfile", b"kept"]


def test_a_dockerfile_alone_and_a_secret(client: docker.DockerClient) -> None:
    """What docker-py takes, and what it cannot: a secret out of a function."""
    script = _file("FROM mobysession-base", "RUN --mount=type=secret,id=token sha256sum < /run/secrets/token > /digest")
    image, _ = build(client, fileobj=script, secrets={"token": lambda: b"password"})
    digest = b"5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
    assert _output(client, image, "cat", "/digest").startswith(digest)


def test_a_dockerfile_outside_of_the_context(client: docker.DockerClient, context: Path, tmp_path: Path) -> None:
    """By its absolute path, as docker-py takes it."""
    elsewhere = tmp_path / "Elsewhere"
    elsewhere.write_text("FROM mobysession-base\nCOPY kept /here\n")
    image, _ = build(client, path=str(context), dockerfile=str(elsewhere))
    assert _output(client, image, "cat", "/here") == b"kept"


def test_a_compressed_archive_is_a_context(client: docker.DockerClient) -> None:
    """Without being told how it is compressed."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in (("sub/D", b"FROM mobysession-base\nCOPY a /a\n"), ("a", b"abc")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive.seek(0)
    image, _ = build(client, fileobj=archive, custom_context=True, encoding="gzip", dockerfile="sub/D")
    assert _output(client, image, "cat", "/a") == b"abc"


def test_arguments_reach_the_build(client: docker.DockerClient) -> None:
    """Build arguments, labels, hosts, target."""
    script = _file(
        "FROM mobysession-base AS first",
        "ARG WHO",
        "RUN echo $WHO > /who && cp /etc/hosts /hosts",
        "FROM first",
        "RUN exit 1",
    )
    image, _ = build(
        client,
        fileobj=script,
        target="first",
        buildargs={"WHO": "me"},
        labels={"test": "OK"},
        extra_hosts={"extra.test": "127.0.0.9"},
        nocache=True,
    )
    assert image is not None
    assert image.labels["test"] == "OK"
    assert _output(client, image, "cat", "/who") == b"me\n"
    assert b"127.0.0.9\textra.test" in _output(client, image, "cat", "/hosts")


@pytest.mark.parametrize(
    ("types", "has_image"),
    [
        (["type=oci,dest={}/a.tar"], False),
        (["type=docker,dest={}/a.tar"], False),
        (["type=tar,dest={}/a.tar"], False),
        (["type=tar,dest={}/a.tar", "type=image"], True),
        (["type=oci,dest={}/a.tar", "type=docker"], True),
        (["type=docker"], True),
        (["type=image,store=false"], None),
    ],
)
@pytest.mark.parametrize("driver", ["control", "classic"])
def test_an_image_comes_back_where_the_engine_has_it(
    engine: Engine, client: docker.DockerClient, tmp_path: Path, types: list[str], has_image: bool | None, driver: str
) -> None:
    """And None where it is elsewhere. A graph driver stores what should not be too, which POST /build does not tell."""
    outputs = [text.format(tmp_path) for text in types]
    if has_image is None:
        has_image = driver == "control" and not engine.containerd_image_store
    script = _file("FROM mobysession-base", f"LABEL elsewhere={new_id()}")
    is_refused = any(re.match("type=(oci|docker),", text) for text in types) and not engine.containerd_image_store
    if is_refused or (len(types) > 1 and (driver == "classic" or engine.api < (1, 45))):
        with pytest.raises(InvalidVersion, match=r"graph driver|one output only"):
            build(client, fileobj=script, outputs=outputs, driver=driver)
        return
    image, logs = build(client, fileobj=script, outputs=outputs, driver=driver)
    assert (image is not None) == has_image
    assert any("Successfully built" in chunk.get("stream", "") for chunk in logs) == has_image


def test_a_check_is_answered_in_the_log(engine: Engine, client: docker.DockerClient) -> None:
    """Without an image; an engine whose frontend does not know checks says so."""
    script = _file("FROM mobysession-base as lower", "RUN exit 1")
    if engine.major < 27:
        with pytest.raises(InvalidVersion, match="'check'"):
            build(client, fileobj=script, call="check")
        return
    image, logs = build(client, fileobj=script, call="check")
    assert image is None
    assert "FromAsCasing" in "".join(chunk.get("stream", "") for chunk in logs)


def test_the_bridge_is_the_network_that_builds_have(client: docker.DockerClient) -> None:
    """With docker-py's own build it is named or not, and the address comes from the same network; here likewise."""
    subnet = client.networks.get("bridge").attrs["IPAM"]["Config"][0]["Subnet"]
    script = _file("FROM mobysession-base", "RUN cat /proc/net/fib_trie")
    _, logs = build(client, fileobj=script, network_mode="bridge", nocache=True)
    assert subnet.partition("/")[0] in "".join(chunk.get("stream", "") for chunk in logs)


def test_a_failure_is_docker_pys_error(client: docker.DockerClient) -> None:
    """In the older builder's words, with the log."""
    with pytest.raises(BuildError, match=r"The command '/bin/sh -c exit 1' returned a non-zero code: 1") as caught:
        build(client, fileobj=io.BytesIO(FAILING))
    assert any("RUN exit 1" in chunk.get("stream", "") for chunk in caught.value.build_log)


def test_a_platform_that_does_not_exist_is_an_error_of_the_api(client: docker.DockerClient) -> None:
    """With a status of an error."""
    with pytest.raises(APIError, match="foobar") as caught:
        build(client, fileobj=_file("FROM mobysession-base"), platform="foobar")
    assert caught.value.is_error()


@pytest.mark.usefixtures("patched")
def test_a_patched_client_streams(client: docker.DockerClient) -> None:
    """Standard error in red, as the older builder had it; the end names the image; a failure ends the stream."""
    script = _file("FROM mobysession-base", "RUN sh -c '>&2 echo ancient temple'")
    chunks = list(client.api.build(fileobj=script, decode=True, nocache=True))
    assert {"stream": "\x1b[91mancient temple\n\x1b[0m"} in chunks
    assert "Successfully built" in chunks[-1]["stream"]
    failed = list(client.api.build(fileobj=io.BytesIO(FAILING), tag="dockerpy-none", decode=True))
    assert failed[-1]["errorDetail"]["code"] == 1
    with pytest.raises(NotFound):
        client.api.inspect_image("dockerpy-none")


@pytest.mark.usefixtures("patched")
def test_a_patched_collection_builds(client: docker.DockerClient) -> None:
    """With what docker-py never had."""
    script = _file("FROM mobysession-base", "RUN --mount=type=secret,id=a cat /run/secrets/a > /a")
    new: dict[str, Any] = {"secrets": {"a": b"abc"}}
    image, _ = client.images.build(fileobj=script, nocache=True, **new)
    assert _output(client, image, "cat", "/a") == b"abc"


@pytest.mark.usefixtures("patched")
def test_cached_steps_are_told(client: docker.DockerClient) -> None:
    """In the words that programs count."""
    script = ("FROM mobysession-base", "RUN echo dockerpy > /cached", "RUN echo more > /more")
    list(client.api.build(fileobj=_file(*script)))
    again = list(client.api.build(fileobj=_file(*script), decode=True))
    assert sum("Using cache" in chunk.get("stream", "") for chunk in again) >= 2

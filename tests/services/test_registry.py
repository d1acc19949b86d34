"""A registry that misbehaves or cannot be reached, and names of images in registries."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from mobysession import limits
from mobysession.errors import ApiError, ConnectError, CredentialError, RemoteProtocolError, UsageError
from mobysession.services.credentials import credential_source
from mobysession.services.image_name import ImageName
from mobysession.services.registry import Registry
from tests.small_registry import SmallRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

WANTED = "sha256:" + hashlib.sha256(b"wanted").hexdigest()


@pytest.fixture
def small() -> Iterator[SmallRegistry]:
    """Give a registry for anybody."""
    with SmallRegistry() as small:
        yield small


def client() -> Registry:
    return Registry(credential_source({}))


def name_at(small: SmallRegistry) -> ImageName:
    return ImageName.parse(f"{small.address}/app:1")


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"other", "has another digest"), (bytes(limits.MANIFEST_SIZE + 1), "answers with more than a manifest can have")],
)
async def test_what_a_registry_sends_is_looked_at(small: SmallRegistry, body: bytes, words: str) -> None:
    """Its digest, and how much it is; what is right passes."""
    for kind in ("manifests", "blobs"):
        small.content[f"/v2/app/{kind}/{WANTED}"] = "application/x; charset=utf-8", b"wanted"
    assert await client().blob(name_at(small), WANTED) == b"wanted"
    assert await client().manifest(name_at(small), WANTED) == ("application/x", WANTED, b"wanted")
    for kind in ("manifests", "blobs"):
        small.content[f"/v2/app/{kind}/{WANTED}"] = "application/x", body
    with pytest.raises(RemoteProtocolError, match=words):
        await client().blob(name_at(small), WANTED)
    with pytest.raises(RemoteProtocolError, match=words):
        await client().manifest(name_at(small), WANTED)


async def test_what_a_registry_does_not_have_is_its_error(small: SmallRegistry) -> None:
    """With its status and its words."""
    with pytest.raises(ApiError, match=f"refuses GET blobs/{WANTED} of app: 404 there is none") as caught:
        await client().blob(name_at(small), WANTED)
    assert caught.value.status == 404


async def test_a_registry_that_wants_a_login_of_who_has_none() -> None:
    """The error says how to have one."""
    with SmallRegistry(("ada", "s3cret")) as small, pytest.raises(CredentialError, match="wants a login") as caught:
        await client().blob(name_at(small), WANTED)
    assert "docker login" in str(caught.value.hint)


async def test_a_registry_that_is_not_there() -> None:
    """Who cannot be reached is named, and that it is this machine which has to."""
    with SmallRegistry() as small:
        name = name_at(small)
    with pytest.raises(ConnectError, match=f"the registry {name.host} cannot be reached") as caught:
        await client().blob(name, WANTED)
    assert "from this machine" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "parts", "whole"),
    [
        ("app", ("registry-1.docker.io", "library/app", "latest"), "docker.io/library/app:latest"),
        ("me/app:1", ("registry-1.docker.io", "me/app", "1"), "docker.io/me/app:1"),
        ("index.docker.io/app", ("registry-1.docker.io", "library/app", "latest"), "docker.io/library/app:latest"),
        ("localhost/app", ("localhost", "app", "latest"), "localhost/app:latest"),
        ("box:5000/a/b", ("box:5000", "a/b", "latest"), "box:5000/a/b:latest"),
        ("r.example/a:b", ("r.example", "a", "b"), "r.example/a:b"),
    ],
)
def test_a_name_is_taken_apart(text: str, parts: tuple[str, str, str], whole: str) -> None:
    """As ``docker push`` takes it, and put together again in full."""
    assert ImageName.parse(text) == parts
    assert str(ImageName.parse(text)) == whole


@pytest.mark.parametrize("text", ["", "r.example/", "app:", f"app@{WANTED}", f"r.example/app:1@{WANTED}"])
def test_what_is_no_name_is_refused(text: str) -> None:
    """Nobody can push under a digest, or under nothing."""
    with pytest.raises(UsageError, match="is no name that an image can be pushed under"):
        ImageName.parse(text)

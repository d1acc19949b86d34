"""Private images: the engine asks for credentials through the session, and they come from where docker has them."""

from __future__ import annotations

import base64
import json
import os
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from integration.contexts import make_context
from integration.engines import Registry
from integration.images import Witness, build_image
from mobysession.errors import BuildFailed, CredentialError
from mobysession.services.credentials import DockerCredentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.engines import Engine

USER, PASSWORD = "ada", "lovelace: 'of course'"
HOST = "127.0.0.1:5000"
ENTRY = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}


@pytest.fixture(scope="module")
def private_registry(engine: Engine, registry_installed: None) -> Iterator[Registry]:
    """A registry beside each engine, for which one needs a password."""
    if engine.private is None:
        pytest.skip("not our engine: there can be no registry in its network")
    with Registry(engine.private, users={USER: PASSWORD}) as registry:
        yield registry


@pytest.fixture(scope="module")
def refused_image(engine: Engine, private_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an image that no test gets: it can be refused again and again."""
    name = f"{private_registry.address}/refused:1"
    with Witness(engine.host) as witness:
        _publish(engine, witness, name, tmp_path_factory.mktemp("refused"))
    return name


@pytest.fixture
def private_image(
    engine: Engine, witness: Witness, private_registry: Registry, tmp_path: Path, request: pytest.FixtureRequest
) -> str:
    """The name of an image that is in the registry, of this test alone, and not in the engine."""
    name = f"{private_registry.address}/private-{zlib.crc32(request.node.name.encode())}:1"
    _publish(engine, witness, name, tmp_path)
    return name


def _publish(engine: Engine, witness: Witness, name: str, folder: Path) -> None:
    """Put an image into the registry that the engine does not have."""
    context = make_context(folder / "pushed", "FROM scratch\nCOPY treasure /\n", {"treasure": name})
    build_image(engine, context, tags=[name])
    _push(witness, name)
    witness.client.images.remove(name, force=True)


def _push(witness: Witness, name: str) -> None:
    repository, _, tag = name.rpartition(":")
    credentials = {"username": USER, "password": PASSWORD}
    for line in witness.client.images.push(repository, tag, auth_config=credentials, stream=True, decode=True):
        assert "error" not in line, line


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], Path]:
    """Write a configuration of docker's, and make it the one that counts."""

    def write(config: dict[str, Any]) -> Path:
        folder = tmp_path / "configuration"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        monkeypatch.setenv("DOCKER_CONFIG", str(folder))
        return folder / "config.json"

    return write


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a credential helper on PATH: its name and its script."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name: str, script: str) -> None:
        program = folder / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return write


GOOD_HELPER = f"""
[ "$1" = get ] && [ "$(cat)" = {HOST} ] || {{ echo "credentials not found in native keychain"; exit 1; }}
cat <<'END'
{json.dumps({"ServerURL": HOST, "Username": USER, "Secret": PASSWORD})}
END
"""


def _build_from(engine: Engine, tmp_path: Path, image: str, **options: Any) -> str:
    """Return the ID of an image that was built on a private one."""
    context = make_context(tmp_path / "context", f"FROM {image}\nCOPY Dockerfile /again\n")
    return build_image(engine, context, **options).image_id


@pytest.mark.parametrize("driver", ["control", "classic"])
def test_login_in_the_configuration(
    engine: Engine,
    witness: Witness,
    private_image: str,
    tmp_path: Path,
    configure: Callable[[dict[str, Any]], Path],
    driver: str,
) -> None:
    """A login in plain text in config.json is enough to build on a private image."""
    configure({"auths": {HOST: ENTRY}})
    built = _build_from(engine, tmp_path, private_image, driver=driver)
    assert witness.text(built, "/treasure") == private_image


@pytest.mark.parametrize("config", [{"credHelpers": {HOST: "good"}}, {"credsStore": "good", "auths": {HOST: {}}}])
def test_login_in_a_helper(
    engine: Engine,
    witness: Witness,
    private_image: str,
    tmp_path: Path,
    configure: Callable[[dict[str, Any]], Path],
    helper: Callable[[str, str], None],
    config: dict[str, Any],
) -> None:
    """So is a login that a credential helper keeps, for one registry or for all."""
    configure(config)
    helper("good", GOOD_HELPER)
    built = _build_from(engine, tmp_path, private_image)
    assert witness.text(built, "/treasure") == private_image


@pytest.mark.parametrize("kind", ["mapping", "function", "coroutine function"])
def test_login_given_to_the_build(
    engine: Engine, witness: Witness, private_image: str, tmp_path: Path, kind: str
) -> None:
    """So is a pair that the caller gives or looks up."""

    async def ask(host: str) -> tuple[str, str]:
        return {HOST: (USER, PASSWORD)}[host]

    credentials: dict[str, Any] = {
        "mapping": {HOST: (USER, PASSWORD)},
        "function": lambda host: (USER, PASSWORD) if host == HOST else None,
        "coroutine function": ask,
    }
    built = _build_from(engine, tmp_path, private_image, credentials=credentials[kind])
    assert witness.text(built, "/treasure") == private_image


@pytest.mark.parametrize("driver", ["control", "classic"])
@pytest.mark.parametrize(
    "credentials", [{HOST: (USER, "wrong-word")}, {"registry.example": (USER, PASSWORD)}, {}, None]
)
def test_the_registry_refuses(
    engine: Engine, refused_image: str, tmp_path: Path, credentials: dict[str, tuple[str, str]] | None, driver: str
) -> None:
    """With a wrong password or none the build fails; the error names the image, and what to do."""
    with pytest.raises(BuildFailed) as caught:
        _build_from(engine, tmp_path, refused_image, credentials=credentials, driver=driver)
    # The oldest engine names the registry only.
    assert (refused_image if engine.major >= 23 else HOST) in caught.value.message
    assert "docker login" in (caught.value.hint or "")
    assert "wrong-word" not in f"{caught.value} {caught.value.hint} {caught.value.log} {caught.value.excerpt}"


def test_given_credentials_are_the_only_ones(
    engine: Engine, refused_image: str, tmp_path: Path, configure: Callable[[dict[str, Any]], Path]
) -> None:
    """A mapping without a registry means no login there, whatever docker's configuration has; also an empty one."""
    configure({"auths": {HOST: ENTRY}})
    with pytest.raises(BuildFailed):
        _build_from(engine, tmp_path, refused_image, credentials={})


@pytest.mark.parametrize("driver", ["control", "classic"])
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "is not installed"),
        ("exec sleep 1000", "did not answer within 0.3 s"),
        ("echo rubbish", "did not print credentials"),
        ("echo keychain is locked; exit 3", "failed with exit status 3: keychain is locked"),
        ("yes", "printed more than"),
    ],
)
def test_a_helper_that_fails(
    engine: Engine,
    refused_image: str,
    tmp_path: Path,
    configure: Callable[[dict[str, Any]], Path],
    helper: Callable[[str, str], None],
    driver: str,
    script: str | None,
    reason: str,
) -> None:
    """The error names the helper, the registry, the file that named the helper, and what went wrong."""
    config = configure({"credHelpers": {HOST: "faulty"}})
    if script is not None:
        helper("faulty", script)
    with pytest.raises(BuildFailed) as caught:
        _build_from(engine, tmp_path, refused_image, credentials=DockerCredentials(timeout=0.3), driver=driver)
    words = f"docker-credential-faulty, named for {HOST} in {config}, {reason}"
    assert words in caught.value.message
    assert isinstance(caught.value.__cause__, CredentialError)
    assert words in caught.value.__cause__.message


def test_pull_takes_the_newer_image(engine: Engine, witness: Witness, private_image: str, tmp_path: Path) -> None:
    """With ``pull`` the registry's image counts, without it the one of that name that the engine has."""
    other = make_context(tmp_path / "other", "FROM scratch\nCOPY treasure /\n", {"treasure": "the engine's own"})
    build_image(engine, other, tags=[private_image])
    credentials = {HOST: (USER, PASSWORD)}
    local = _build_from(engine, tmp_path, private_image, credentials=credentials)
    pulled = _build_from(engine, tmp_path, private_image, credentials=credentials, pull=True)
    assert witness.text(local, "/treasure") == "the engine's own"
    assert witness.text(pulled, "/treasure") == private_image


def test_a_push_with_a_login(
    engine: Engine,
    witness: Witness,
    private_registry: Registry,
    tmp_path: Path,
    configure: Callable[[dict[str, Any]], Path],
) -> None:
    """A result goes to a registry with passwords, and can be pulled from there; without the login it does not."""
    if not engine.containerd_image_store:
        pytest.skip("only engines that keep images in containerd push the result of a build")
    name = f"{private_registry.address}/pushed-by-build:1"
    context = make_context(tmp_path / "context", "FROM scratch\nCOPY treasure /\n", {"treasure": name})
    configure({"auths": {}})
    with pytest.raises(BuildFailed):
        build_image(engine, context, tags=[name], outputs=["type=registry"])
    configure({"auths": {HOST: ENTRY}})
    build_image(engine, context, tags=[name], outputs=["type=registry"])
    pulled = witness.client.images.pull(name, auth_config={"username": USER, "password": PASSWORD})
    assert pulled.id is not None
    assert witness.text(pulled.id, "/treasure") == name

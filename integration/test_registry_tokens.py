"""Registries with tokens: fetched by this client where it can see the registry, by the engine where it cannot.

The registry and the token server are in the engine's own network. A client that runs in it too fetches the tokens
itself, and the login never leaves it; for a client outside the engine asks for the login.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from integration.contexts import make_context
from integration.engines import Registry
from integration.images import BUILD_TIMEOUT, build_image
from integration.token_server import ISSUER, SERVICE, make_identity
from mobysession.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.engines import Engine
    from integration.images import Witness
    from mobysession.testing.engine import PrivateEngine

USER, PASSWORD, IDENTITY = "ada", "lovelace", "an-identity-token"
HOST, TOKEN_PORT = "127.0.0.1:5100", 5101
ROOT = Path(__file__).parent.parent


class Guarded(NamedTuple):
    """A registry whose tokens come from a server of ours, whose settings and notes are in ``folder``."""

    registry: Registry
    engine: PrivateEngine
    folder: Path

    def accept(self, *, post: bool = True) -> None:
        """Set how the token server may be asked, and forget how it was."""
        settings = {"post": post, "users": {USER: PASSWORD, "": IDENTITY}}
        (self.folder / "settings.json").write_text(json.dumps(settings))
        (self.folder / "requests").write_text("")

    def requests(self) -> list[dict[str, Any]]:
        """Return what the token server was asked since, without the secrets."""
        return [json.loads(line) for line in (self.folder / "requests").read_text().splitlines()]

    def inside(self, *argv: str) -> list[str]:
        """Return the command that runs ``argv`` in the engine's network."""
        return ["nsenter", "-t", str(self.engine.pid), "-n", "--", *argv]


@pytest.fixture(scope="module")
def guarded_registry(
    engine: Engine, registry_installed: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """A registry beside each engine, and the server of its tokens."""
    if engine.private is None:
        pytest.skip("not our engine: there can be no registry in its network")
    folder = tmp_path_factory.mktemp("tokens")
    token = {
        "realm": f"http://127.0.0.1:{TOKEN_PORT}/token",
        "service": SERVICE,
        "issuer": ISSUER,
        "rootcertbundle": str(make_identity(folder)),
    }
    registry = Registry(engine.private, auth={"token": token}, port=int(HOST.rpartition(":")[2]))
    guarded = Guarded(registry, engine.private, folder)
    guarded.accept()
    with contextlib.ExitStack() as stack:
        stack.enter_context(registry)
        # The kernel ends it with us, as it does the registry.
        server = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "integration.token_server"]
        process = subprocess.Popen(
            guarded.inside(*server, str(TOKEN_PORT), str(folder)), cwd=ROOT, stdout=subprocess.PIPE
        )
        stack.callback(process.communicate, timeout=10)
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        yield guarded


@pytest.fixture
def guarded(guarded_registry: Guarded) -> Guarded:
    """The same, as if nobody had asked yet."""
    guarded_registry.accept()
    return guarded_registry


@pytest.fixture
def image(engine: Engine, witness: Witness, guarded: Guarded, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The name of an image that is in the registry, of this test alone, and not in the engine."""
    name = f"{HOST}/private-{zlib.crc32(request.node.name.encode())}:1"
    context = make_context(tmp_path / "pushed", "FROM scratch\nCOPY treasure /\n", {"treasure": name})
    build_image(engine, context, tags=[name])
    repository, _, tag = name.rpartition(":")
    login = {"username": USER, "password": PASSWORD}
    for line in witness.client.images.push(repository, tag, auth_config=login, stream=True, decode=True):
        assert "error" not in line, line
    witness.client.images.remove(name, force=True)
    guarded.accept()
    return name


def _build_inside(
    engine: Engine, guarded: Guarded, folder: Path, image: str, *options: str, entry: dict[str, str]
) -> str:
    """Build on an image with a client in the engine's network; return the image's ID."""
    configuration = folder / "docker"
    configuration.mkdir(exist_ok=True)
    (configuration / "config.json").write_text(json.dumps({"auths": {HOST: entry}}))
    context = make_context(folder / "context", f"FROM {image}\nCOPY Dockerfile /again\n")
    command = [sys.executable, "-m", "mobysession", "-v", "--host", engine.host, "build", "-q", *options]
    done = subprocess.run(
        guarded.inside(*command, str(context)),
        env={**os.environ, "DOCKER_CONFIG": str(configuration)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PASSWORD_ENTRY = {"username": USER, "password": PASSWORD}


@pytest.mark.parametrize(
    ("entry", "post", "method"),
    [
        (PASSWORD_ENTRY, True, "POST"),
        (PASSWORD_ENTRY, False, "GET"),
        ({"auth": "", "identitytoken": IDENTITY}, True, "POST"),
    ],
    ids=["password", "get-only", "identity"],
)
def test_tokens_are_fetched_by_the_client(
    engine: Engine,
    witness: Witness,
    guarded: Guarded,
    image: str,
    tmp_path: Path,
    entry: dict[str, str],
    post: bool,
    method: str,
) -> None:
    """The client asks the registry's realm with its login, and the engine pulls with the token that it is given."""
    guarded.accept(post=post)
    built = _build_inside(engine, guarded, tmp_path, image, entry=entry)
    assert witness.text(built, "/treasure") == image
    asked = guarded.requests()
    assert asked
    assert {request["agent"].partition("/")[0] for request in asked} == {"mobysession"}
    assert {request["method"] for request in asked} == {method}
    assert asked[0]["service"] == [SERVICE]
    assert asked[0]["scopes"] == [f"repository:{image.partition('/')[2].rpartition(':')[0]}:pull"]
    seeds = json.loads((tmp_path / "docker" / ".token_seed").read_text())
    assert list(seeds) == [HOST]


def test_the_engine_fetches_where_the_client_cannot(
    engine: Engine, witness: Witness, guarded: Guarded, image: str, tmp_path: Path
) -> None:
    """A client that cannot see the registry hands the login to the engine, which fetches the token."""
    context = make_context(tmp_path / "context", f"FROM {image}\nCOPY Dockerfile /again\n")
    built = build_image(engine, context, credentials={HOST: (USER, PASSWORD)})
    assert witness.text(built.image_id, "/treasure") == image
    asked = guarded.requests()
    assert asked
    assert not [request for request in asked if request["agent"].startswith("mobysession")]


@pytest.mark.parametrize("credentials", [{HOST: (USER, "wrong-word")}, {}], ids=["wrong", "none"])
def test_no_token_is_no_image(
    engine: Engine, guarded: Guarded, image: str, tmp_path: Path, credentials: dict[str, tuple[str, str]]
) -> None:
    """With a wrong password or none the build fails, and says how to log in."""
    context = make_context(tmp_path / "context", f"FROM {image}\nCOPY Dockerfile /again\n")
    with pytest.raises(BuildFailed) as caught:
        build_image(engine, context, credentials=credentials)
    assert "docker login" in (caught.value.hint or "")
    assert "wrong-word" not in f"{caught.value} {caught.value.hint} {caught.value.log}"


def test_a_push_with_tokens(engine: Engine, witness: Witness, guarded: Guarded, image: str, tmp_path: Path) -> None:
    """A result goes to the registry with a token that the client fetched, and can be pulled from there."""
    if not engine.containerd_image_store:
        pytest.skip("only engines that keep images in containerd push the result of a build")
    name = f"{HOST}/pushed-by-build:1"
    _build_inside(engine, guarded, tmp_path, image, "-t", name, "-o", "type=registry", entry=PASSWORD_ENTRY)
    asked = guarded.requests()
    assert {request["agent"].partition("/")[0] for request in asked} == {"mobysession"}
    assert any(scope.endswith((":pull,push", ":push,pull")) for request in asked for scope in request["scopes"])
    pulled = witness.client.images.pull(name, auth_config={"username": USER, "password": PASSWORD})
    assert pulled.id is not None
    assert witness.text(pulled.id, "/treasure") == image

"""``push`` on real engines: BuildKit pushes where images are in containerd, the engine itself where they are not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from integration.contexts import make_context
from integration.engines import Registry
from integration.images import build_image
from mobysession.errors import BuildFailed, UnsupportedByEngine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.engines import Engine

USER, PASSWORD = "ada", "lovelace-1843"


@pytest.fixture(scope="module")
def registry(engine: Engine, registry_installed: None) -> Iterator[Registry]:
    """A registry beside each engine, for which one needs a password."""
    if engine.private is None:
        pytest.skip("not our engine: there can be no registry in its network")
    with Registry(engine.private, users={USER: PASSWORD}, port=5001) as registry:
        yield registry


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Give a small context."""
    return make_context(tmp_path / "context", "FROM scratch\nCOPY Dockerfile /\n")


def _manifest(registry: Registry, name: str, tag: str) -> str:
    login = {"Authorization": "Basic " + _basic()}
    kinds = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, "
    accept = {"Accept": kinds + "application/vnd.oci.image.manifest.v1+json"}
    answer = registry.request(f"/v2/{name}/manifests/{tag}", headers={**login, **accept})
    assert answer.status == 200, answer.body
    assert json.loads(answer.body)
    return answer.headers["docker-content-digest"]


def _basic() -> str:
    import base64

    return base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.mark.parametrize("driver", ["control", "classic"])
def test_an_image_is_pushed_under_each_of_its_names(
    engine: Engine, registry: Registry, context: Path, driver: str
) -> None:
    """The registry has it, and the result has the digest by which the registry knows it."""
    tags = [f"{registry.address}/one:{driver}", f"{registry.address}/two/deep:{driver}"]
    credentials = {registry.address: (USER, PASSWORD)}
    result = build_image(engine, context, tags=tags, push=True, credentials=credentials, driver=driver)
    assert _manifest(registry, "one", driver) == result.digest
    assert _manifest(registry, "two/deep", driver) == result.digest
    if not engine.containerd_image_store:
        assert result.image_id != result.digest
        assert [step.name for step in result.steps if step.name.startswith("pushing")] == [
            f"pushing {tag} with docker" for tag in tags
        ]


def test_each_output_is_pushed_under_its_own_name(engine: Engine, registry: Registry, context: Path) -> None:
    """Several outputs with names of their own are all in the registry; an engine that takes only one says so."""
    names = ("first", "second")
    outputs = [f"type=image,name={registry.address}/several/{name},push=true" for name in names]
    credentials = {registry.address: (USER, PASSWORD)}
    if engine.api < (1, 45):
        with pytest.raises(UnsupportedByEngine, match="one output only"):
            build_image(engine, context, outputs=outputs, credentials=credentials)
        return
    build_image(engine, context, outputs=outputs, credentials=credentials)
    for name in names:
        assert _manifest(registry, f"several/{name}", "latest")


def test_a_registry_that_refuses_fails_the_build(engine: Engine, registry: Registry, context: Path) -> None:
    """With its words and a hint; the password is in none of them."""
    name = f"{registry.address}/refused"
    with pytest.raises(BuildFailed) as caught:
        build_image(engine, context, tags=[name], push=True, credentials={registry.address: (USER, "wrong-pass")})
    assert "docker login" in (caught.value.hint or "")
    assert "wrong-pass" not in repr(caught.value) + str(caught.value.log)

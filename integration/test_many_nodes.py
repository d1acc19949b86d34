"""A build on two real engines, of which one keeps its images in containerd, put together in a registry."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from integration.contexts import make_context
from integration.engines import Registry
from integration.networks import open_to_all
from mobysession.build.many import build_many
from mobysession.build.nodes import Builder, Node, NodesResult
from mobysession.transport.api import EngineApi
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.engines import Engine, Engines
    from mobysession.build.result import BuildResult

USER, PASSWORD = "ada", "lovelace-1843"
DOCKERFILE = (
    "FROM scratch AS first\nARG TARGETPLATFORM\nLABEL on=$TARGETPLATFORM\nCOPY Dockerfile /\nFROM first AS second\n"
)


@pytest.fixture(scope="module")
def two(engines: Engines, containerd_engine: Engine) -> tuple[Engine, Engine]:
    """Give an engine with the containerd image store and another one, both of ours."""
    if containerd_engine.private is None:
        pytest.skip("not our engine: there can be no registry in its network")
    for spec in engines.specs.values():
        if spec.suite == "forky" and not spec.containerd_image_store and spec.missing() is None:
            return containerd_engine, engines.get(spec.id)
    pytest.skip("no second engine can be started here")


@pytest.fixture(scope="module")
def registry(two: tuple[Engine, Engine], registry_installed: None) -> Iterator[Registry]:
    """Give a registry in the first engine's network, for which one needs a password."""
    assert two[0].private is not None
    with Registry(two[0].private, users={USER: PASSWORD}, port=5093) as registry:
        yield registry


def test_two_engines_make_one_image(two: tuple[Engine, Engine], registry: Registry, tmp_path: Path) -> None:
    """Each builds its platform and pushes it; the index has both, with the attestation, and an engine can pull it."""
    context = make_context(tmp_path / "context", DOCKERFILE)
    result, pulled = trio.run(_build_and_pull, two, registry, context)
    assert isinstance(result, NodesResult)
    assert pulled["RepoDigests"] == [f"{registry.address}/many/app@{result.digest}"]
    assert pulled["Config"]["Labels"]["on"].startswith("linux/amd64")
    index = json.loads(registry.request("/v2/many/app/manifests/1", headers=_headers()).body)
    assert index["annotations"] == {"org.example.who": "ada"}
    platforms = [one["platform"].get("variant", one["platform"]["architecture"]) for one in index["manifests"]]
    # The engine with the graph driver makes no attestation.
    assert platforms == ["amd64", "unknown", "v2"]


def test_several_builds_share_one_session(two: tuple[Engine, Engine], tmp_path: Path) -> None:
    """The engine reads the context once for both stages, where two sessions would have it read twice."""
    context = make_context(tmp_path / "context", DOCKERFILE)
    builds = [{"context": context, "target": stage, "outputs": ["type=cacheonly"]} for stage in ("first", "second")]
    endpoint = Endpoint.parse(two[1].host)
    apart = trio.run(partial(build_many, builds, endpoint=endpoint))
    together = trio.run(partial(build_many, builds, endpoint=endpoint, one_session=True))
    assert len({result.session_id for result in together}) == 1
    walks = [sum(len(result.transfers) for result in results) for results in (apart, together)]
    assert walks[1] < walks[0]


async def _build_and_pull(two: tuple[Engine, Engine], registry: Registry, context: Path) -> tuple[BuildResult, Any]:
    one, other = (Endpoint.parse(engine.host) for engine in two)
    name = f"{registry.address}/many/app:1"
    assert two[0].private is not None
    assert two[1].private is not None
    async with open_to_all(registry, two[0].private.pid, [two[1].private.pid]):
        builder = Builder([Node(one, ("linux/amd64",), "one"), Node(other, ("linux/amd64/v2",), "other")])
        result = await builder.build(
            context,
            platforms=["linux/amd64", "linux/amd64/v2"],
            tags=[name],
            push=True,
            annotations=["index:org.example.who=ada"],
            credentials={registry.address: (USER, PASSWORD)},
        )
        return result, await _pull(one, name)


async def _pull(endpoint: Endpoint, name: str) -> Any:
    import base64
    from urllib.parse import quote

    login = json.dumps({"username": USER, "password": PASSWORD}).encode()
    header = ("X-Registry-Auth", base64.urlsafe_b64encode(login).decode())
    engine = EngineApi(endpoint)
    path = f"/images/create?fromImage={quote(name, safe='')}"
    async with engine.request("POST", path, headers=[header], patience=60) as answer:
        assert answer.status == 200, await answer.read()
        await answer.read()
    return await engine.get_json(f"/images/{name}/json")


def _headers() -> dict[str, str]:
    import base64

    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    return {"Authorization": f"Basic {login}", "Accept": "application/vnd.oci.image.index.v1+json"}

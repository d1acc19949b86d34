"""Builds of a graph of LLB: what the engine is asked for, and what does not go together with one."""

from __future__ import annotations

from typing import Any

import pytest

from mobysession import llb
from mobysession._pb import control_pb2
from mobysession.build import BuildOptions, build
from mobysession.build.graph import ask_for_graph, graph_contexts
from mobysession.buildkit.control import Control
from mobysession.errors import UsageError
from mobysession.rpc.client import open_channel
from mobysession.testing import FakeDaemon, FakeSolve
from mobysession.transport.hijack import hijack

BASE = llb.image("busybox")
READS = BASE.copy(llb.local("src"), "/a", "/")


def options(state: llb.State | llb.Definition = BASE, **given: Any) -> BuildOptions:
    return BuildOptions(context=state, **given)


async def test_the_engine_is_asked_for_the_graph_and_reads_its_trees() -> None:
    """No frontend has a part in it; tags and secrets are as in any build."""
    asked: list[control_pb2.SolveRequest] = []

    async def script(solve: FakeSolve) -> dict[str, str]:
        asked.append(solve.request)
        async with solve.vertex("[internal] local") as vertex:
            tree = await solve.receive(vertex, "src")
        assert list(tree.entries) == ["a"]
        assert await (await solve.session()).get_secret("token") == b"s3cret"
        return {"containerimage.config.digest": "sha256:1"}

    async with FakeDaemon.listen(script=script) as daemon:
        result = await build(
            READS,
            endpoint=daemon.endpoint,
            build_contexts={"src": {"a": b"abc"}},
            secrets={"token": b"s3cret"},
            tags=["a:1"],
        )
    assert result.image_id == "sha256:1"
    (request,) = asked
    assert (request.Frontend, dict(request.FrontendAttrs)) == ("", {})
    assert request.Definition == READS.definition().message
    assert request.Exporters[0].Attrs["name"] == "a:1"


async def asked_for(given: BuildOptions) -> tuple[control_pb2.SolveRequest, object]:
    """Return the request as it is made, and whether it is asked in another way than usual."""
    request = control_pb2.SolveRequest(Frontend="dockerfile.v0", FrontendAttrs={"filename": "Dockerfile"})
    async with FakeDaemon() as daemon, open_channel(await hijack(await daemon.dial(), "/grpc")) as channel:
        ask = await ask_for_graph(Control(channel), request, given)
    return request, ask


async def test_without_cache_every_operation_is_executed() -> None:
    """Each says so; the graph itself is the same."""
    request, _ = await asked_for(options(READS, no_cache=True))
    digests = list(READS.definition().operations)[:-1]
    assert all(request.Definition.metadata[digest].ignore_cache for digest in digests)
    plain, ask = await asked_for(options(READS))
    assert not any(plain.Definition.metadata[digest].ignore_cache for digest in digests)
    assert ask is None


async def test_a_platform_is_that_of_the_graph() -> None:
    """By the name that the engine knows."""
    request, _ = await asked_for(options(platforms=["linux/aarch64"]))
    (operation, _) = llb.Definition(request.Definition).operations.values()
    assert operation.platform.Architecture == "arm64"


async def test_a_configuration_or_a_label_needs_a_frontend() -> None:
    """Which this side plays then."""
    for given in ({"image_config": {"Cmd": ["a"]}}, {"labels": {"a": "b"}}):
        _, ask = await asked_for(options(**given))
        assert ask is not None


@pytest.mark.parametrize(
    "given",
    [
        {"file": "Dockerfile"},
        {"target": "a"},
        {"build_args": {"A": "b"}},
        {"no_cache_filter": ["a"]},
        {"pull": True},
        {"add_hosts": ["a:1.2.3.4"]},
        {"shm_size": 1},
        {"ulimits": ["nofile=1:2"]},
        {"annotations": {"a": "b"}},
        {"provenance": True},
        {"sbom": True},
        {"cgroup_parent": "a"},
        {"call": "check"},
        {"frontend_attrs": {"a": "b"}},
        {"network": "none"},
        {"driver": "classic"},
        {"platforms": ["linux/amd64", "linux/arm64"]},
        {"image_config": {"Command": ["a"]}},
        {"build_contexts": {"other": {"a": b"abc"}}},
    ],
)
def test_what_a_graph_says_itself_is_refused(given: dict[str, Any]) -> None:
    """Rather than ignored."""
    with pytest.raises(UsageError):
        graph_contexts(options(**given))


def test_a_tree_that_is_not_given_is_missed() -> None:
    """By its name, before an engine is asked."""
    with pytest.raises(UsageError, match="reads a tree 'src', and none is given"):
        graph_contexts(options(READS))
    assert set(graph_contexts(options(READS, build_contexts={"src": {"a": b"abc"}})).sources) == {"src"}


def test_a_graph_is_no_tree_and_a_tree_no_graph() -> None:
    """Each is refused where the other is needed."""
    with pytest.raises(UsageError, match="has no files"):
        options().tree()
    with pytest.raises(UsageError, match="no graph"):
        BuildOptions(context=".").graph()

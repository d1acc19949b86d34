"""Builds on several nodes: fake daemons, and a registry small enough to be looked into."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mobysession.build.nodes import Builder, Node, NodesResult
from mobysession.build.options import BuildOptions
from mobysession.errors import BuildFailed, CredentialError, TransportError, UnsupportedByEngine, UsageError
from mobysession.testing import FakeDaemon, FakeSolve
from mobysession.transport.endpoint import Endpoint
from tests.small_registry import SmallRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mobysession.buildkit.status import BuildStatus

INDEX = "application/vnd.oci.image.index.v1+json"
TWO = ["linux/amd64", "linux/arm64"]


@pytest.fixture
def registry() -> Iterator[SmallRegistry]:
    """Give a registry for anybody."""
    with SmallRegistry() as registry:
        yield registry


def pushing(registry: SmallRegistry, *, attested: bool = False) -> Callable[[FakeSolve], Any]:
    """Return a script that pushes an image for the platforms it was asked for."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        name = solve.request.Exporters[0].Attrs["name"].split(",")[0]
        repository = name.partition("/")[2].partition(":")[0]
        images = [
            (registry.add_image(repository, platform), platform)
            for platform in solve.request.FrontendAttrs["platform"].split(",")
        ]
        if len(images) == 1 and not attested:
            return {"containerimage.digest": images[0][0]}
        inner: list[dict[str, Any]] = []
        for digest, platform in images:
            system, architecture = platform.split("/")[:2]
            inner.append({"digest": digest, "size": 1, "platform": {"os": system, "architecture": architecture}})
            if attested:
                note = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest}
                unknown = {"os": "unknown", "architecture": "unknown"}
                inner.append({"digest": f"sha256:of-{digest}", "size": 2, "platform": unknown, "annotations": note})
        return {"containerimage.digest": registry.add(repository, {"schemaVersion": 2, "manifests": inner}, INDEX)}

    return script


class Nodes:
    """Two daemons."""

    def __init__(self, one: FakeDaemon, other: FakeDaemon) -> None:
        self.one, self.other = one, other
        one.solver.platforms = ("linux/amd64", "linux/386", "linux/arm64")
        other.solver.platforms = ("linux/arm64", "linux/arm/v7")
        self.builder = Builder([Node(one.endpoint, name="one"), Node(other.endpoint, name="other")])

    def script(self, script: Callable[[FakeSolve], Any]) -> None:
        """Let both do the same."""
        self.one.script = self.other.script = script

    @property
    def asked(self) -> list[list[dict[str, str]]]:
        """What each was asked to export, first for the one, then for the other."""
        return [
            [dict(solve.request.Exporters[0].Attrs) for solve in daemon.solver.solves.values()]
            for daemon in (self.one, self.other)
        ]


async def test_a_platform_goes_to_the_node_that_has_it_natively() -> None:
    """By emulation only where nobody has it, and first of all to the node that it was given to."""
    async with FakeDaemon.listen() as one, FakeDaemon.listen() as other:
        nodes = Nodes(one, other)
        wanted = ["linux/amd64", "linux/arm64/v8", "linux/386", "linux/arm/v7"]
        assert await nodes.builder.assign(wanted) == {
            0: ["linux/amd64", "linux/386"],
            1: ["linux/arm64", "linux/arm/v7"],
        }
        given = Builder({one.endpoint: ["linux/arm64"], other.endpoint: []})
        assert await given.assign(["linux/arm64"]) == {0: ["linux/arm64"]}
        with pytest.raises(UnsupportedByEngine, match="no node builds for linux/s390x") as refusal:
            await nodes.builder.assign(["linux/s390x"])
    assert "one has linux/amd64, linux/386, linux/arm64; other has linux/arm64" in str(refusal.value.hint)


async def both(script: Callable[[FakeSolve], Any], *, buildkitd: bool, build: Callable[[Nodes], Any]) -> Nodes:
    """Run ``build`` on two nodes of which both do the same."""
    async with FakeDaemon.listen(buildkitd=buildkitd) as one, FakeDaemon.listen(buildkitd=buildkitd) as other:
        one.containerd = other.containerd = True
        nodes = Nodes(one, other)
        nodes.script(script)
        await build(nodes)
    return nodes


async def test_parts_are_pushed_by_digest_and_an_index_under_the_name(
    context: Path, registry: SmallRegistry, tmp_path: Path, docker_config: object
) -> None:
    """Two BuildKits push without a name; the index names both images with their platforms, and every tag is written."""
    results: list[Any] = []
    tags = [f"{registry.address}/app:1", f"{registry.address}/app:latest"]

    async def build(nodes: Nodes) -> None:
        results.append(
            await nodes.builder.build(
                context,
                platforms=TWO,
                tags=tags,
                push=True,
                annotations=["index:who=me", "own=1"],
                metadata_file=tmp_path / "metadata.json",
                iidfile=tmp_path / "id",
            )
        )

    nodes = await both(pushing(registry), buildkitd=True, build=build)
    (result,) = results
    assert isinstance(result, NodesResult)
    place = f"{registry.address}/app"
    wanted = {"push": "true", "push-by-digest": "true", "name": place, "annotation.own": "1"}
    assert nodes.asked == [[wanted], [wanted]]
    index = registry.document("app", "1")
    assert registry.document("app", "latest") == index
    assert index["mediaType"] == INDEX
    assert index["annotations"] == {"who": "me"}
    assert [one["platform"] for one in index["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux"},
    ]
    assert [one["digest"] for one in index["manifests"]] == [part.result.digest for part in result.parts]
    assert [part.platforms for part in result.parts] == [("linux/amd64",), ("linux/arm64",)]
    assert (tmp_path / "id").read_text() == result.digest
    assert json.loads((tmp_path / "metadata.json").read_text())["containerimage.digest"] == result.digest
    assert result.tags == tuple(tags)


async def test_an_engine_pushes_its_part_under_a_tag_of_its_own(
    context: Path, registry: SmallRegistry, docker_config: object
) -> None:
    """Docker's engine cannot push by digest: the platforms stand behind the tag."""

    async def build(nodes: Nodes) -> None:
        await nodes.builder.build(context, platforms=[*TWO, "linux/386"], tags=[f"{registry.address}/app:1"], push=True)

    nodes = await both(pushing(registry), buildkitd=False, build=build)
    names = [[attrs["name"] for attrs in asked] for asked in nodes.asked]
    place = f"{registry.address}/app"
    assert names == [[f"{place}:1-linux-amd64-linux-386"], [f"{place}:1-linux-arm64"]]
    platforms = [one["platform"]["architecture"] for one in registry.document("app", "1")["manifests"]]
    assert platforms == ["amd64", "386", "arm64"]


async def test_attestations_are_kept_beside_their_images(
    context: Path, registry: SmallRegistry, docker_config: object
) -> None:
    """What is in the indexes of the parts is in the whole, with its annotations."""

    async def build(nodes: Nodes) -> None:
        await nodes.builder.build(context, platforms=TWO, tags=[f"{registry.address}/app:1"], push=True)

    await both(pushing(registry, attested=True), buildkitd=True, build=build)
    manifests = registry.document("app", "1")["manifests"]
    assert len(manifests) == 4
    assert [one["annotations"]["vnd.docker.reference.digest"] for one in manifests[1::2]] == [
        one["digest"] for one in manifests[::2]
    ]


async def test_a_failure_on_one_node_names_nothing(
    context: Path, registry: SmallRegistry, docker_config: object
) -> None:
    """The other is cancelled, no index is written, and the error tells of the node."""

    async def build(nodes: Nodes) -> None:
        async def fail(solve: FakeSolve) -> dict[str, str]:
            solve.fail("no rule")

        nodes.other.script = fail
        with pytest.raises(BuildFailed, match="no rule") as failure:
            await nodes.builder.build(context, platforms=TWO, tags=[f"{registry.address}/app:1"], push=True)
        assert failure.value.__notes__ == ["on the node other"]

    await both(pushing(registry), buildkitd=True, build=build)
    assert not any(asked.startswith("PUT") for asked in registry.asked)


async def test_a_refusal_on_one_node_tells_of_it(context: Path, tmp_path: Path, docker_config: object) -> None:
    """Also where all platforms are for that node, and where it cannot be asked for what it has."""
    async with FakeDaemon.listen() as one, FakeDaemon.listen() as other:
        nodes = Nodes(one, other)
        with pytest.raises(UnsupportedByEngine, match="cannot hold an image of several platforms") as refusal:
            await nodes.builder.build(context, platforms=["linux/amd64", "linux/386"])
        assert refusal.value.__notes__ == ["on the node one"]
        gone = Builder([one.endpoint, Node(Endpoint.parse(f"unix://{tmp_path}/gone.sock"), name="gone")])
        with pytest.raises(TransportError) as failure:
            await gone.build(context, platforms=TWO, tags=["app:1"], push=True)
        assert failure.value.__notes__ == ["on the node gone"]


@pytest.mark.parametrize("tokens", [False, True])
async def test_the_index_is_written_with_the_users_login(context: Path, tokens: bool, docker_config: object) -> None:
    """Either the login itself or a token that it buys; a wrong one is an error that does not tell it."""
    with SmallRegistry(("ada", "s3cret-word"), tokens=tokens) as registry:
        tag = f"{registry.address}/app:1"

        async def build(nodes: Nodes) -> None:
            right = {registry.address: ("ada", "s3cret-word")}
            await nodes.builder.build(context, platforms=TWO, tags=[tag], push=True, credentials=right)
            wrong = {registry.address: ("ada", "another-word")}
            with pytest.raises(CredentialError) as failure:
                await nodes.builder.build(context, platforms=TWO, tags=[tag], push=True, credentials=wrong)
            assert "another-word" not in f"{failure.value} {failure.value.hint}"

        await both(pushing(registry), buildkitd=True, build=build)
        assert len(registry.document("app", "1")["manifests"]) == 2


async def test_a_registry_that_refuses_the_index_is_a_failed_step(
    context: Path, registry: SmallRegistry, docker_config: object
) -> None:
    """The view shows it, and its words are in the error."""
    registry.refuse_writes = True

    async def build(nodes: Nodes) -> None:
        with pytest.raises(CredentialError, match="this is a museum"):
            await nodes.builder.build(context, platforms=TWO, tags=[f"{registry.address}/app:1"], push=True)

    await both(pushing(registry), buildkitd=True, build=build)


async def test_one_node_for_all_platforms_builds_as_ever(context: Path, docker_config: object) -> None:
    """There is nothing to put together, so any output will do, and the name of the node goes with the status."""
    told: list[str] = []

    def on_status(node: str, status: BuildStatus) -> None:
        told.append(node)

    async with FakeDaemon.listen() as one, FakeDaemon.listen() as other:
        result = await Nodes(one, other).builder.build(
            context, platforms=["linux/arm64"], secrets={"token": b"hunter2-hunter2"}, on_status=on_status
        )
        assert not one.solver.solves
    assert result.digest
    assert not isinstance(result, NodesResult)
    assert set(told) == {"other"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "cannot be loaded into a store"),
        ({"load": True}, "cannot be loaded into a store"),
        ({"outputs": ["type=image"], "tags": ["a"]}, "exists nowhere but in a registry"),
        ({"outputs": ["type=oci,dest=a.tar"]}, "type oci cannot be put together"),
        ({"outputs": ["type=local,dest=a"]}, "type local cannot be put together"),
        ({"push": True, "outputs": ["type=local,dest=a"], "tags": ["a"]}, "several nodes give one output"),
        ({"push": True}, "needs a tag"),
        ({"push": True, "tags": ["a"], "timeline": "a.html"}, "timeline is that of one engine"),
        ({"push": True, "tags": ["a"], "cache_to": ["type=local,dest=a"]}, "one local cache"),
    ],
)
async def test_what_several_nodes_cannot_make_is_refused(
    context: Path, options: dict[str, Any], words: str, docker_config: object
) -> None:
    """Before any of them is asked to build."""
    async with FakeDaemon.listen() as one, FakeDaemon.listen() as other:
        with pytest.raises(UsageError, match=words):
            await Nodes(one, other).builder.build_with(BuildOptions(context=context, platforms=TWO, **options))
        assert not one.solver.solves
        assert not other.solver.solves


def test_nodes_are_read_from_text() -> None:
    """An address, platforms and a name; anything else is refused by what it is."""
    node = Node.parse("tcp://arm.example:2376,platform=linux/arm64,platform=linux/arm/v7,name=arm")
    assert (node.endpoint.url, node.platforms, node.label) == (
        "tcp://arm.example:2376",
        ("linux/arm64", "linux/arm/v7"),
        "arm",
    )
    with pytest.raises(UsageError, match="'color=red' is not"):
        Node.parse("tcp://arm.example:2376,color=red")
    with pytest.raises(UsageError, match="one node at least"):
        Builder([])
    with pytest.raises(UsageError, match="no platform"):
        Builder({"unix:///a.sock": ["linux/a/b/c"]})

"""Bakes on the fake daemon: side by side, results by name, the first failure; and the other front doors."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession import aio, sync
from mobysession.bake import bake
from mobysession.bake.links import Links
from mobysession.errors import BakeError, BuildFailed, UnsupportedByEngine, UsageError
from mobysession.testing import BlockingFakeDaemon, FakeDaemon, FakeSolve

if TYPE_CHECKING:
    from pathlib import Path

DEFINITION: dict[str, Any] = {
    "group": {"default": {"targets": ["a", "m"]}},
    "target": {
        "a": {"tags": ["a:1"], "dockerfile-inline": "FROM scratch\n"},
        "m": {
            "name": "m-${v}",
            "matrix": {"v": ["x", "y"]},
            "args": {"V": "${v}"},
            "dockerfile-inline": "FROM scratch\nARG V\n",
        },
    },
}


async def test_a_bake_returns_results_by_target(folder: Path) -> None:
    """Each has what its target says; the metadata file has all of them, and the view the names."""
    seen = set()
    async with FakeDaemon.listen() as daemon:
        results = await bake(
            files=DEFINITION,
            sets=["a.args.V=set"],
            endpoint=daemon.endpoint,
            metadata_file=folder / "metadata.json",
            on_status=lambda name, status: seen.add(name),
        )
        asked = [dict(solve.request.FrontendAttrs) for solve in daemon.solver.solves.values()]
    assert list(results) == ["a", "m-x", "m-y"]
    assert results["a"].tags == ("a:1",)
    assert sorted(attributes["build-arg:V"] for attributes in asked) == ["set", "x", "y"]
    assert json.loads((folder / "metadata.json").read_text()) == {n: r.metadata() for n, r in results.items()}
    assert seen == {"a", "m-x", "m-y"}


@pytest.mark.parametrize(("mode", "shown"), [("", ["buildType"]), ("max", ["buildType", "metadata"]), ("false", None)])
async def test_the_metadata_file_has_the_provenance_of_each_target(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, shown: list[str] | None
) -> None:
    """As much of it as the environment says."""
    monkeypatch.setenv("BUILDX_METADATA_PROVENANCE", mode)

    document = json.dumps({"buildType": "b", "metadata": {}}).encode()

    async def script(solve: FakeSolve) -> dict[str, str]:
        records = daemon.solver.records
        kept = records.builds[solve.ref].Result.Attestations.add()
        kept.CopyFrom(records.add_blob("application/vnd.in-toto+json", document))
        kept.annotations["in-toto.io/predicate-type"] = "https://slsa.dev/provenance/v0.2"
        return {"containerimage.digest": "sha256:1"}

    async with FakeDaemon.listen(script=script) as daemon:
        await bake(files=DEFINITION, endpoint=daemon.endpoint, metadata_file=folder / "metadata.json")
    metadata = json.loads((folder / "metadata.json").read_text())
    assert list(metadata) == ["a", "m-x", "m-y"]
    for of_target in metadata.values():
        provenance = of_target.get("buildx.build.provenance")
        assert (list(provenance) if provenance is not None else None) == shown
    assert os.listdir(folder) == ["metadata.json"]


async def test_targets_are_built_side_by_side() -> None:
    """All of them begin before one ends; with a bound of one, each ends before the next begins."""
    running, most = 0, 0
    together = trio.Event()

    async def script(solve: FakeSolve) -> dict[str, str]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            together.set()
        if bound == 16:
            await together.wait()
        await trio.lowlevel.checkpoint()
        running -= 1
        return {"containerimage.digest": "sha256:1"}

    for bound, expected in ((16, 3), (1, 1)):
        most = 0
        async with FakeDaemon.listen(script=script) as daemon:
            await bake(files=[DEFINITION], endpoint=daemon.endpoint, parallel=bound)
        assert most == expected


async def test_the_first_failure_cancels_the_others() -> None:
    """One that would run for ever ends too, and the error says which target failed."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        if solve.request.FrontendAttrs.get("build-arg:V") == "y":
            solve.fail("no")
        await trio.sleep_forever()
        return {}

    async with FakeDaemon.listen(script=script) as daemon:
        with pytest.raises(BuildFailed, match=r"^target 'm-y': failed to solve: no"):
            await bake(files=DEFINITION, endpoint=daemon.endpoint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tags": ["x"]}, "bake\\(\\) has no option 'tags'"),
        ({"parallel": 0}, "parallel is a number of targets"),
        ({"targets": "nope"}, "there is no target 'nope'"),
        ({"sets": ["nope.tags=x"]}, "there is no target 'nope'"),
    ],
)
async def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    """Before an engine is asked."""
    with pytest.raises(UsageError, match=message):
        await bake(files=DEFINITION, **arguments)


async def test_a_file_needs_leave_and_a_dictionary_does_not(folder: Path) -> None:
    """What a program writes itself is its own; a file may come from anywhere."""
    target = {"network": "host", "dockerfile-inline": "FROM scratch\n"}
    definition = {"target": {"default": target}}
    (folder / "docker-bake.json").write_text(json.dumps(definition))
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(UsageError, match=r"not allowed: network\.host"):
            await bake(endpoint=daemon.endpoint)
        assert await bake(endpoint=daemon.endpoint, allow=["network.host"])
        assert await bake(files=definition, endpoint=daemon.endpoint)


async def test_values_of_variables_are_given() -> None:
    """Over those of the environment."""
    definition = {"variable": {"V": {}}, "target": {"t": {"tags": ["${V}"], "dockerfile-inline": "FROM scratch\n"}}}
    async with FakeDaemon.listen() as daemon:
        results = await bake("t", files=definition, variables={"V": "given:1"}, endpoint=daemon.endpoint)
    assert results["t"].tags == ("given:1",)


def test_linked_targets_have_their_turns_together() -> None:
    """Whoever waits for another is in its group, directly or not; the rest stands alone."""
    needs = {"a": ["b"], "b": [], "c": ["b"], "d": []}
    links = Links(
        {name: {"contexts": {other: f"target:{other}" for other in others}} for name, others in needs.items()}
    )
    assert [sorted(group) for group in links.components()] == [["a", "b", "c"], ["d"]]
    assert [name for name in needs if links.is_linked(name)] == ["a", "b", "c"]


async def test_an_engine_that_does_not_say_what_a_target_is_made_of_is_refused() -> None:
    """Nobody waits for ever for a context that will not come."""
    target = {"dockerfile-inline": "FROM scratch\n"}
    definition = {"target": {"a": {**target, "contexts": {"x": "target:b"}}, "b": target}}
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(UnsupportedByEngine, match="what target 'b' is made of"):
            await bake("a", files=definition, endpoint=daemon.endpoint)


def test_the_blocking_bake_is_the_same() -> None:
    """Arguments and result."""
    with BlockingFakeDaemon() as daemon:
        results = sync.bake(["a"], files=DEFINITION, endpoint=daemon.endpoint)
    assert results["a"].tags == ("a:1",)
    with pytest.raises(BakeError, match="there is no target 'nope'"):
        sync.bake("nope", files=DEFINITION)


def test_the_asyncio_bake_is_the_same() -> None:
    """Arguments and result."""
    import asyncio

    with BlockingFakeDaemon() as daemon:
        results = asyncio.run(aio.bake("a", files=DEFINITION, endpoint=daemon.endpoint))
    assert results["a"].tags == ("a:1",)

"""``build --cache-from`` and ``--cache-to``: what a daemon is asked, what is on the disk then, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from mobysession._pb import content_pb2
from mobysession.services.content import SERVICE, STORE_ID
from mobysession.testing import BlockingFakeDaemon, FakeSolve
from tests.services.stores import digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

MANIFEST = b'{"schemaVersion":2}'
DIGEST = digest_of(MANIFEST)


class CachingBuild:
    """A script that reads what is imported and exports a cache of one manifest, by the service that a BuildKit uses."""

    def __init__(self) -> None:
        self.solves: list[FakeSolve] = []

    async def __call__(self, solve: FakeSolve) -> dict[str, str]:
        """Run one build."""
        self.solves.append(solve)
        return await _caching_build(solve)


async def _caching_build(solve: FakeSolve) -> dict[str, str]:
    caller = await solve.session()
    for entry in (one for one in solve.request.Cache.Imports if one.Type == "local"):
        request = content_pb2.ReadContentRequest(digest=entry.Attrs["digest"])
        store = [(STORE_ID, f"local:{entry.Attrs['src']}")]
        async with caller.channel.open_call(SERVICE + "Read", metadata=store) as call:
            await call.send(request.SerializeToString())
            await call.end()
            found = content_pb2.ReadContentResponse.FromString(await call.receive() or b"").data
            assert found == MANIFEST
    response = {"containerimage.digest": "sha256:" + "0" * 64}
    for entry in solve.request.Cache.Exports:
        store = [(STORE_ID, f"local:{entry.Attrs['dest']}")]
        async with caller.channel.open_call(SERVICE + "Write", metadata=store) as call:
            for message in (
                content_pb2.WriteContentRequest(action=content_pb2.STAT, ref="r", total=len(MANIFEST), expected=DIGEST),
                content_pb2.WriteContentRequest(action=content_pb2.WRITE, data=MANIFEST),
                content_pb2.WriteContentRequest(action=content_pb2.COMMIT, offset=len(MANIFEST), expected=DIGEST),
            ):
                await call.send(message.SerializeToString())
                assert await call.receive() is not None
        described = {"digest": DIGEST, "size": len(MANIFEST), "mediaType": "application/vnd.oci.image.manifest.v1+json"}
        response["cache.manifest"] = json.dumps(described)
    return response


@pytest.fixture
def script() -> CachingBuild:
    """Give the script of a daemon, which notes what it was asked."""
    return CachingBuild()


def test_a_cache_goes_from_one_build_to_the_next(cli: Cli, context: Path, tmp_path: Path, script: CachingBuild) -> None:
    """The first writes a layout with an index, which the second names to the daemon by its digest and lets it read."""
    cache = tmp_path / "a cache"
    with BlockingFakeDaemon(buildkitd=True, script=script) as daemon:
        build = ("-H", daemon.host, "build", "--attach", "buildkitd", "-q")
        first = cli(*build, "--cache-to", f"type=local,dest={cache},mode=max", context)
        assert (first.status, first.err) == (0, "")
        [entry] = json.loads((cache / "index.json").read_text())["manifests"]
        assert entry["digest"] == DIGEST
        assert (cache / "blobs" / DIGEST.replace(":", "/")).read_bytes() == MANIFEST
        assert not list((cache / "ingest").iterdir())
        second = cli(*build, "--cache-from", f"type=local,src={cache}", "--cache-from", "team/app:cache", context)
        assert (second.status, second.err) == (0, "")
    solve = script.solves[-1]
    assert [entry.Type for entry in solve.request.Cache.Imports] == ["local", "registry"]
    assert solve.request.Cache.Imports[0].Attrs["digest"] == DIGEST


def test_a_cache_that_is_not_there_yet_is_a_warning(
    cli: Cli, context: Path, tmp_path: Path, script: CachingBuild
) -> None:
    """The first build of all has none, and goes on."""
    with BlockingFakeDaemon(buildkitd=True, script=script) as daemon:
        ran = cli(
            *("-H", daemon.host, "build", "--attach", "buildkitd", "-q"),
            *("--cache-from", f"type=local,src={tmp_path}/none", context),
        )
    [solve] = script.solves
    assert ran.status == 0
    assert f"{tmp_path}/none" in ran.err
    assert not solve.request.Cache.Imports


@pytest.mark.parametrize(
    ("option", "value", "status", "words"),
    [
        ("--cache-to", "type=local", 2, "dest"),
        ("--cache-from", "type=local", 2, "src"),
        ("--cache-to", "type=floppy,dest=a", 2, "no cache of type 'floppy'"),
        ("--cache-to", "type=local,dest={tmp}/file/below", 1, "file"),
        ("--cache-to", "type=s3,bucket=x", 1, "a buildkitd has"),
        ("--cache-to", "type=local,dest={tmp}/c", 1, "graph driver, and cannot export cache of type local"),
    ],
)
def test_what_cannot_be_is_told_before_the_build(
    cli: Cli, context: Path, tmp_path: Path, script: CachingBuild, option: str, value: str, status: int, words: str
) -> None:
    """Wrong usage with status 2, what the disk or the engine cannot with status 1; no solve is asked for."""
    (tmp_path / "file").write_text("")
    with BlockingFakeDaemon(script=script) as daemon:
        ran = cli("-H", daemon.host, "build", option, value.format(tmp=tmp_path), context)
    assert not script.solves
    assert ran.status == status
    assert words in ran.err

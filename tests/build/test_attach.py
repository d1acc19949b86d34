"""Builds by every way in: the session and the control connection go the same way, and the result is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession.build import build
from mobysession.errors import SessionLost, UnsupportedByEngine, UsageError
from mobysession.testing import FakeDaemon, FakeSolve, Faults, Refusal
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from pathlib import Path

    from mobysession.build.options import Attach


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Give a directory to build."""
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY hello.txt /\n")
    (directory / "hello.txt").write_text("hello")
    return directory


@pytest.mark.parametrize(
    ("api_version", "attach", "asked"),
    [
        ("1.51", "auto", ["/grpc", "/session"]),
        ("1.51", "hijack", ["/grpc", "/session"]),
        ("1.51", "tunnel", ["/grpc", "/grpc"]),
        ("1.53", "auto", []),
        ("1.53", "native", []),
        ("1.53", "tunnel", ["/grpc", "/grpc"]),
    ],
)
async def test_a_build_goes_one_way(context: Path, api_version: str, attach: Attach, asked: list[str]) -> None:
    """No door is knocked at that the way does not lead through; nothing of the result tells the difference."""
    async with FakeDaemon.listen(api_version=api_version) as daemon:
        result = await build(context, endpoint=daemon.endpoint, tags=["a:1"], attach=attach)
        assert result.image_id.startswith("sha256:")
        assert result.driver == "control"
        assert sum(transfer.files_requested for transfer in result.transfers) >= 1
        assert sorted(path for _, path in daemon.requests if path != "/_ping") == asked


async def test_a_hidden_session_is_gone_around(context: Path) -> None:
    """Behind a proxy that hides /session a build goes through the tunnel."""
    async with FakeDaemon.listen(faults=Faults(refusal=Refusal(404, "page not found"))) as daemon:
        assert (await build(context, endpoint=daemon.endpoint)).image_id


@pytest.mark.parametrize("known", [True, False], ids=["named", "found out"])
async def test_a_buildkitd_builds_into_its_cache(context: Path, known: bool) -> None:
    """Without an output no exporter is asked for, as there is no image store; nothing of an Engine API is asked."""
    seen = []

    async def script(solve: FakeSolve) -> dict[str, str]:
        seen.append((list(solve.request.Exporters), solve.request.ExporterDeprecated))
        return {}

    async with FakeDaemon.listen(buildkitd=True, script=script) as daemon:
        endpoint = daemon.endpoint if known else Endpoint.parse(daemon.host)
        result = await build(context, endpoint=endpoint, shm_size="64m" if known else None)
    assert (result.image_id, seen) == ("", [([], "")])


async def test_a_buildkitd_has_no_image_of_what_it_pushed(context: Path) -> None:
    """The result has the digest by which a registry knows it, and no ID that nothing could be asked for by."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        return {"containerimage.digest": "sha256:1"}

    async with FakeDaemon.listen(buildkitd=True, script=script) as daemon:
        result = await build(context, endpoint=daemon.endpoint, tags=["registry.test/a"], push=True)
    assert (result.image_id, result.digest) == ("", "sha256:1")


async def test_a_buildkitd_cannot_name_an_image(context: Path) -> None:
    """Tags without an output would be lost silently, and there is no other way of asking."""
    async with FakeDaemon.listen(buildkitd=True) as daemon:
        with pytest.raises(UnsupportedByEngine, match="no image store") as caught:
            await build(context, endpoint=daemon.endpoint, tags=["a:1"])
        assert "type=oci" in (caught.value.hint or "")
        with pytest.raises(UnsupportedByEngine, match="no POST /build"):
            await build(context, endpoint=daemon.endpoint, driver="classic")


async def test_a_way_that_does_not_exist_is_refused(context: Path) -> None:
    """Before anything is dialled."""
    nonsense: dict[str, Any] = {"attach": "teleport"}
    with pytest.raises(UsageError, match="'teleport'"):
        await build(context, **nonsense)


async def test_a_session_that_is_lost_in_a_build_says_what_still_stands(context: Path) -> None:
    """The daemon gives up the session while its control connection lives: the error tells which."""

    async def script(solve: FakeSolve) -> dict[str, str]:
        caller = await solve.session()
        caller.channel.say_goodbye()
        await caller.channel.closed.wait()
        await trio.sleep_forever()
        return {}

    async with FakeDaemon.listen(script=script) as daemon:
        with pytest.raises(SessionLost, match="the control connection still stands") as caught:
            await build(context, endpoint=daemon.endpoint)
    assert caught.value.first == "session"
    assert "still there" in (caught.value.hint or "")

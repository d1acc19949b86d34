"""How new a BuildKit is, and what an old one would ignore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio.testing

from mobysession._pb import control_pb2
from mobysession.buildkit.control import Control
from mobysession.buildkit.version import parse_version
from mobysession.errors import UnsupportedByEngine
from mobysession.rpc.client import open_channel
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from mobysession.testing import FakeDaemon
from mobysession.testing.records import Records

if TYPE_CHECKING:
    from mobysession.rpc.server import ServerCall

_INFO = "/moby.buildkit.v1.Control/Info"


@pytest.mark.parametrize(
    ("text", "version"),
    [("v0.25.1", (0, 25)), ("28.5.2+dfsg4", (28, 5)), ("v0.0.0+unknown", (0, 0)), ("", (0, 0)), ("dev", (0, 0))],
)
def test_a_version_is_read(text: str, version: tuple[int, int]) -> None:
    """With a v before it or without, and whatever comes behind."""
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("buildkit", "api_version", "knows"),
    [
        ("v0.17.0", None, True),
        ("v0.16.0", None, False),
        ("v0.16.0", "1.51", False),
        ("v0.0.0+unknown", None, False),
        ("v0.0.0+unknown", "1.51", True),
        ("v0.0.0+unknown", "1.45", False),
        (None, "1.41", False),
    ],
)
@pytest.mark.parametrize("bound", ["max_used_space", "min_free_space"])
async def test_bounds_that_would_be_ignored_are_refused(
    buildkit: str | None, api_version: str | None, knows: bool, bound: str
) -> None:
    """By BuildKit's own version, and where a distribution's does not know it, by that of the engine around it."""

    async def info(request: control_pb2.InfoRequest, call: ServerCall) -> control_pb2.InfoResponse:
        answer = control_pb2.InfoResponse()
        answer.buildkitVersion.version = buildkit or ""
        return answer

    records, registrar = Records(), Registrar()
    records.register(registrar)
    if buildkit is not None:
        registrar.unary_unary(_INFO, info, control_pb2.InfoRequest)
    ours, theirs = trio.testing.memory_stream_pair()
    bounds: dict[str, Any] = {bound: 1}
    async with (
        FakeDaemon.listen(api_version=api_version or "1.51") as daemon,
        open_server(theirs, registrar),
        open_channel(ours) as channel,
    ):
        control = Control(channel, daemon.endpoint if api_version is not None else None)
        assert [record async for record in control.prune(reserved_space=1)] == []
        if knows:
            assert [record async for record in control.prune(**bounds)] == []
        else:
            with pytest.raises(UnsupportedByEngine, match="would ignore max_used_space and min_free_space"):
                _ = [record async for record in control.prune(**bounds)]
    assert len(records.prunes) == 1 + knows

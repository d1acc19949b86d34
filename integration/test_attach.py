"""The ways in on real engines: each that one has carries sessions and whole builds, and ``auto`` finds the newest.

No engine that can be had here speaks gRPC on its own socket (29.2 and later do), and there is no buildkitd: these two
ways are proved on the fake daemon, in tests/session.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from integration.contexts import make_context
from mobysession import Endpoint, open_control, open_session
from mobysession.build import build
from mobysession.errors import HandshakeError, SessionIdInUse, SessionLost
from mobysession.session.ways import find_ways
from mobysession.transport.native import NATIVE_SINCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from integration.engines import Engine, EngineSpec
    from mobysession.build.options import Attach

WAYS = pytest.mark.parametrize("attach", ["hijack", "tunnel"])
SECRET = b"correct horse"
DOCKERFILE = """\
FROM mobysession-base
COPY . /files
RUN --mount=type=secret,id=token,required=true test "$(cat /run/secrets/token)" = "correct horse"
"""


def _health_interval(engine: Engine) -> float:
    """Seconds between two of the engine's health checks, and one more."""
    return 2 if engine.major < 23 else 6


@WAYS
def test_a_session_lives_through_health_checks(engine: Engine, attach: Attach) -> None:
    """The engine calls the session back by either way, and keeps it."""
    ended: list[Any] = []

    async def hold() -> None:
        async with open_session(Endpoint.parse(engine.host), attach=attach) as session:
            assert session.attachment is not None
            assert session.attachment.way == attach
            session.listen(ended.append)
            await trio.sleep(_health_interval(engine))
            assert 0 < await session.ping() < 5

    trio.run(hold)
    assert [event.code.name for event in ended if hasattr(event, "code")][:1] == ["OK"]


@WAYS
def test_a_build_is_served_by_either_way(engine: Engine, attach: Attach, tmp_path: Path) -> None:
    """Context and secret go through the session, however it is attached, and the image has them."""
    files = {"hello.txt": f"by {attach}", "large.bin": "0123456789abcdef" * 65536}
    context = make_context(tmp_path / "context", DOCKERFILE, files)
    result = trio.run(_build, engine, context, attach)
    assert result.image_id.startswith("sha256:")
    assert sum(transfer.bytes_sent for transfer in result.transfers) > 2**20


async def _build(engine: Engine, context: Path, attach: Attach) -> Any:
    return await build(
        context, endpoint=Endpoint.parse(engine.host), secrets={"token": SECRET}, no_cache=True, attach=attach
    )


def test_auto_takes_the_newest_way(engine: Engine) -> None:
    """Engines before API 1.53 are hijacked, later ones spoken to at once; a second session does it again."""

    async def attach_twice() -> None:
        endpoint = Endpoint.parse(engine.host)
        for _ in range(2):
            async with open_session(endpoint) as session:
                assert session.attachment is not None
                assert session.attachment.way == ("native" if engine.api >= NATIVE_SINCE else "hijack")

    trio.run(attach_twice)


def test_an_engine_without_the_native_way_says_so(engine: Engine) -> None:
    """An engine before API 1.53 answers HTTP/2 in HTTP/1.1, which is told as what it is, for sessions and control."""
    if engine.api >= NATIVE_SINCE:
        pytest.skip("this engine has it")

    async def attach() -> None:
        with pytest.raises(HandshakeError, match="does not speak gRPC at once"):
            async with open_session(Endpoint.parse(engine.host), attach="native"):
                pytest.fail("attached")
        with pytest.raises(HandshakeError):
            async with open_control(Endpoint.parse(engine.host), native=True):
                pytest.fail("opened")

    trio.run(attach)


def test_a_tunnel_is_forgotten_at_once(engine: Engine) -> None:
    """The ID of a tunnelled session is free when it has ended; that of a hijacked one not yet."""

    async def attach() -> None:
        endpoint = Endpoint.parse(engine.host)
        async with open_session(endpoint, attach="tunnel", session_id="tunnelled-id"):
            pass
        async with open_session(endpoint, attach="hijack", session_id="tunnelled-id"):
            pass
        with pytest.raises(SessionIdInUse):
            async with open_session(endpoint, attach="hijack", session_id="tunnelled-id"):
                pytest.fail("attached")

    trio.run(attach)


def test_the_ways_are_found(engine: Engine) -> None:
    """Every engine offers hijack and tunnel; what it does not offer has a reason."""
    ways = {way.way: way for way in trio.run(find_ways, Endpoint.parse(engine.host))}
    assert ways["hijack"].is_offered
    assert ways["tunnel"].is_offered
    assert ways["native"].is_offered == (engine.api >= NATIVE_SINCE)
    assert all(way.is_offered or way.reason for way in ways.values())


@WAYS
def test_probe_attaches_as_it_is_told(engine: Engine, attach: str) -> None:
    """The report has the way that was used, and all that there are."""
    argv = [sys.executable, "-m", "mobysession", "-H", engine.host, "probe", "--json", "--attach", attach]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["session"]["attach"] == attach
    assert {way["way"] for way in report["ways"] if way["offered"]} >= {"hijack", "tunnel"}
    assert "grpc.health.v1.Health" in report["session"]["services"]


@WAYS
def test_an_engine_that_is_killed_loses_the_session(engine_spec: EngineSpec, attach: Attach) -> None:
    """The error names the session; a tunnel's says that the connection which carried it went too."""

    async def lose(host: str, kill: Callable[[], None]) -> None:
        async with open_session(Endpoint.parse(host), session_id="to-be-lost", attach=attach):
            await trio.to_thread.run_sync(kill)
            await trio.sleep(30)

    with engine_spec.private_engine() as private:
        with pytest.raises(SessionLost, match="to-be-lost was lost") as caught:
            trio.run(lose, private.host, lambda: os.kill(private.pid, signal.SIGKILL))
        assert ("connection that carried the call" in str(caught.value)) == (attach == "tunnel")

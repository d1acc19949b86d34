"""``docker-container://`` on real engines: a buildkitd in a container, reached and booted through the Engine API.

The buildkitd is a stand-in, see ``stand_in``: the fake daemon, or the engine's own BuildKit.
"""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING

import pytest
import trio

from integration.contexts import make_context
from integration.images import BUILD_TIMEOUT
from integration.stand_in import IMAGE, build_stand_in, open_stand_in
from mobysession import open_control, open_session
from mobysession.build import build
from mobysession.concurrency import open_nursery
from mobysession.errors import ConnectError
from mobysession.services.secrets import Secrets
from mobysession.session.ways import find_ways
from mobysession.testing import FakeDaemon
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.hijack import hijack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.engines import Engine
    from integration.images import Witness


@pytest.fixture
def container(engine: Engine, witness: Witness) -> Iterator[str]:
    """A name for a container, which is removed with its volume at the end."""
    build_stand_in(engine)
    name = f"mobysession-test-{uuid.uuid4().hex[:12]}"
    yield name
    with contextlib.suppress(Exception):
        witness.client.containers.get(name).remove(force=True)
    with contextlib.suppress(Exception):
        witness.client.volumes.get(f"{name}_state").remove()


def _url(engine: Engine, container: str, options: str = "") -> str:
    return f"docker-container://{container}?host={engine.host}{options}"


def _boot(options: str = "") -> str:
    # Not privileged: where engines run in containers themselves, nothing can be. That it is else is in tests/transport.
    return f"&boot=1&image={IMAGE}&privileged=0&env.PLACE=here{options}"


async def _boot_only(endpoint: Endpoint) -> None:
    """Boot as any connection does; there is nobody yet who would answer one."""
    from mobysession.transport.boot import boot_container
    from mobysession.transport.container import find_engine
    from mobysession.transport.remote import ContainerAddress

    address = endpoint.address
    assert isinstance(address, ContainerAddress)
    await boot_container(await trio.to_thread.run_sync(find_engine, address, "x"), address, name="the test")


def test_a_container_is_booted_and_attached_to(engine: Engine, witness: Witness, container: str) -> None:
    """It is made as buildx makes one and waited for, and a session in it works; a second boot leaves it alone."""

    async def run() -> None:
        endpoint = Endpoint.parse(_url(engine, container, _boot("&memory=256m&buildkitd-flags=--debug")))
        assert endpoint.is_buildkitd
        with trio.fail_after(BUILD_TIMEOUT):
            await _boot_only(endpoint)
            async with FakeDaemon(buildkitd=True) as daemon, open_stand_in(engine.host, container, daemon.serve):
                async with open_session(endpoint, Secrets({"token": b"value"})) as session:
                    caller = await daemon.wait_session(session.id)
                    assert await caller.get_secret("token") == b"value"
                    async with open_control(endpoint) as control:
                        assert await control.list_workers()
                (way,) = await find_ways(endpoint)
                assert (way.way, way.is_offered) == ("buildkitd", True)

    trio.run(run)
    found = witness.client.containers.get(container).attrs
    host = found["HostConfig"]
    assert host["Init"] is True
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["Memory"] == 256 * 2**20
    assert [(mount["Name"], mount["Destination"]) for mount in found["Mounts"]] == [
        (f"{container}_state", "/var/lib/buildkit")
    ]
    assert b"buildkitd --debug in here" in witness.client.containers.get(container).logs()
    assert found["RestartCount"] == 0


def test_a_build_by_the_buildkitd_in_a_container(engine: Engine, container: str, tmp_path: Path) -> None:
    """A real BuildKit behind the container builds, with a context of some size, and its result comes back."""
    files = {"large": b"0123456789abcdef" * 200_000}
    context = make_context(tmp_path / "context", "FROM mobysession-base AS a\nFROM scratch\nCOPY large /copy\n", files)

    async def serve(stream: trio.abc.Stream) -> None:
        async with await hijack(Endpoint.parse(engine.host), "/grpc") as buildkit, open_nursery() as nursery:
            nursery.start_soon(_pump, stream, buildkit)
            await _pump(buildkit, stream)
            nursery.cancel_scope.cancel()

    async def run() -> None:
        endpoint = Endpoint.parse(_url(engine, container, _boot()))
        with trio.fail_after(BUILD_TIMEOUT):
            await _boot_only(endpoint)
            async with open_stand_in(engine.host, container, serve):
                await build(context, endpoint=endpoint, no_cache=True, outputs=[f"type=local,dest={tmp_path / 'out'}"])

    trio.run(run)
    assert (tmp_path / "out/copy").read_bytes() == files["large"]


async def _pump(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            await sink.send_all(data)


def test_a_stopped_container_is_started_and_an_absent_one_told(
    engine: Engine, witness: Witness, container: str
) -> None:
    """Without boot= the error says that it is not there, or does not run, and how to have it; with it, it runs."""
    attach = Endpoint.parse(_url(engine, container))

    async def use(endpoint: Endpoint) -> None:
        async with open_session(endpoint):
            pytest.fail("attached")

    with pytest.raises(ConnectError, match="does not exist") as caught:
        trio.run(use, attach)
    assert "?boot=1" in (caught.value.hint or "")
    trio.run(_boot_only, Endpoint.parse(_url(engine, container, _boot())))
    witness.client.containers.get(container).stop(timeout=0)
    with pytest.raises(ConnectError, match="does not run"):
        trio.run(use, attach)
    trio.run(_boot_only, Endpoint.parse(_url(engine, container, _boot())))
    assert witness.client.containers.get(container).status == "running"


def test_what_the_container_says_is_the_error(engine: Engine, witness: Witness, container: str) -> None:
    """A buildkitd that dies, a buildctl that fails and one that is not there are told in their own words."""

    async def use(url: str) -> None:
        async with open_session(Endpoint.parse(url)):
            pytest.fail("attached")

    with pytest.raises(ConnectError, match="no buildkitd answers") as caught:
        trio.run(use, _url(engine, container, _boot("&buildkitd-flags=--die&restart-policy=no")))
    assert "no such flag: --die" in (caught.value.hint or "")
    witness.client.containers.get(container).remove(force=True)
    trio.run(_boot_only, Endpoint.parse(_url(engine, container, _boot())))
    with pytest.raises(ConnectError, match="status 1: cannot reach unix:///else"):
        trio.run(use, _url(engine, container, "&addr=unix:///else"))
    witness.client.containers.get(container).exec_run(["rm", "/bin/buildctl"])
    with pytest.raises(ConnectError, match="executable file not found") as caught:
        trio.run(use, _url(engine, container))
    assert "moby/buildkit" in (caught.value.hint or "")


def test_an_image_that_cannot_be_had_is_told(engine: Engine, container: str) -> None:
    """The engine's own words on the pull are in the error, and the hint says what to do by hand."""

    async def use() -> None:
        with trio.fail_after(BUILD_TIMEOUT):
            await _boot_only(Endpoint.parse(_url(engine, container, "&boot=1&image=127.0.0.1:9/mobysession/nothing:1")))

    with pytest.raises(ConnectError, match=r"cannot get the image 127\.0\.0\.1:9/mobysession/nothing:1") as caught:
        trio.run(use)
    assert "docker pull" in (caught.value.hint or "")

"""Many sessions, one after the other and at once: what is over leaves nothing behind, and floods harm nobody else."""

from __future__ import annotations

import gc
import itertools
import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel
import trio.testing

from mobysession.rpc.client import open_channel
from mobysession.rpc.listener import serve_listener
from mobysession.rpc.registrar import Registrar
from mobysession.services.secrets import Secrets
from mobysession.session import open_session
from mobysession.testing import FakeDaemon
from tests.fuzz.seeds import PREFACE
from tests.protocol.test_abuse import SETTINGS, WASTE, frame, wasting

if TYPE_CHECKING:
    from pathlib import Path

    from mobysession.rpc.listener import Listening
    from mobysession.rpc.server import ServerCall

SESSIONS = 1000
#: Sessions of one round; rounds are compared with each other.
ROUND = 100
CONNECTIONS = 200
ECHO = "/tests.Echo/One"


def living() -> Counter[str]:
    """Return how many objects of our own classes, and of those they stand on, there are."""
    gc.collect()
    return Counter(
        f"{kind.__module__}.{kind.__name__}"
        for kind in map(type, gc.get_objects())
        # Some classes have a descriptor in that place.
        if str(kind.__module__).partition(".")[0] in ("mobysession", "h2", "hpack", "h11", "trio")
    )


def descriptors() -> int:
    """Return how many descriptors are open."""
    return len(os.listdir("/proc/self/fd"))


async def one_session(daemon: FakeDaemon, *, calls: int) -> None:
    """Open a session, let the daemon call it, and end it."""
    async with open_session(daemon.dialer, Secrets({"token": b"value"})) as session:
        caller = await daemon.wait_session(session.id)
        for _ in range(calls):
            assert await caller.get_secret("token") == b"value"


@pytest.mark.slow
async def test_a_thousand_sessions_leave_nothing(autojump_clock) -> None:
    """After each hundred sessions there are as many tasks, descriptors and objects as after the hundred before."""
    async with FakeDaemon() as daemon:
        seen = []
        for _ in range(SESSIONS // ROUND):
            for number in range(ROUND):
                await one_session(daemon, calls=number % 5 == 0)
            # A daemon forgets a session that has ended when it fails the next check of its health.
            await trio.sleep(60)
            # What the daemon keeps for whoever asks it later is its own.
            daemon.ended.clear()
            daemon.requests.clear()
            seen.append((trio.lowlevel.current_statistics().tasks_living, descriptors(), living()))
    tasks, files, objects = seen[1]
    for later_tasks, later_files, later_objects in seen[2:]:
        assert (later_tasks, later_files) == (tasks, files)
        assert not {name: count for name, count in (later_objects - objects).items() if count > ROUND // 10}


def echoing() -> Registrar:
    """Return a registrar with one method."""

    async def echo(call: ServerCall) -> None:
        message = await call.receive()
        await call.send(message or b"")

    registrar = Registrar()
    registrar.stream(ECHO, echo)
    return registrar


async def ask(address: str, ready: trio.abc.SendChannel[None], go: trio.Event) -> None:
    """Connect, call once, stay until told, and call again."""
    async with open_channel(await trio.open_unix_socket(address)) as channel:
        for number in range(2):
            async with channel.open_call(ECHO) as call:
                await call.end(b"%d" % number)
                assert await call.receive() == b"%d" % number
                assert await call.receive() is None
            if number == 0:
                await ready.send(None)
                await go.wait()


async def test_two_hundred_connections_at_once(tmp_path: Path) -> None:
    """All are served while all are open, and when they are closed nothing of them is left."""
    address = str(tmp_path / "s")
    before = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as nursery:
        listening: Listening = await nursery.start(serve_listener, f"unix://{address}", echoing())
        at_rest, files = trio.lowlevel.current_statistics().tasks_living, descriptors()
        sender, receiver = trio.open_memory_channel[None](CONNECTIONS)
        go = trio.Event()
        async with trio.open_nursery() as clients:
            for _ in range(CONNECTIONS):
                clients.start_soon(ask, address, sender, go)
            for _ in range(CONNECTIONS):
                await receiver.receive()
            assert len(listening.servers) == CONNECTIONS
            go.set()
        with trio.fail_after(20):
            # Nobody tells when the last task of a connection is gone.
            while listening.servers or trio.lowlevel.current_statistics().tasks_living > at_rest:  # noqa: ASYNC110 - said above
                await trio.sleep(0.001)
        assert descriptors() == files
        listening.stop()
    assert trio.lowlevel.current_statistics().tasks_living == before


FLOODS = {
    "rapid reset": lambda: wasting(WASTE["rapid reset"]),
    "made you reset": lambda: wasting(WASTE["window of nothing"]),
    "PING": lambda: itertools.repeat(frame(6, 0, 0, bytes(8)) * 64),
    "endless headers": lambda: iter([frame(1, 0, 1, b"\x82")] + [frame(9, 0, 1)] * 10_000),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_does_not_reach_the_neighbours(kind: str, tmp_path: Path) -> None:
    """On real sockets a peer that floods is hung up on, while another of the process is answered throughout."""
    address = str(tmp_path / "s")
    async with trio.open_nursery() as nursery:
        listening: Listening = await nursery.start(serve_listener, f"unix://{address}", echoing())
        async with open_channel(await trio.open_unix_socket(address)) as channel:
            answered = 0

            async def neighbour() -> None:
                nonlocal answered
                while True:
                    async with channel.open_call(ECHO, timeout=20) as call:
                        await call.end(b"x")
                        assert await call.receive() == b"x"
                        answered += 1

            async with trio.open_nursery() as calling:
                calling.start_soon(neighbour)
                while not answered:
                    await trio.lowlevel.checkpoint()
                before = answered
                goodbye = await flood(address, kind)
                during = answered - before
                calling.cancel_scope.cancel()
        assert b"\0\0\0\x0b" in goodbye
        assert during > 0
        listening.stop()


async def flood(address: str, kind: str) -> bytes:
    """Send a flood until the other side hangs up; return the last that it said."""
    stream = await trio.open_unix_socket(address)
    heard = bytearray()

    async def read() -> None:
        try:
            while data := await stream.receive_some():
                heard[:] = (heard + data)[-200:]
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        nursery.cancel_scope.cancel()

    with trio.fail_after(60):
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(read)
            try:
                await stream.send_all(PREFACE + SETTINGS)
                for data in FLOODS[kind]():
                    await stream.send_all(data)
            except trio.BrokenResourceError:
                # What was said before the end is still to be read.
                await trio.sleep_forever()
            await trio.sleep_forever()
    return bytes(heard)

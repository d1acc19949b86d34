"""Cancellation at every point where it can strike, in both roles: what was begun ends, and the other side is told."""

from __future__ import annotations

import itertools
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from mobysession.errors import MobysessionError, RpcError
from mobysession.rpc.client import Channel, open_channel
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import ServerCall, open_server
from mobysession.testing.memory import memory_connection
from tests.rpc.conftest import socket_stream_pair

if TYPE_CHECKING:
    from collections.abc import Callable

Pair = tuple[trio.abc.Stream, trio.abc.Stream]


class Striker(trio.abc.Instrument):
    """Cancels a scope when so many steps of any task were taken."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope = scope
        self._left = steps
        self.struck = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a step."""
        self._left -= 1
        if self._left == 0:
            self.struck = True
            self._scope.cancel()


class World:
    """A server and a client with several calls at once, each in a scope of its own."""

    def __init__(self) -> None:
        self.server_scope = trio.CancelScope()
        self.client_scope = trio.CancelScope()
        self.errors: list[BaseException] = []
        self.answered = 0
        self.calls_started = 0
        self.calls_ended: list[BaseException | None] = []
        self.done = trio.Event()
        self.server: Any = None

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Host two methods until the client is done, or the scope is cancelled."""
        registrar = Registrar()
        registrar.stream("/t.S/echo", self._echo)
        registrar.stream("/t.S/down", self._down)
        with self.server_scope:
            async with open_server(
                stream,
                registrar,
                on_call_started=lambda _call: self._count(),
                on_call_ended=lambda _call, _code, _message, error: self.calls_ended.append(error),
            ) as self.server:
                await self.server.closed.wait()

    def _count(self) -> None:
        self.calls_started += 1

    async def _echo(self, call: ServerCall) -> None:
        while batch := await call.receive_batch():
            await call.send_batch(batch)

    async def _down(self, call: ServerCall) -> None:
        await call.send_initial_metadata([("a", "b")])
        for _ in range(3):
            await call.send(bytes(30_000))

    async def ask(self, stream: trio.abc.Stream) -> None:
        """Make calls of three kinds at once."""
        with self.client_scope:
            async with open_channel(stream) as channel, trio.open_nursery() as nursery:
                for kind in (self._both, self._read, self._leave):
                    nursery.start_soon(self._guard, kind, channel)
        self.done.set()

    async def _guard(self, kind: Any, channel: Channel) -> None:
        try:
            await kind(channel)
            self.answered += 1
        except RpcError as error:
            self.errors.append(error)

    async def _both(self, channel: Channel) -> None:
        async with channel.open_call("/t.S/echo") as call:
            for _ in range(2):
                await call.send(b"x" * 100)
                assert await call.receive() == b"x" * 100
            await call.end()
            assert await call.receive() is None

    async def _read(self, channel: Channel) -> None:
        async with channel.open_call("/t.S/down", timeout=10) as call:
            await call.end(b"")
            # Empty for a call that ended without any; the next line says why.
            assert await call.wait_initial_metadata() in ([], [("a", "b")])
            while await call.receive() is not None:
                pass

    async def _leave(self, channel: Channel) -> None:
        async with channel.open_call("/t.S/echo") as call:
            await call.send(b"and away")

    async def run(self, pair: Pair, role: str, steps: int) -> bool:
        """Run with a cancellation of ``role`` at a step; return whether it struck before all was over."""
        striker = Striker(self.server_scope if role == "server" else self.client_scope, steps)
        ours, theirs = pair
        trio.lowlevel.add_instrument(striker)
        try:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.serve, ours)
                    nursery.start_soon(self.ask, theirs)
        finally:
            trio.lowlevel.remove_instrument(striker)
        return striker.struck


class Secured:
    """Makes connections with TLS over sockets."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self._server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._client = ssl.create_default_context()
        authority.issue_cert("localhost").configure_cert(self._server)
        authority.configure_trust(self._client)

    def __call__(self) -> Pair:
        """Return both ends; they shake hands when they are first used."""
        ours, theirs = socket_stream_pair()
        return (
            trio.SSLStream(ours, self._server, server_side=True, https_compatible=True),
            trio.SSLStream(theirs, self._client, server_hostname="localhost", https_compatible=True),
        )


#: What is written without waiting, to a plain socket, what only the writer writes, and what TLS keeps for itself.
MAKERS: dict[str, Callable[[], Callable[[], Pair]]] = {
    "memory": lambda: memory_connection,
    "socket": lambda: socket_stream_pair,
    "tls": Secured,
}


@pytest.mark.parametrize("kind", sorted(MAKERS))
@pytest.mark.parametrize("role", ["server", "client"])
async def test_a_cancellation_at_any_step(role: str, kind: str, autojump_clock) -> None:
    """Whatever a side is doing when it is cancelled: all tasks end, in bounded time, and the other side hears of it.

    The other side ends by itself, without a bug and without a call that nobody ended.
    """
    before = trio.lowlevel.current_statistics().tasks_living
    interrupted = steps = 0
    world = World()
    connect = MAKERS[kind]()
    for steps in itertools.count(1):
        world = World()
        started = trio.current_time()
        struck = await world.run(connect(), role, steps)
        assert trio.current_time() - started < 5
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert len(world.calls_ended) == world.calls_started
        assert all(error is None or isinstance(error, MobysessionError) for error in world.calls_ended)
        assert world.server is None or (world.server.closed.is_set() and world.server.calls == {})
        if role == "server":
            assert world.answered + len(world.errors) == 3
        interrupted += world.answered < 3
        if not struck:
            break
    # The last round was not interrupted, the first ones were, and there were many in between.
    assert world.answered == 3
    assert not world.errors
    assert interrupted > 20
    assert steps > 50

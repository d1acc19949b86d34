"""Calls run in few tasks, in turns, until one of them waits; then others take over, and nothing is forgotten."""

from __future__ import annotations

import contextvars
import itertools
from typing import TYPE_CHECKING, Any

import trio
import trio.lowlevel
import trio.testing

from mobysession.rpc.outcome import Abandoned, is_failure
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from mobysession.rpc.workers import _run
from tests.rpc.raw_peer import RawPeer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mobysession.rpc.server import ServerCall

WIDE = 2**31 - 1


def hosting(**handlers: Callable[[ServerCall], Awaitable[None]]) -> Registrar:
    """Return a registrar with streaming methods of ``t.S``."""
    registrar = Registrar()
    for name, handler in handlers.items():
        registrar.stream(f"/t.S/{name}", handler)
    return registrar


async def call(peer: RawPeer, streams: range, method: str = "/t.S/M") -> None:
    """Let ``peer`` open calls, all in one write."""
    for stream_id in streams:
        peer.open_call(stream_id, method)
    await peer.flush()


async def test_calls_that_wait_for_nothing_share_a_task() -> None:
    """A hundred calls of one read are run by one task, in the order of arrival, each in a context of its own."""
    number: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)
    seen: list[tuple[int, int]] = []
    tasks: set[trio.lowlevel.Task] = set()

    async def handle(one: ServerCall) -> None:
        tasks.add(trio.lowlevel.current_task())
        seen.append((one.stream_id, number.get()))
        number.set(one.stream_id)

    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs, stream_window=WIDE, connection_window=WIDE)
    async with open_server(ours, hosting(M=handle)), trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        # From the first call on there is somebody who reads and runs.
        await call(peer, range(1, 3, 2))
        await trio.testing.wait_all_tasks_blocked()
        await call(peer, range(3, 201, 2))
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [(stream_id, 0) for stream_id in range(1, 201, 2)]
        assert len(tasks) == 1
        nursery.cancel_scope.cancel()


async def test_a_call_that_waits_is_relieved() -> None:
    """When a handler waits, the calls behind it in the same read and those of later reads run all the same."""
    go_on = trio.Event()
    done: list[int] = []

    async def handle(one: ServerCall) -> None:
        if one.number % 3 == 1:
            await go_on.wait()
        done.append(one.number)

    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs, stream_window=WIDE, connection_window=WIDE)
    async with open_server(ours, hosting(M=handle)), trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        await call(peer, range(1, 61, 2))
        await trio.testing.wait_all_tasks_blocked()
        await call(peer, range(61, 121, 2))
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(done) == [number for number in range(1, 61) if number % 3 != 1]
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(done) == list(range(1, 61))
        nursery.cancel_scope.cancel()


async def test_tasks_go_when_they_are_not_needed() -> None:
    """As many tasks as calls that wait, while they do; a few that rest, once they are over."""
    go_on = trio.Event()

    async def handle(one: ServerCall) -> None:
        await go_on.wait()

    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs, stream_window=WIDE, connection_window=WIDE)
    async with open_server(ours, hosting(M=handle)) as server, trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        await call(peer, range(1, 201, 2))
        await trio.testing.wait_all_tasks_blocked()
        workers: Any = server._workers
        assert 100 < workers.count <= 108
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert workers.count <= 9
        assert server.calls == {}
        nursery.cancel_scope.cancel()


async def test_a_turn_is_shared() -> None:
    """Calls in any number do not keep the event loop from others: it gets its turn after every thirty-two."""
    seen: list[int] = []
    turns: list[int] = []

    async def handle(one: ServerCall) -> None:
        seen.append(one.number)

    async def others() -> None:
        while True:
            turns.append(len(seen))
            await trio.lowlevel.checkpoint()

    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs, stream_window=WIDE, connection_window=WIDE)
    async with open_server(ours, hosting(M=handle)), trio.open_nursery() as nursery:
        await call(peer, range(1, 3, 2))
        await trio.testing.wait_all_tasks_blocked()
        await call(peer, range(3, 403, 2))
        nursery.start_soon(others)
        while len(seen) <= 200:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    # Who is first in one turn may be last in the next.
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 2 * 32


async def test_a_call_that_was_taken_back_does_not_begin() -> None:
    """A reset in the same read as the call comes before its handler, which never runs."""
    begun: list[int] = []

    async def handle(one: ServerCall) -> None:
        begun.append(one.stream_id)

    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs)
    async with open_server(ours, hosting(M=handle)) as server, trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        peer.open_call(1)
        peer.open_call(3)
        peer.h2.reset_stream(1, 8)
        await peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert begun == [3]
        assert server.calls == {}
        nursery.cancel_scope.cancel()


async def test_any_awaitable_may_handle_a_call() -> None:
    """A handler need not be a coroutine; what it raises and what it is cancelled by are its call's."""

    class Handling:
        def __init__(self, one: ServerCall) -> None:
            self.one = one

        def __await__(self) -> Any:
            yield from self.one.send(b"hello").__await__()
            raise ZeroDivisionError

    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs)
    async with open_server(ours, hosting(M=Handling)), trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        await call(peer, range(1, 3, 2))
        while not peer.ended(1):
            await trio.testing.wait_all_tasks_blocked()
        assert peer.data(1) == 10
        nursery.cancel_scope.cancel()


def test_a_loop_that_is_gone_is_no_failure_of_a_call() -> None:
    """Python closing the task of a handler cleans the handler up, and is not taken for something that it raised."""
    seen: list[str] = []

    async def handle() -> None:
        try:
            await trio.lowlevel.checkpoint()
        finally:
            seen.append("left")

    running = _run(handle(), lambda: seen.append("waits"))
    running.send(None)
    running.close()
    assert seen == ["waits", "left"]
    assert is_failure(GeneratorExit())
    assert not is_failure(Abandoned())
    assert not is_failure(BaseExceptionGroup("", [ValueError(), SystemExit()]))

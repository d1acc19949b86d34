"""The memory of a session that does nothing: Python's own count of bytes, for many of them at once, in memory."""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from mobysession.session import Attachment, open_session
from mobysession.session.managed import SessionConfig, SessionManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from mobysession.protocol.session_headers import SessionHeaders

__all__ = ["measure_idle"]

_SAID = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def measure_idle(count: int) -> dict[str, float]:
    """Return bytes for each of ``count`` sessions, and for as many bare ones and bare streams."""
    return trio.run(_measure, count)


async def _measure(count: int) -> dict[str, float]:
    peers: list[trio.abc.Stream] = []

    @asynccontextmanager
    async def stream() -> AsyncIterator[trio.abc.Stream]:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(_SAID)
        peers.append(theirs)
        yield ours

    @asynccontextmanager
    async def dial(_: SessionHeaders) -> AsyncIterator[Attachment]:
        async with stream() as ours:
            yield Attachment(ours, "memory")

    manager = SessionManager(SessionConfig(dialer=dial))
    ways: dict[str, Callable[[], AbstractAsyncContextManager[Any]]] = {
        "managed session": lambda: manager.session([]),
        "managed, not attached": lambda: manager.create([]),
        "bare session": lambda: open_session(dial),
        "stream by hand": stream,
    }
    found = {}
    for name, way in ways.items():
        async with way():  # what the first one loads is no session's cost
            pass
        found[name] = await _bytes_of(way, count)
        peers.clear()
    return found


async def _bytes_of(way: Callable[[], AbstractAsyncContextManager[Any]], count: int) -> float:
    tracemalloc.start()
    leave = trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            before = _traced()
            for _ in range(count):
                await nursery.start(_hold, way, leave)
            found = (_traced() - before) / count
            leave.set()
    finally:
        tracemalloc.stop()
    return found


async def _hold(
    way: Callable[[], AbstractAsyncContextManager[Any]], leave: trio.Event, task_status: trio.TaskStatus[None]
) -> None:
    async with way():
        task_status.started()
        await leave.wait()


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]

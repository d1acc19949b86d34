"""``python -m integration.bench_rpc.idle``: the memory of a session that does nothing, and whether it stays that.

Sessions are opened by the hundred, each on a stream in memory whose other end says what a daemon says first and then
nothing. Python's own count of bytes (tracemalloc) is read after each hundred and again when all are closed; the other
ends, a buffer of some hundred bytes each, are part of it. Then as many sessions as before are opened again: what the
second time costs more than the first would be a leak.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing

from mobysession.limits import KIB
from mobysession.services.secrets import Secrets
from mobysession.session import open_session
from mobysession.session.attach import Attachment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobysession.protocol.session_headers import SessionHeaders

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
_STEP = 100


@asynccontextmanager
async def _dial(_headers: SessionHeaders) -> AsyncIterator[Attachment]:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(_PREFACE + _SETTINGS)
    _peers.append(theirs)
    yield Attachment(ours, "memory")


_peers: list[trio.abc.Stream] = []


def _bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def _measure(count: int, rounds: int) -> None:
    # What the first session loads is no session's cost.
    async with open_session(_dial, Secrets({"a": b"b"})):
        pass
    await _forget()
    start = _bytes()
    print(f"{'sessions':>10} {'KiB each':>10}")
    for _ in range(rounds):
        close = trio.Event()
        async with trio.open_nursery() as nursery:
            for number in range(1, count + 1):
                nursery.start_soon(_hold, close)
                if number % _STEP == 0:
                    await trio.testing.wait_all_tasks_blocked()
                    print(f"{number:10} {(_bytes() - start) / number / KIB:10.1f}", flush=True)
            close.set()
        await _forget()
        print(f"{'closed':>10} {(_bytes() - start) / KIB:10.1f} KiB are left of all", flush=True)


async def _hold(close: trio.Event) -> None:
    async with open_session(_dial, Secrets({"a": b"b"})):
        await close.wait()


async def _forget() -> None:
    for peer in _peers:
        await peer.aclose()
    _peers.clear()


def main(arguments: list[str]) -> int:
    """Print the table; arguments are the number of sessions [500] and of rounds [3]."""
    count, rounds = (*map(int, arguments), *(500, 3)[len(arguments) :])
    tracemalloc.start()
    trio.run(_measure, count, rounds, clock=trio.testing.MockClock(autojump_threshold=0))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

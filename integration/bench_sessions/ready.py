"""Until a session is ready, on a real engine: a managed one, a bare one, and a socket that is upgraded by hand.

Ready means that the daemon's SETTINGS have arrived. All three are done in turns, so that what else the machine does
falls on all of them; besides the time, the processor time of this process is taken, which it falls on least.
"""

from __future__ import annotations

import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import trio

from mobysession.identity import new_id
from mobysession.session import open_session
from mobysession.session.managed import SessionConfig, SessionManager
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Taken", "measure_ready"]

_REQUEST = (
    "POST /session HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    "X-Docker-Expose-Session-Uuid: {}\r\nX-Docker-Expose-Session-Name: \r\n"
    "X-Docker-Expose-Session-Grpc-Method: /grpc.health.v1.Health/Check\r\nContent-Length: 0\r\n\r\n"
)
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Taken(NamedTuple):
    """Milliseconds until ready: the median and the best, and processor time per session."""

    name: str
    middle: float
    best: float
    cpu: float


def measure_ready(host: str, rounds: int) -> list[Taken]:
    """Return what each way takes on the engine at ``host``."""
    return trio.run(_measure, host, rounds)


async def _measure(host: str, rounds: int) -> list[Taken]:
    endpoint = Endpoint.parse(host)
    manager = SessionManager(SessionConfig(endpoint=endpoint, attach="hijack"))

    async def managed(ready: Callable[[], None]) -> None:
        async with manager.session([]):
            ready()

    async def bare(ready: Callable[[], None]) -> None:
        async with open_session(endpoint, attach="hijack"):
            ready()

    async def by_hand(ready: Callable[[], None]) -> None:
        async with await trio.open_unix_socket(host.removeprefix("unix://")) as stream:
            await stream.send_all(_REQUEST.format(new_id()).encode())
            received = b""
            while _PREFACE not in received or len(received.partition(_PREFACE)[2]) < 9:
                received += await stream.receive_some()
            ready()

    ways: dict[str, Callable[[Callable[[], None]], Awaitable[None]]] = {
        "managed session": managed,
        "bare session": bare,
        "socket by hand": by_hand,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    cpu = dict.fromkeys(ways, 0.0)
    for turn in range(rounds + 1):
        for name, way in ways.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            ready_at: list[float] = []
            await way(partial(_note_now, ready_at))
            if turn:  # the first one loads everything
                times[name].append(ready_at[0] - began)
                cpu[name] += time.process_time() - cpu_began
    return [Taken(name, median(times[name]) * 1e3, min(times[name]) * 1e3, cpu[name] / rounds * 1e3) for name in ways]


def _note_now(times: list[float]) -> None:
    times.append(time.perf_counter())

"""When a daemon asks a session for its health, and how much it forgives.

BuildKit calls ``Check`` once an interval, never two at a time; the first comes one interval after the connection was
established. What counts is whether the call ended OK. Engines differ in how many failures they take; from 0.12 to
0.29 the first one is fatal, although the second was meant to be. The fake is as strict.

Source: moby/buildkit session/grpc.go, monitorHealth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from mobysession.errors import RpcError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["ENGINE_20_10", "ENGINE_28", "HealthSchedule"]


@dataclass(frozen=True)
class HealthSchedule:
    """Seconds between two checks, and seconds that one may take; a slow check earns the next one half as much again."""

    interval: float = 5.0
    timeout: float = 30.0

    async def run(self, check: Callable[[float], Awaitable[None]]) -> RpcError:
        """Call ``check`` with its time limit, again and again; return the first failure."""
        last = 0.0
        due = trio.current_time() + self.interval
        while True:
            await trio.sleep_until(due)
            started = trio.current_time()
            try:
                await check(max(self.timeout, 1.5 * last))
            except RpcError as failure:
                return failure
            last = trio.current_time() - started
            # A ticker drops the ticks that nobody waits for.
            due += self.interval * (1 + int(last // self.interval))


#: BuildKit 0.8, in dockerd 20.10.
ENGINE_20_10: Final = HealthSchedule(interval=1.0, timeout=10.0)
#: BuildKit 0.12 to 0.29, in dockerd 25 to 28.
ENGINE_28: Final = HealthSchedule()

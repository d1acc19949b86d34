"""Places for calls of ours: a peer says how many it takes at once (RFC 9113 section 5.1.2), and the next ones wait.

First come, first served, as in grpc-go and grpcio. A peer that lowers the number below what is open ends no call by
that; one that has said goodbye takes no more calls, and nobody waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from mobysession.errors import RpcError, StatusCode

if TYPE_CHECKING:
    from mobysession.protocol.client import ClientConnection

__all__ = ["Places"]


class Places:
    """Who may open a call next on one connection."""

    def __init__(self, core: ClientConnection, closed: trio.Event) -> None:
        self._core = core
        self._closed = closed
        #: Held by the call that is the next, which waits where there is no place.
        self._turn = trio.StrictFIFOLock()
        self._full = trio.lowlevel.ParkingLot()

    @property
    def must_wait(self) -> bool:
        """True while the peer takes no other call, or others came first."""
        return self._core.is_full or self._turn.locked()

    async def wait(self, method: str, timeout: float | None) -> float | None:
        """Wait until a call to ``method`` can be opened, or none any more; return what is left of ``timeout``.

        The place is the caller's until its next checkpoint.

        Raises:
            RpcError: DEADLINE_EXCEEDED.

        Cancel: the next in line gets the turn.
        """
        deadline = float("inf") if timeout is None else trio.current_time() + max(0.0, timeout)
        with trio.move_on_at(deadline):
            async with self._turn:
                while self._core.is_full and not self._closed.is_set():
                    await self._full.park()
            return None if timeout is None else deadline - trio.current_time()
        text = f"the peer takes no more calls at once, and none of them ended within {timeout:g} s"
        raise RpcError(StatusCode.DEADLINE_EXCEEDED, text, method=method)

    def changed(self) -> None:
        """Take the news that a call is over, or everything, or that the peer takes more or fewer of them."""
        if self._full:
            self._full.unpark_all()

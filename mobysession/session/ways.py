"""Which ways in an endpoint offers: each is tried with a session that is ended as soon as it was ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import trio

from mobysession.errors import MobysessionError
from mobysession.session.session import open_session

if TYPE_CHECKING:
    from mobysession.transport.endpoint import Endpoint

__all__ = ["WayFound", "find_ways"]

_ENGINE_WAYS = ("native", "hijack", "tunnel")


class WayFound(NamedTuple):
    """A way, and how it went.

    Attributes:
        way: ``native``, ``hijack``, ``tunnel`` or ``buildkitd``.
        seconds: until the session was ready; None where it did not get so far.
        reason: why not; empty where it did.
        hint: what may be done about it; empty where nothing is known.
    """

    way: str
    seconds: float | None = None
    reason: str = ""
    hint: str = ""

    @property
    def is_offered(self) -> bool:
        """True where a session could be attached."""
        return self.seconds is not None


async def find_ways(endpoint: Endpoint) -> tuple[WayFound, ...]:
    """Try every way in, one after the other, the newest first.

    Cancel: the session that is being tried is ended.
    """
    ways = ("buildkitd",) if endpoint.is_buildkitd else _ENGINE_WAYS
    return tuple([await _try(endpoint, way) for way in ways])


async def _try(endpoint: Endpoint, way: str) -> WayFound:
    began = trio.current_time()
    try:
        async with open_session(endpoint, attach=way, name="probe"):
            return WayFound(way, trio.current_time() - began)
    except MobysessionError as error:
        return WayFound(way, reason=error.message, hint=error.hint or "")

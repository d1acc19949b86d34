"""A channel that is ready: its peer was seen to speak HTTP/2, or it is said why not."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from mobysession import limits
from mobysession.errors import ConnectError, HandshakeError, HandshakeTimeout
from mobysession.rpc.client import open_channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobysession.rpc.client import Channel

__all__ = ["open_ready_channel"]


@asynccontextmanager
async def open_ready_channel(
    stream: trio.abc.Stream,
    *,
    accepted: str = "the daemon accepted the connection",
    hint: str | None = None,
    timeout: float = limits.READY_TIMEOUT,
) -> AsyncIterator[Channel]:
    """Speak gRPC as a client on ``stream``, from when the peer's SETTINGS have arrived; closes the stream.

    Args:
        stream: owned from now on.
        accepted: what had gone well before, for errors.
        hint: what the user can do about them.
        timeout: seconds to wait for the SETTINGS.

    Raises:
        HandshakeTimeout: they did not come.
        HandshakeError: the connection ended instead; ConnectError where it turned out to lead nowhere.
    """
    async with open_channel(stream) as channel:
        with trio.move_on_after(timeout):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when, channel.closed, nursery.cancel_scope)
                nursery.start_soon(_cancel_when, channel.ready, nursery.cancel_scope)
        if channel.closed.is_set():
            if channel.failure is not None and isinstance(channel.failure.__cause__, ConnectError):
                # The command behind the stream has found out only now that it leads nowhere, and says why.
                raise channel.failure.__cause__
            reason = channel.failure.message if channel.failure else "the connection was closed"
            raise HandshakeError(f"{accepted} and then did not speak HTTP/2: {reason}", hint=hint) from channel.failure
        if not channel.ready.is_set():
            raise HandshakeTimeout(f"{accepted} and then said nothing for {timeout:g} s", hint=hint)
        yield channel


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()

"""Is anybody still there? A PING into a long silence, and the end of a connection on which nothing answers.

A cable that was pulled, a firewall that forgot a connection, a machine that was suspended: none of them says goodbye,
and TCP itself tells nobody who does not send. So who has heard nothing for an interval asks with a PING; any byte that
comes back within the timeout is a sign of life, its answer or not, because the answer may stand behind much else.

What the other side puts up with decides the defaults. A daemon takes any number of PINGs on a session, where it is the
HTTP/2 client, and speaks every 5 s itself, with its health checks, so that a session which is well is never asked. As
a server it may be grpc-go's own, as buildkitd's is, which hangs up ("too_many_pings") after the third PING that comes
within 5 minutes of the one before, or within 2 hours where no call is open (grpc/grpc-go
internal/transport/http2_server.go, handlePing); x/net/http2, which serves an engine's ``/grpc``, counts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from mobysession import limits
from mobysession.errors import ConnectionLost, RpcError, UsageError

if TYPE_CHECKING:
    from mobysession.rpc.connection import Connection

__all__ = ["CHANNEL_KEEPALIVE", "LISTENER_KEEPALIVE", "SESSION_KEEPALIVE", "Keepalive", "keep_alive"]

_HINT = (
    "The network dropped the connection without a word (a suspended machine, a firewall that forgets quiet "
    "connections), or the other side hangs."
)


@dataclass(frozen=True, kw_only=True)
class Keepalive:
    """When a silent connection is asked whether it lives, and how long it may think about it.

    Args:
        interval: seconds of silence before a PING.
        timeout: seconds after it in which something must be heard.
        without_calls: ask also while no call is open.

    Raises:
        UsageError: an interval or a timeout that is not above 0.
    """

    interval: float
    timeout: float = limits.KEEPALIVE_TIMEOUT
    without_calls: bool = True

    def __post_init__(self) -> None:
        if not (self.interval > 0 and self.timeout > 0):
            raise UsageError(
                f"a keepalive needs an interval and a timeout above 0 s, not {self.interval} and {self.timeout}",
                hint="None in its place turns keepalive off.",
            )


#: For the side that serves a session.
SESSION_KEEPALIVE = Keepalive(interval=limits.SESSION_KEEPALIVE)
#: For the side that listens: who is gone must not keep a place, whether or not it has a call open.
LISTENER_KEEPALIVE = Keepalive(interval=limits.LISTENER_KEEPALIVE)
#: For the side that calls: rare enough for grpc-go's servers.
CHANNEL_KEEPALIVE = Keepalive(interval=limits.CHANNEL_KEEPALIVE, without_calls=False)


async def keep_alive(connection: Connection, keepalive: Keepalive) -> None:
    """Ask into every long silence of ``connection``; where nothing answers, end it with ConnectionLost.

    Source: the rules are those of grpc/grpc-go internal/transport/http2_client.go, keepalive.
    """
    while True:
        await _silence(connection, keepalive)
        heard = connection.traffic.heard_at
        try:
            with trio.move_on_after(keepalive.timeout) as asking:
                await connection.ping()
        except RpcError:
            # The connection ended meanwhile, of something else.
            return
        if not asking.cancelled_caught or await _heard_late(connection, heard, asking.deadline):
            continue
        silent = trio.current_time() - heard
        connection.give_up(
            ConnectionLost(
                f"no answer to a PING in {keepalive.timeout:g} s, after {silent - keepalive.timeout:.0f} s of silence",
                hint=_HINT,
            )
        )
        return


async def _silence(connection: Connection, keepalive: Keepalive) -> None:
    """Return when nothing was heard for an interval, and, where that is asked for, a call is open."""
    while True:
        quiet_at = connection.traffic.heard_at + keepalive.interval
        if quiet_at > trio.current_time():
            await trio.sleep_until(quiet_at)
        elif connection.calls or keepalive.without_calls:
            return
        else:
            await trio.sleep(keepalive.interval)


async def _heard_late(connection: Connection, heard: float, deadline: float) -> bool:
    """Say whether anything was heard after ``heard``, also where our own loop stood still and has not looked yet."""
    while connection.traffic.heard_at <= heard and trio.current_time() - deadline > limits.LOOP_LAG:
        # What came meanwhile is in the socket. The reader gets a round of the loop without a standstill.
        deadline = trio.current_time() + limits.LOOP_LAG
        await trio.sleep_until(deadline)
    return connection.traffic.heard_at > heard

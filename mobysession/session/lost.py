"""How a session was lost, in words: why, in the middle of what, and which connection went first.

A build has two connections, the session and the one on which it is asked for; a tunnelled session also has the one that
carries it. Which of them still stand tells a daemon that is gone from one that gave this session up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from mobysession import limits
from mobysession.errors import ConnectionLost, MobysessionError, SessionLost

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobysession.rpc.connection import Connection
    from mobysession.rpc.server import Server, ServerCall

__all__ = ["methods_of", "named", "session_lost"]

_HINT: Final = "The daemon was stopped or restarted, or gave the session up; its log says more."
_GONE: Final = "The daemon was stopped, restarted or cut off; its log says more."
_GIVEN_UP: Final = "The daemon is still there and gave the session up; its log says more."
#: Calls that are named; of more only the number is told.
_NAMED: Final = 3
_HEALTH: Final = "/grpc.health.v1.Health/"


async def session_lost(
    session_id: str,
    server: Server,
    *,
    in_flight: Iterable[ServerCall],
    carrier: Connection | None,
    control: Connection | None,
) -> SessionLost:
    """Return the error for a session whose connection has ended.

    Args:
        session_id: the session's.
        server: what was spoken on the connection.
        in_flight: the calls that were running.
        carrier: the gRPC connection that the session ran in; None where it ran in none.
        control: the connection of the build; None where it is not known.

    Cancel: no error is made.
    """
    first = None if control is None else "control" if control.closed.is_set() else "session"
    with trio.move_on_after(limits.BOTH_LOST):
        for other in filter(None, (control, carrier)):
            await other.closed.wait()
    calls = methods_of(in_flight)
    parts = [f"session {session_id} was lost: {_reason(server, carrier)}", *_order(first, control), *named(calls)]
    failure = server.failure
    hint = (failure and failure.hint) or _hint(first, control, carrier)
    return SessionLost("; ".join(parts), hint=hint, in_flight=calls, first=first)


def _reason(server: Server, carrier: Connection | None) -> str:
    failure = server.failure
    if failure is None:
        return "the connection was closed"
    cause = failure.__cause__
    # What is below the connection knows more than that it ended: the words of a remote command, the status of a call.
    words = failure.message
    if isinstance(failure, ConnectionLost) and isinstance(cause, MobysessionError):
        words = cause.message
    if carrier is not None and carrier.closed.is_set():
        words += ", and the connection that carried the call was lost"
    return words


def _order(first: str | None, control: Connection | None) -> list[str]:
    if control is None:
        return []
    if first == "control":
        return ["the control connection had been lost before"]
    return ["then the control connection" if control.closed.is_set() else "the control connection still stands"]


def methods_of(in_flight: Iterable[ServerCall]) -> tuple[str, ...]:
    """Return the methods of some calls, health checks left out."""
    return tuple(call.method for call in in_flight if not call.method.startswith(_HEALTH))


def named(calls: Sequence[str]) -> list[str]:
    """Return what an error says of the calls that were in flight; empty where there were none."""
    if not calls:
        return []
    more = f" and {len(calls) - _NAMED} more" if len(calls) > _NAMED else ""
    return [f"in flight: {', '.join(calls[:_NAMED])}{more}"]


def _hint(first: str | None, control: Connection | None, carrier: Connection | None) -> str:
    others = [connection for connection in (control, carrier) if connection is not None]
    if not others:
        return _HINT
    return _GONE if first == "control" or all(other.closed.is_set() for other in others) else _GIVEN_UP

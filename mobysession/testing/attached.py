"""What a daemon does with a session's stream, however it got it: call for its health, and let it go.

The two ways differ in the end only. A hijacked socket is not watched: its session stays until a health check fails, and
its ID with it. A tunnel ends with its call, at once; but IDs are not compared there, so that a second session takes the
place of the first, and whichever ends first takes the entry away.

Source: moby/buildkit session/manager.go, session/grpc.go, control/control.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from mobysession.concurrency import open_nursery
from mobysession.testing.caller import FakeCaller
from mobysession.testing.peer import open_peer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobysession.testing.fake_daemon import FakeDaemon
    from mobysession.testing.faults import Faults

__all__ = ["SESSION_ID", "keep_session"]

_EXPOSED: Final = "x-docker-expose-session-"
#: The header, and the metadata key, of a session's ID.
SESSION_ID: Final = _EXPOSED + "uuid"
#: Seconds that grpc-go waits for the other side's SETTINGS.
_CONNECT_TIMEOUT: Final = 20.0


async def keep_session(
    daemon: FakeDaemon,
    stream: trio.abc.Stream,
    fields: Iterable[tuple[str, str]],
    faults: Faults,
    *,
    tunnelled: bool = False,
) -> None:
    """Register the session that speaks on ``stream``, until its end; ``fields`` are what it says of itself."""
    fields = list(fields)
    single = dict(reversed(fields))
    async with open_peer(stream, gives_windows=not faults.slow_reader) as peer:
        caller = FakeCaller(
            peer,
            session_id=single.get(SESSION_ID, ""),
            name=single.get(_EXPOSED + "name", ""),
            shared_key=single.get(_EXPOSED + "sharedkey", ""),
            methods=[value for key, value in fields if key == _EXPOSED + "grpc-method"],
            tunnelled=tunnelled,
        )
        daemon.register(caller)
        reason = "the daemon was stopped"
        try:
            reason = await _keep(daemon, caller, faults)
        finally:
            daemon.unregister(caller, reason)


async def _keep(daemon: FakeDaemon, caller: FakeCaller, faults: Faults) -> str:
    """Stay until the session's end and say why it ended."""
    with trio.move_on_after(_CONNECT_TIMEOUT):
        await caller.channel.ready.wait()
    if not caller.channel.settings:
        return caller.channel.reason or "the client sent no SETTINGS in time"
    reason = ""
    async with open_nursery() as nursery:
        if faults.goaway_after is not None:
            nursery.start_soon(_cancel_after, faults.goaway_after, nursery.cancel_scope)
            reason = "the daemon says goodbye"
        if caller.tunnelled:
            nursery.start_soon(_cancel_when, caller.channel.closed, nursery.cancel_scope)

        async def check(timeout: float) -> None:
            await caller.health(timeout=0.0 if faults.fail_health else timeout)
            caller.health_checks += 1

        failure = await daemon.health.run(check)
        reason = f"session healthcheck failed fatally: {failure}"
        nursery.cancel_scope.cancel()
    return reason or caller.channel.reason


async def _cancel_after(seconds: float, scope: trio.CancelScope) -> None:
    await trio.sleep(seconds)
    scope.cancel()


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()

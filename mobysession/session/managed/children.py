"""Sessions that work for another one, in the same scope: each with an ID and a connection of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mobysession import limits
from mobysession.errors import UsageError
from mobysession.session.managed.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    import trio

    from mobysession.session.managed.handle import RunHandle
    from mobysession.session.managed.runs import Request
    from mobysession.session.managed.session import ManagedSession

__all__ = ["spawn_child"]

#: What is overridden in the session itself, and not in its configuration.
_OF_THE_SESSION: Final = ("services", "metadata", "options", "name", "shared_key")


async def spawn_child(parent: ManagedSession, request: Request, overrides: Mapping[str, Any]) -> RunHandle:
    """Begin a run on a child of ``parent``; see `ManagedSession.spawn`."""
    from mobysession.session.managed.session import ManagedSession as Child

    child = Child(await _origin(parent, overrides))
    handle: RunHandle = await parent.nursery.start(_live, parent, child, request)
    return handle


async def _origin(parent: ManagedSession, overrides: Mapping[str, Any]) -> Origin:
    from mobysession.session.managed.dialing import DIALING, make_dialer

    above = parent.origin
    if above.depth >= limits.MAX_SPAWN_DEPTH:
        raise UsageError(f"a session spawns no further: there are {limits.MAX_SPAWN_DEPTH} generations already")
    changed = {name: value for name, value in overrides.items() if name not in _OF_THE_SESSION}
    config = above.config.with_overrides(changed)
    # Not looked for again for something else: the daemon that the environment names may be another one by now.
    dialer, where = (above.dialer, above.where) if DIALING.isdisjoint(changed) else await make_dialer(config)
    return Origin(
        config=config,
        dialer=dialer,
        where=where,
        services=tuple(overrides.get("services", above.services)),
        metadata=overrides.get("metadata", above.metadata),
        options=overrides.get("options", above.options),
        name=overrides.get("name", above.name),
        shared_key=overrides.get("shared_key", above.shared_key),
        parent=parent,
        parent_session_id=parent.id,
        depth=above.depth + 1,
        tally=above.tally,
    )


async def _live(
    parent: ManagedSession, child: ManagedSession, request: Request, task_status: trio.TaskStatus[RunHandle]
) -> None:
    parent.children.append(child)
    try:
        async with child.alive():
            handle = await child.send(request)
            task_status.started(handle)
            await handle.wait()
    finally:
        parent.children.remove(child)

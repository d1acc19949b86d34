"""What a manager shares with the other processes of its user: which sessions live, and how to go on with lost ones.

Sessions are announced while they live, and answer those who look at them; see `mobysession.session.local`. After each
run the snapshot of a session is written down, and forgotten when it is closed in order: what is left belongs to
sessions that were lost with their processes.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from mobysession import limits
from mobysession.errors import SessionAlive, SessionError
from mobysession.session.local import open_local_server, open_local_session
from mobysession.session.managed.inspection import json_value
from mobysession.session.managed.lifecycle import SessionSnapshot
from mobysession.state.location import state_path
from mobysession.state.sessions import SessionDirectory
from mobysession.state.state import REMOVED
from mobysession.state.store import open_store

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from mobysession.session.local import LocalServer
    from mobysession.session.managed.session import ManagedSession
    from mobysession.state.sessions import SessionAnnouncement
    from mobysession.state.state import State
    from mobysession.state.store import Store

__all__ = ["Memory", "look_up", "open_memory"]

_SNAPSHOTS: Final = "session snapshots"


class Memory:
    """The store, as a manager uses it. Made by `open_memory`."""

    def __init__(self, store: Store, server: LocalServer, snapshots: State) -> None:
        self.store = store
        self._server = server
        self._snapshots = snapshots
        #: Who is answered for, by ID: one that was lost may have been resumed under its ID inside of its block.
        self._announced: dict[str, ManagedSession] = {}
        self._closed = False

    async def announce(self, session: ManagedSession) -> None:
        """Let others know of a session, and answer for it; StateError where that is impossible."""
        if self._closed:
            return
        peer = _Peer(session)
        await self._server.announce(session.id, peer, endpoint=session.origin.where, created=session.created_at)
        if not self._closed:
            self._announced[session.id] = session
            self.remember(session)

    def withdraw(self, session: ManagedSession) -> None:
        """Answer for a session no longer; how to go on with it stays known unless it was closed in order."""
        if self._announced.get(session.id) is not session:
            return
        del self._announced[session.id]
        self._server.withdraw(session.id)
        if session.status == "closed":
            self._snapshots.set({session.id: REMOVED})

    def close(self) -> None:
        """Write nothing down any more; the sessions that still live go on unannounced."""
        self._closed = True
        self._announced.clear()

    def remember(self, session: ManagedSession) -> None:
        """Write down how to go on with a session, if it is one that is answered for."""
        if self._announced.get(session.id) is not session:
            return
        kept = {**self._snapshots.get(), session.id: session.snapshot().to_json()}
        oldest = sorted(kept, key=lambda name: kept[name].get("created_at", 0.0))
        dropped: dict[str, Any] = dict.fromkeys(oldest[: -limits.KEPT_SNAPSHOTS], REMOVED)
        self._snapshots.set({**dropped, session.id: kept[session.id]})

    async def look_up(self, session_id: str) -> SessionSnapshot | None:
        """Return how to go on with a session; see `look_up`."""
        return await _look_up(self.store, self._snapshots, session_id)


async def look_up(path: str | os.PathLike[str] | None, session_id: str) -> SessionSnapshot | None:
    """Return how to go on with a session; None where that is not known.

    Raises:
        SessionAlive: it lives in some process that has announced it.
        StateError: what is remembered cannot be read.
    """
    where = Path(path) if path is not None else state_path()
    if not await trio.Path(where).exists():  # nobody of this user ever announced anything
        return None
    async with open_store(where) as store, store.state(_SNAPSHOTS) as snapshots:
        return await _look_up(store, snapshots, session_id)


async def _look_up(store: Store, snapshots: State, session_id: str) -> SessionSnapshot | None:
    alive = await SessionDirectory(store).find(session_id)
    if alive is not None and await _lives(alive):
        raise SessionAlive(
            f"session {session_id} lives in process {alive.pid}",
            session_id=session_id,
            pid=alive.pid,
            hint="Close it there, or end that process.",
        )
    found = snapshots.get().get(session_id)
    return SessionSnapshot.from_json(found) if found is not None else None


async def _lives(announced: SessionAnnouncement) -> bool:
    try:
        async with open_local_session(announced) as session:
            return await session.lives()
    except SessionError:
        return True  # its process does, and may only be too busy to say more


class _Peer:
    """A managed session, as others see it."""

    def __init__(self, session: ManagedSession) -> None:
        self._session = session

    def inspect(self) -> Mapping[str, object]:
        return self._session.inspect().to_json()

    async def events(self) -> AsyncGenerator[Mapping[str, object], None]:
        async with aclosing(self._session.events(until="session")) as events:
            async for event in events:
                yield json_value({"id": event.id, **event._asdict()})

    async def abort(self, reason: str) -> None:
        session = self._session
        if session.runs.current is not None:
            await session.interrupt(reason=reason)
        elif not session.is_over:
            session.nursery.start_soon(session.close)


@asynccontextmanager
async def open_memory(path: str | os.PathLike[str] | None) -> AsyncIterator[Memory]:
    """Open the store for the length of the block; None: the user's own. StateError where that is impossible."""
    async with (
        open_store(path) as store,
        open_local_server(store) as server,
        store.state(_SNAPSHOTS) as snapshots,
    ):
        memory = Memory(store, server, snapshots)
        try:
            yield memory
        finally:
            memory.close()

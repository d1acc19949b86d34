"""A plain session, shown to the other processes of this user, as `mobysession sessions` sees them."""

from __future__ import annotations

import dataclasses
import enum
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from mobysession import limits
from mobysession.errors import SessionError
from mobysession.session.local import open_local_server
from mobysession.session.subscription import Subscription
from mobysession.state.store import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from mobysession.events import SessionEvent
    from mobysession.session.session import Session
    from mobysession.state.store import Store

__all__ = ["Watchers", "announced", "event_value"]


@asynccontextmanager
async def announced(session: Session, *, store: Store | None = None) -> AsyncIterator[None]:
    """Let other processes see a session, watch it and end it, while the block runs.

    ::

        async with announced(session), session.attach():
            ...

    Args:
        session: attached or not.
        store: where it is announced; None: one of its own.

    Raises:
        SessionError: another process has ended it; the block is cancelled.
        StateError: it cannot be announced; the user must act.
    """
    if store is None:
        async with open_store() as own, announced(session, store=own):
            yield
        return
    peer = _Peer(session)
    async with open_local_server(store) as server:
        await server.announce(session.id, peer, endpoint=_endpoint(session), created=time.time())
        await store.flush()  # so that it can be seen when the block begins
        try:
            with peer.scope:
                yield
        finally:
            peer.watchers.close()
    if peer.aborted is not None:
        reason = f": {peer.aborted}" if peer.aborted else ""
        raise SessionError(f"session {session.id} was ended by another process{reason}")


def _endpoint(session: Session) -> str:
    endpoint = getattr(session._dialer, "endpoint", None)
    return "a dialer" if endpoint is None else str(endpoint.url)


class _Peer:
    """Answers for a plain session; see `mobysession.session.local.LocalPeer`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.watchers = Watchers()
        self.scope = trio.CancelScope()
        #: The reason; None while nobody has ended it.
        self.aborted: str | None = None
        session.listen(lambda event: self.watchers.tell(event_value(event)))

    def inspect(self) -> Mapping[str, object]:
        """Return what is known of it, with its connection where it is attached."""
        session = self._session
        attachment = session.attachment
        return {
            "session_id": session.id,
            "name": session.name,
            "status": "closed" if attachment is None else "ready" if session.settings else "opening",
            "way": attachment.way if attachment is not None else None,
            "methods": list(session.methods),
            "connection": dataclasses.asdict(session.inspect()) if session.settings else None,
        }

    def events(self) -> AsyncGenerator[Mapping[str, object], None]:
        """Return what happens from now on."""
        return self.watchers.watch()

    async def abort(self, reason: str) -> None:
        """Cancel the block."""
        self.aborted = reason
        self.scope.cancel()


class Watchers:
    """Hands values to any number of watchers; one who is slow is told how many it missed."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription[Mapping[str, object]]] = []
        self._closed = False

    def tell(self, value: Mapping[str, object]) -> None:
        """Give a value to everybody who watches; does not wait."""
        for subscription in self._subscriptions:
            subscription.put(value)

    def close(self) -> None:
        """End what is watched, once everybody has had what was told."""
        self._closed = True
        for subscription in tuple(self._subscriptions):
            subscription.detach()

    async def watch(self) -> AsyncGenerator[Mapping[str, object], None]:
        """Yield the values, from when the first is asked for up to `close`."""
        if self._closed:
            return
        subscription = Subscription(_missed, capacity=limits.WATCHED_EVENTS, on_close=self._subscriptions.remove)
        self._subscriptions.append(subscription)
        async with subscription:
            async for value in subscription:
                yield value


def _missed(count: int) -> Mapping[str, object]:
    return {"event": "EventsMissed", "count": count}


def event_value(event: SessionEvent) -> dict[str, object]:
    """Return an event as JSON has it, its kind under ``event``."""
    fields = {field.name: _plain(getattr(event, field.name)) for field in dataclasses.fields(event)}
    return {"event": type(event).__name__, **fields}


def _plain(value: Any) -> object:
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, enum.Enum):
        return value.name
    return value

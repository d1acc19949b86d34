"""Which sessions a manager has, and what becomes of them: events for any number of subscribers, at no cost for none."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mobysession.session.subscription import Subscription

if TYPE_CHECKING:
    from mobysession.errors import MobysessionError
    from mobysession.session.managed.session import ManagedSession

__all__ = [
    "EventsMissed",
    "Registry",
    "RegistryEvent",
    "SessionClosed",
    "SessionCreated",
    "SessionFailed",
    "SessionIdResolved",
]


@dataclass(frozen=True, kw_only=True)
class RegistryEvent:
    """The common part: when, in seconds since the epoch."""

    time: float = field(default_factory=time.time, compare=False)


@dataclass(frozen=True, kw_only=True)
class SessionCreated(RegistryEvent):
    """A session was made; the daemon may not know of it yet."""

    session_id: str


@dataclass(frozen=True, kw_only=True)
class SessionIdResolved(RegistryEvent):
    """The daemon has confirmed a session: its first bytes were seen."""

    session_id: str


@dataclass(frozen=True, kw_only=True)
class SessionClosed(RegistryEvent):
    """A session ended on request."""

    session_id: str


@dataclass(frozen=True, kw_only=True)
class SessionFailed(RegistryEvent):
    """A session could not be opened or was lost; ``error`` says why."""

    session_id: str
    error: MobysessionError = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class EventsMissed(RegistryEvent):
    """A subscriber was too slow, and missed ``number`` events here."""

    number: int


class Registry:
    """The sessions of one manager by ID, without their children."""

    def __init__(self) -> None:
        self.sessions: dict[str, ManagedSession] = {}
        self._subscriptions: list[Subscription[RegistryEvent]] = []

    def subscribe(self) -> Subscription[RegistryEvent]:
        """Return an iterator of the events from now on; it has no end of its own."""
        subscription: Subscription[RegistryEvent] = Subscription(_missed, on_close=self._subscriptions.remove)
        self._subscriptions.append(subscription)
        return subscription

    def created(self, session: ManagedSession) -> None:
        """Take a new session."""
        self.sessions[session.id] = session
        if self._subscriptions:
            self._tell(SessionCreated(session_id=session.id))

    def resolved(self, session_id: str) -> None:
        """Take the news that the daemon has confirmed one."""
        if self._subscriptions:
            self._tell(SessionIdResolved(session_id=session_id))

    def ended(self, session: ManagedSession, failure: MobysessionError | None) -> None:
        """Take the end of one."""
        if self.sessions.get(session.id) is session:
            del self.sessions[session.id]
        if not self._subscriptions:
            return
        if failure is None:
            self._tell(SessionClosed(session_id=session.id))
        else:
            self._tell(SessionFailed(session_id=session.id, error=failure))

    def _tell(self, event: RegistryEvent) -> None:
        for subscription in tuple(self._subscriptions):
            subscription.put(event)


def _missed(number: int) -> RegistryEvent:
    return EventsMissed(number=number)

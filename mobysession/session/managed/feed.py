"""What happens on a managed session, as numbered events: for listeners, for iterators, and for nobody at no cost."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mobysession.errors import UsageError
from mobysession.session.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ManagedEvent", "Feed"]

_log = logging.getLogger("mobysession.session")
#: Stands for every kind.
ALL = "*"


class ManagedEvent(NamedTuple):
    """One event of a session.

    Attributes:
        session_id: the session's.
        run: number of the run in which it happened; 0 before the first one.
        sequence: counts the events of the session from 1, also those that nobody listened to.
        time: seconds since the epoch.
        kind: what it is, as ``run_started``, ``call_ended`` or what `push_event` was given; ``missed`` stands for
            events that a slow subscriber missed, its data their number.
        data: depends on the kind.
    """

    session_id: str
    run: int
    sequence: int
    time: float
    kind: str
    data: Any = None

    @property
    def id(self) -> str:
        """Unique among all events of all sessions."""
        return f"{self.session_id}.{self.sequence}"


class Feed:
    """The events of one session."""

    def __init__(self, session_id: str, sequence: int = 0) -> None:
        self._session_id = session_id
        #: The number of the latest event.
        self.sequence = sequence
        #: The number of the latest run.
        self.run = 0
        self._listeners: dict[str, list[Callable[[ManagedEvent], None]]] = {}
        self._subscriptions: list[Subscription[ManagedEvent]] = []
        #: Those of them that end with the present run, or else with the next one.
        self._of_the_run: list[Subscription[ManagedEvent]] = []
        self._ended = False

    @property
    def heard(self) -> bool:
        """True where somebody listens."""
        return bool(self._listeners or self._subscriptions)

    def publish(self, kind: str, data: Any = None) -> None:
        """Number an event, and make it where somebody listens."""
        self.sequence += 1
        if self._listeners or self._subscriptions:
            self._deliver(self._make(kind, data))

    def push(self, kind: str, data: Any = None) -> ManagedEvent:
        """Publish an event and return it."""
        if not kind or kind == ALL:
            raise UsageError("an event has a kind")
        self.sequence += 1
        event = self._make(kind, data)
        self._deliver(event)
        return event

    def on(self, kind: str, listener: Callable[[ManagedEvent], None]) -> Callable[[], None]:
        """Call ``listener`` with the events of a kind, ``*`` for all, until the function that is returned is called."""
        listeners = self._listeners.setdefault(kind, [])
        listeners.append(listener)

        def leave() -> None:
            if listener in listeners:
                listeners.remove(listener)
            if not listeners and self._listeners.get(kind) is listeners:
                del self._listeners[kind]

        return leave

    def subscribe(self, *, until: Literal["run", "session"] = "session") -> Subscription[ManagedEvent]:
        """Return an iterator of the events from now on, until the end of the present or next run, or of the session."""
        subscription = Subscription(self._missed, on_close=self._leave)
        if self._ended:
            subscription.end()
        else:
            self._subscriptions.append(subscription)
            if until == "run":
                self._of_the_run.append(subscription)
        return subscription

    def end_run(self, failure: BaseException | None) -> None:
        """Publish that the run has ended; with that, iterators until its end do."""
        # Whoever subscribes when it hears of this means the next run.
        ending, self._of_the_run = self._of_the_run, []
        self.sequence += 1
        if self.heard:
            event = self._make("run_ended", failure)
            self._deliver(event)
            for subscription in ending:
                subscription.finish(event)

    def end(self) -> None:
        """End every iterator: the session is over."""
        self._ended = True
        subscriptions, self._subscriptions, self._of_the_run = self._subscriptions, [], []
        for subscription in subscriptions:
            subscription.end()
        self._listeners.clear()

    def _make(self, kind: str, data: Any) -> ManagedEvent:
        return ManagedEvent(self._session_id, self.run, self.sequence, time.time(), kind, data)

    def _missed(self, count: int) -> ManagedEvent:
        return self._make("missed", count)

    def _leave(self, subscription: Subscription[ManagedEvent]) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        if subscription in self._of_the_run:
            self._of_the_run.remove(subscription)

    def _deliver(self, event: ManagedEvent) -> None:
        if self._listeners:
            for listener in (*self._listeners.get(event.kind, ()), *self._listeners.get(ALL, ())):
                try:
                    listener(event)
                except Exception as error:  # of any kind: it is not ours, and must not end the session
                    _log.warning("a listener of %s failed with %s", event.kind, type(error).__name__)
        for subscription in tuple(self._subscriptions):
            subscription.put(event)

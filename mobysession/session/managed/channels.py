"""Channels: values by name, published to whoever has subscribed; two are built in.

``messages`` tells how the queue of requests changes, ``approvals`` what waits for a decision and what became of it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from mobysession.session.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["APPROVALS", "MESSAGES", "Channel", "Missed", "QueueChanged"]

MESSAGES = "messages"
APPROVALS = "approvals"
_log = logging.getLogger("mobysession.session")


class Missed(NamedTuple):
    """Stands, in a channel, for values that a slow subscriber missed."""

    number: int


class QueueChanged(NamedTuple):
    """The queue of requests has changed: how, by which request, and how many wait now."""

    change: str
    request: Any
    queued: int


class Channel:
    """Publish and subscribe by name. Made by `ManagedSession.channel`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._listeners: list[Callable[[Any], None]] = []
        self._subscriptions: list[Subscription[Any]] = []

    def publish(self, value: object) -> None:
        """Give a value to everybody who listens now; never waits."""
        for listener in tuple(self._listeners):
            try:
                listener(value)
            except Exception as error:  # of any kind: it is not ours, and must not end a run or refuse a request
                _log.warning("a listener of channel %s failed with %s", self.name, type(error).__name__)
        for subscription in tuple(self._subscriptions):
            subscription.put(value)

    def subscribe(self) -> Subscription[Any]:
        """Return an async iterator of the values from now on; what a slow one misses is a `Missed` in it."""
        subscription: Subscription[Any] = Subscription(Missed, on_close=self._subscriptions.remove)
        self._subscriptions.append(subscription)
        return subscription

    def on(self, listener: Callable[[Any], None]) -> Callable[[], None]:
        """Call ``listener`` with every value, until the function that is returned is called; it must not wait."""
        self._listeners.append(listener)

        def leave() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return leave

    def end(self) -> None:
        """End every iterator behind what waits."""
        for subscription in tuple(self._subscriptions):
            subscription.end()
        self._listeners.clear()

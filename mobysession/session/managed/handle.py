"""The handle of a run: what whoever sent its requests has of it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import trio

from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mobysession.errors import RunInterrupted
    from mobysession.session.managed.feed import ManagedEvent
    from mobysession.session.managed.session import ManagedSession
    from mobysession.session.subscription import Subscription

__all__ = ["RunHandle", "inside"]

#: The runs inside of which a task works, so that none waits for itself.
inside: ContextVar[frozenset[RunHandle]] = ContextVar("mobysession_inside_runs", default=frozenset())


class RunHandle:
    """A run, as whoever sent its requests sees it: iterate over its events, wait for its result.

    Attributes:
        number: counts the runs of a session from 1; 0 for a handle of a session that never ran.
        session: on which it runs; for `ManagedSession.spawn` the child.
        results: what its requests returned so far, in order.
    """

    def __init__(
        self, session: ManagedSession, number: int, events: Callable[[], Subscription[ManagedEvent]], *, settled: bool
    ) -> None:
        self.session = session
        self.number = number
        self.results: list[Any] = []
        #: Why it ended; None while it has not, or when it ended well.
        self.failure: BaseException | None = None
        self.options: dict[str, Any] = {}
        self.scope = trio.CancelScope()
        self.interrupted: RunInterrupted | None = None
        self._open = events
        self._settled = trio.Event()
        self._events: Subscription[ManagedEvent] | None = None
        self._taken = False
        if settled:
            self._settled.set()
        else:
            # From now on, so that whoever iterates later misses nothing of it.
            self._events = events()

    def __repr__(self) -> str:
        state = "settled" if self.settled else "running"
        return f"<RunHandle {self.number} of {self.session.id}, {state}>"

    @property
    def settled(self) -> bool:
        """True when the run is over."""
        return self._settled.is_set()

    async def queue(self, request: Any) -> None:
        """Queue a request on the run's session: for this run while it goes on, else for the next one."""
        await self.session.queue(request)

    async def wait(self) -> None:
        """Wait until the run is over, whatever came of it."""
        self._refuse_waiting_for_itself()
        await self._settled.wait()

    async def result(self) -> Any:
        """Wait for the run's end and return what its last request returned; None where there was none.

        Raises:
            RunInterrupted: the run was interrupted.
            SessionLost, SessionOver: the session went away, or was closed, meanwhile.
            Exception: what a request raised.

        Cancel: the run goes on.
        """
        await self.wait()
        if self.failure is not None:
            raise self.failure
        return self.results[-1] if self.results else None

    def __aiter__(self) -> AsyncIterator[ManagedEvent]:
        """Iterate over the run's events, up to its ``run_ended``; there may be one who does.

        Raises:
            UsageError: somebody iterates already, or has.
        """
        if self._taken:
            raise UsageError("the events of a run have one consumer", hint="Others listen with session.events().")
        self._taken = True
        if self._events is not None:
            return self._events
        nothing = self._open()
        nothing.detach()
        return nothing

    def settle(self, failure: BaseException | None) -> None:
        """End the run."""
        self.failure = failure
        self._settled.set()

    def _refuse_waiting_for_itself(self) -> None:
        if self in inside.get() and not self.settled:
            raise UsageError("a request cannot wait for the run it is part of")

"""Runs: requests worked off in order, one at a time, under one number and behind one handle.

A run begins with the first request of the queue and ends when the queue is empty, or when a request fails or the run is
interrupted; what is still queued then waits for the next one. While it goes on everybody who sends gets its handle.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mobysession import limits
from mobysession.concurrency import single_cause
from mobysession.errors import RunInterrupted, SessionError, SessionOver, UsageError
from mobysession.session.managed.ambient import ambient
from mobysession.session.managed.channels import QueueChanged
from mobysession.session.managed.handle import RunHandle, inside

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from mobysession.session.managed.feed import ManagedEvent
    from mobysession.session.managed.session import ManagedSession
    from mobysession.session.subscription import Subscription

__all__ = ["Request", "Runs", "SchedulerState"]

#: What a session runs: gets the session, and what it returns is its result. One whose attribute ``attaches`` is true is
#: not waited for with the attachment: it hosts services itself, with `ManagedSession.hosting`.
Request: TypeAlias = "Callable[[ManagedSession], Awaitable[Any]]"

_log = logging.getLogger("mobysession.session")


@dataclass(frozen=True, kw_only=True)
class SchedulerState:
    """What a session is doing with its requests.

    Attributes:
        state: ``running`` while there is a run.
        pending: why what is queued waits: ``run`` (for the request that is worked on), ``send`` (nobody has asked for a
            run), ``abort`` (the session was interrupted, see `ManagedSession.clear_abort`), ``closed``.
        queued: requests that wait.
        runs: how many there were, with the present one.
        done: requests that were worked off; ``failed``: those of them that failed or were interrupted.
    """

    state: Literal["idle", "running"] = "idle"
    pending: tuple[str, ...] = ()
    queued: int = 0
    runs: int = 0
    done: int = 0
    failed: int = 0


class Runs:
    """The queue of a session and the run that works it off."""

    def __init__(self, session: ManagedSession, number: int, changed: Callable[[SchedulerState], None]) -> None:
        self._session = session
        self._changed = changed
        self._queue: deque[Any] = deque()
        self.current: RunHandle | None = None
        self.number = number
        #: Interrupted, and not cleared since.
        self.aborted = False
        self._done = 0
        self._failed = 0

    @property
    def queued(self) -> tuple[Any, ...]:
        """The requests that wait, in order."""
        return tuple(self._queue)

    @property
    def state(self) -> SchedulerState:
        """What goes on."""
        pending = []
        if self._queue:
            running = self.current is not None
            reasons = {"run": running, "abort": self.aborted, "closed": self._session.is_terminal}
            pending = [reason for reason, holds in reasons.items() if holds] or ["send"]
        return SchedulerState(
            state="idle" if self.current is None else "running",
            pending=tuple(pending),
            queued=len(self._queue),
            runs=self.number,
            done=self._done,
            failed=self._failed,
        )

    def add(self, request: Any) -> None:
        """Queue a request; UsageError where it cannot be called, or there are too many."""
        if not callable(request):
            raise UsageError(f"a request is an async function of the session, not a {type(request).__name__}")
        if len(self._queue) >= limits.MAX_QUEUED_REQUESTS:
            raise UsageError(f"{limits.MAX_QUEUED_REQUESTS} requests are queued already")
        self._queue.append(request)
        self._tell("queued", request)

    def join(self, options: Mapping[str, Any]) -> RunHandle:
        """Return the handle of the present run, or begin one; an empty, settled one where there is nothing to do."""
        if self.current is not None:
            self.current.options.update(options)
            return self.current
        if not self._queue:
            return RunHandle(self._session, self.number, self._subscribe, settled=True)
        self.refuse_aborted()
        self.number += 1
        self._session.feed.run = self.number
        run = self.current = RunHandle(self._session, self.number, self._subscribe, settled=False)
        run.options.update({**self._session.options, **options})
        self._session.nursery.start_soon(self._work_off, run)
        return run

    def refuse_aborted(self) -> None:
        """Raise SessionError where no run may be begun."""
        if self.aborted and self.current is None:
            raise SessionError(
                f"session {self._session.id} was interrupted", hint="Call clear_abort() to go on with what is queued."
            )

    def interrupt(self, reason: str | None) -> bool:
        """End the present run; False where there is none."""
        run = self.current
        if run is None:
            return False
        self.aborted = True
        if run.interrupted is None:
            why = f": {reason}" if reason else ""
            run.interrupted = RunInterrupted(f"run {run.number} was interrupted{why}", reason=reason)
            self._session.feed.publish("run_interrupted", reason)
            run.scope.cancel()
        return True

    def drop(self) -> None:
        """Forget what is queued."""
        while self._queue:
            self._tell("dropped", self._queue.popleft())

    def refuse_inside(self) -> None:
        """Raise UsageError inside of a request, also of a child: it cannot wait for its own end."""
        for run in inside.get():
            session: ManagedSession | None = None if run.settled else run.session
            while session is not None:
                if session is self._session:
                    raise UsageError("a request cannot close the session it runs on", hint="Return, or raise, instead.")
                session = session.parent

    def _subscribe(self) -> Subscription[ManagedEvent]:
        return self._session.feed.subscribe(until="run")

    async def _work_off(self, run: RunHandle) -> None:
        inside.set(inside.get() | {run})
        with ambient(self._session):
            await self._work_off_inside(run)

    async def _work_off_inside(self, run: RunHandle) -> None:
        feed = self._session.feed
        self._session.run_began()
        feed.publish("run_started", run.number)
        self._changed(self.state)
        failure: BaseException | None = SessionOver(f"session {self._session.id} was closed meanwhile")
        try:
            failure = await self._take_turns(run)
        finally:
            # Before anybody hears of it, so that whoever does may begin the next one.
            self.current = None
            self._session.run_over(run)
            feed.end_run(failure)
            run.settle(failure)
            self._changed(self.state)
            self._session.run_settled()

    async def _take_turns(self, run: RunHandle) -> BaseException | None:
        failure: BaseException | None = None
        try:
            with run.scope:
                while self._queue and run.interrupted is None:
                    await self._take_one(run)
        except Exception as error:  # whatever a request raises
            failure = (single_cause(error) if isinstance(error, ExceptionGroup) else None) or error
            _log.info("run %d failed with %s", run.number, type(failure).__name__)
        if failure is not None or run.scope.cancelled_caught:
            self._failed += 1
        # Why it was cancelled, before what it said when it was.
        return self._session.failure or run.interrupted or failure

    async def _take_one(self, run: RunHandle) -> None:
        request = self._queue.popleft()
        self._tell("started", request)
        try:
            result = await self._session.carry_out(request, run)
        finally:
            self._done += 1
        run.results.append(result)
        self._session.request_done(result)

    def _tell(self, change: str, request: Any) -> None:
        self._session.queue_changed(QueueChanged(change, request, len(self._queue)))
        self._changed(self.state)

"""The life of a managed session: its identity, its scope, its attachment and its events.

What it does with them, its operations, is `mobysession.session.managed.session`.
"""

from __future__ import annotations

import logging
import time
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Self
from weakref import WeakSet

import trio

from mobysession import limits
from mobysession.concurrency import open_nursery
from mobysession.errors import MobysessionError, SessionOver
from mobysession.identity import new_id
from mobysession.session.managed.ambient import ambient, name_sessions_in_logs
from mobysession.session.managed.approvals import Approvals
from mobysession.session.managed.channels import APPROVALS, Channel
from mobysession.session.managed.counters import Tally
from mobysession.session.managed.feed import Feed
from mobysession.session.managed.lifecycle import TERMINAL, Lifecycle, SessionInfo
from mobysession.session.managed.link import Link
from mobysession.session.managed.methods import audience_of
from mobysession.session.managed.rules import make_access
from mobysession.session.managed.runs import Runs
from mobysession.session.session import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from mobysession.events import SessionEvent
    from mobysession.rpc.registrar import Attachable
    from mobysession.session.managed.feed import ManagedEvent
    from mobysession.session.managed.handle import RunHandle
    from mobysession.session.managed.lifecycle import SessionStatus
    from mobysession.session.managed.origin import Origin
    from mobysession.session.managed.session import ManagedSession
    from mobysession.session.subscription import Subscription

__all__ = ["SessionCore"]

_log = logging.getLogger("mobysession.session")


class SessionCore:
    """What a managed session is. Made by `mobysession.session.managed.manager.SessionManager`."""

    def __init__(self, origin: Origin) -> None:
        snapshot = origin.snapshot
        self.origin = origin
        self.services = origin.services
        self.id = origin.session_id or new_id()
        #: Why it failed; None while it has not.
        self.failure: MobysessionError | None = None
        self.created_at = snapshot.created_at if snapshot is not None else time.time()
        self.last_activity = time.time()
        self.feed = Feed(self.id, snapshot.sequence if snapshot is not None else 0)
        self.feed.run = snapshot.runs if snapshot is not None else 0
        self.tally = Tally(origin.tally)
        self.children: list[ManagedSession] = []
        self._metadata = MappingProxyType(dict(origin.metadata))
        self._channels: dict[str, Channel] = {}
        self.approvals = Approvals(self.channel(APPROVALS))
        #: Who decides on what the daemon asks for, on this session and in its builds.
        self.access = make_access(origin.config, self.approvals)
        self._lifecycle = Lifecycle(self._status_changed)
        self._began = time.monotonic()
        self._has_run = False
        self._resolved = trio.Event()
        self._closing = trio.Lock()
        self._persisting = trio.Lock()
        #: Calls from this side that get one answer.
        self._dispatched = 0
        #: Where whoever waits for the end of calls does.
        self._answered = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None
        self._link: Link | None = None
        #: What the latest requests wrote, latest last, and how many steps of all of them came from a cache.
        self.outputs: list[str] = []
        self.cache_hits = 0
        #: What `hosting` hosts, the latest last.
        self.hosted: list[tuple[Attachable, ...]] = []
        #: Sessions of single builds; those that are attached are looked into with this one.
        self.companions: WeakSet[Session] = WeakSet()
        self.bare = self._make_bare()
        self.runs = Runs(self._whole, self.feed.run, self._scheduler_changed)

    def __repr__(self) -> str:
        return f"<ManagedSession {self.id}, {self.status}>"

    @property
    def _whole(self) -> ManagedSession:
        """Itself, with the operations: nothing else is ever made."""
        return self  # type: ignore[return-value]  # of its only subclass

    # -- identity ------------------------------------------------------------------------------------------------------

    @property
    def metadata(self) -> Mapping[str, str]:
        """Its labels, which never change."""
        return self._metadata

    @property
    def status(self) -> SessionStatus:
        """Where it is between opening and closed; see `mobysession.session.managed.lifecycle`."""
        return self._lifecycle.status

    @property
    def is_terminal(self) -> bool:
        """True when it is closed or has failed: nothing more can be done on it."""
        return self.status in TERMINAL

    @property
    def is_over(self) -> bool:
        """True when nothing new can be begun on it: it is terminal, or about to be."""
        return self.status in ("closing", *TERMINAL)

    @property
    def parent(self) -> ManagedSession | None:
        """The session that spawned it; None for one that was made otherwise, in whatever process."""
        return self.origin.parent

    @property
    def parent_session_id(self) -> str | None:
        """The ID of the session that it works for; kept in snapshots."""
        return self.origin.parent_session_id

    @property
    def info(self) -> SessionInfo:
        """What is known of it now."""
        return SessionInfo(
            session_id=self.id,
            status=self.status,
            created_at=self.created_at,
            last_activity=self.last_activity,
            endpoint=self.origin.where,
            resumed_from=self.origin.snapshot.session_id if self.origin.snapshot is not None else None,
            options=dict(self.origin.options),
        )

    # -- scope ---------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[Self]:
        """Live for the length of the block, at whose end what is in flight is waited for; its failure ends nothing."""
        registry = self.origin.registry
        name_sessions_in_logs()
        self.tally.add(active=1)
        if registry is not None:
            registry.created(self._whole)
        try:
            async with open_nursery() as nursery:
                self._nursery = nursery
                config = self.origin.config
                self._link = Link(
                    self.bare,
                    nursery,
                    ready_timeout=config.ready_timeout,
                    patience=config.resume_timeout,
                    patient_at_first=self.origin.snapshot is not None,
                    inside=partial(ambient, self._whole),
                    on_change=self._attachment_changed,
                    on_lost=self.fail,
                )
                with ambient(self._whole):
                    try:
                        yield self
                        await self.close()
                    finally:
                        nursery.cancel_scope.cancel()
        finally:
            self._nursery = self._link = None
            self._finish()

    async def close(self) -> None:
        """Wait for the run that goes on, with all that is queued for it, then end; children are closed too.

        Calls that get one answer, the daemon's and dispatched ones, are waited for up to `limits.CLOSE_PATIENCE`
        seconds; health checks and streams are cut. That is also how long a handler waits that closes its own session.

        Raises:
            UsageError: it is called from inside of a request of the session, or of a child.

        Cancel: the session is closing and takes no more requests; at the end of its block it ends all the same.
        """
        self.runs.refuse_inside()
        # One after the other; where one was cancelled, the next goes on.
        async with self._closing:
            if self.is_terminal:
                return
            self._lifecycle.move("closing")
            for child in tuple(self.children):
                await child.close()
            if self.runs.current is not None:
                await self.runs.current.wait()
            self.runs.drop()
            await self._wait_answered()
            if self._link is not None:
                await self._link.detach()
            self._finish()

    async def _wait_answered(self) -> None:
        with trio.move_on_after(limits.CLOSE_PATIENCE):
            while not self.is_terminal and (self._dispatched or self.bare.answering):
                await self._answered.park()

    @contextmanager
    def in_flight(self, *, awaited: bool) -> Iterator[None]:
        """Have `close` wait for the end of the block, where that is ``awaited``."""
        self._dispatched += awaited
        try:
            yield
        finally:
            self._dispatched -= awaited
            self._answered.unpark_all()

    def fail(self, error: MobysessionError) -> None:
        """Take the news that the session is lost; its run ends with ``error``."""
        if self.is_terminal:
            return
        self.failure = error
        self._lifecycle.move("failed")
        self.tally.add(failed=1)
        self._answered.unpark_all()
        if self.runs.current is not None:
            self.runs.current.scope.cancel()
        self._end()

    def _finish(self) -> None:
        if self.is_terminal:
            return
        self._lifecycle.move("closing")
        self._lifecycle.move("closed")
        self._end()

    def _end(self) -> None:
        _log.info("session %s is %s", self.id, self.status)
        self.tally.add(active=-1, seconds=time.monotonic() - self._began)
        if self.origin.registry is not None:
            self.origin.registry.ended(self._whole, self.failure)
        if self.runs.current is None:
            self._end_events()

    def _end_events(self) -> None:
        self.feed.end()
        for channel in self._channels.values():
            channel.end()

    def refuse_over(self) -> None:
        """Raise SessionOver where nothing more can be begun."""
        if self.is_over:
            why = f" because of this: {self.failure.message}" if self.failure is not None else ""
            raise SessionOver(f"session {self.id} is {self.status}{why}") from self.failure
        if self._nursery is None:
            raise SessionOver(f"session {self.id} is used outside of its block")

    @property
    def nursery(self) -> trio.Nursery:
        """Where what it starts runs; SessionOver outside of its block."""
        if self._nursery is None:
            raise SessionOver(f"session {self.id} is used outside of its block")
        return self._nursery

    # -- attachment ----------------------------------------------------------------------------------------------------

    def _make_bare(self) -> Session:
        origin = self.origin
        bare = self._make_session(self.id, origin.name, origin.shared_key)
        bare.allow(*(service for service in self.services if audience_of(service) != "client"))
        return bare

    def _make_session(self, session_id: str | None, name: str, shared_key: str) -> Session:
        config = self.origin.config
        session = Session(
            self.origin.dialer, session_id=session_id, name=name, shared_key=shared_key, access=self.access
        )
        session.listen(self._heard)
        if config.approval == "channel":
            session.amend = self.approvals.amend
        return session

    def _attachment_changed(self, attached: bool) -> None:
        if attached and not self._resolved.is_set():
            self._resolved.set()
            self.tally.add(opened=1)
            if self.origin.registry is not None:
                self.origin.registry.resolved(self.id)
        if self.status == "closing" or self.is_terminal:
            return
        self._lifecycle.move(self._status_attached() if attached else "opening")

    def _status_attached(self) -> SessionStatus:
        if self.runs.current is not None:
            return "streaming"
        return "idle" if self._has_run else "ready"

    # -- events --------------------------------------------------------------------------------------------------------

    def events(self, *, until: Literal["run", "session"] = "run") -> Subscription[ManagedEvent]:
        """Return an iterator of all that happens from now on, for any number of consumers.

        A slow one misses events, and is told how many by one of kind ``missed``.

        Args:
            until: what ends it: the end of the present run, or of the next one where there is none, with its
                ``run_ended`` as the last event; or only the ``session``'s, which ends it in any case.
        """
        return self.feed.subscribe(until=until)

    def on(self, kind: str, listener: Callable[[ManagedEvent], None]) -> Callable[[], None]:
        """Call ``listener`` with each event of a kind, ``*`` for all; it must not wait.

        Returns: a function that ends this.
        """
        return self.feed.on(kind, listener)

    def push_event(self, kind: str, data: object = None) -> ManagedEvent:
        """Add an event of the program's own, and return it with its number."""
        return self.feed.push(kind, data)

    def channel(self, name: str) -> Channel:
        """Return the channel of a name, made where there is none."""
        if name not in self._channels:
            self._channels[name] = Channel(name)
        return self._channels[name]

    def run_began(self) -> None:
        """Take the beginning of a run, before it is told."""
        self.last_activity = time.time()
        self._has_run = True
        if self.status in ("ready", "idle"):
            self._lifecycle.move("streaming")

    def run_over(self, run: RunHandle) -> None:
        """Take the end of a run, before it is told."""
        self.last_activity = time.time()
        self.tally.add(runs=1)
        if self.status == "streaming":
            self._lifecycle.move("idle")

    def request_done(self, result: object) -> None:
        """Take what a request returned: of a build, what it wrote and how much came from a cache."""
        self.outputs.extend(map(str, getattr(result, "outputs", ())))
        del self.outputs[: -limits.KEPT_OUTPUTS]
        self.cache_hits += getattr(result, "cached_steps", 0)
        # Not the result: it may be a secret, and events are seen by more than asked for it.
        self.feed.publish("request_ended", type(result).__name__)

    def run_settled(self) -> None:
        """Take the end of a run once everybody was told."""
        if self.is_terminal:
            self._end_events()

    def _heard(self, event: SessionEvent) -> None:
        from mobysession.events import CallEnded

        self.last_activity = event.time
        if isinstance(event, CallEnded):
            self.tally.call_ended(event)
            self._answered.unpark_all()
        self.feed.publish(_kind(type(event)), event)

    def _status_changed(self, before: SessionStatus, now: SessionStatus) -> None:
        self.feed.publish("status", now)

    def _scheduler_changed(self, state: object) -> None:
        self.feed.publish("scheduler", state)


_kinds: dict[type, str] = {}


def _kind(event: type) -> str:
    """Return what an event of the session's own is called: ``CallEnded`` is ``call_ended``."""
    if event not in _kinds:
        name = event.__name__
        _kinds[event] = "".join(f"_{char.lower()}" if char.isupper() else char for char in name).removeprefix("_")
    return _kinds[event]

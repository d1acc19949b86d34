"""Makes managed sessions, knows those that live, and tells what becomes of them.

::

    manager = SessionManager(SessionConfig(endpoint=Endpoint.parse("unix:///run/docker.sock")))
    async with manager.create(services=[Secrets({"token": b"..."})]) as session:
        ...

Each session lives in the scope of its own block, on whichever daemon, and the failure of one touches no other. Entered
itself (``async with manager:``), a manager announces its sessions to the other processes of this user, so that they can
be listed, looked into, and are not resumed while they live.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from mobysession.errors import SessionAlive, UsageError
from mobysession.protocol.session_headers import SessionHeaders
from mobysession.session.managed.config import SessionConfig
from mobysession.session.managed.counters import PROCESS, Counters, Tally
from mobysession.session.managed.dialing import make_dialer
from mobysession.session.managed.lifecycle import SessionSnapshot
from mobysession.session.managed.metrics import observe
from mobysession.session.managed.origin import Origin
from mobysession.session.managed.registry import Registry, RegistryEvent
from mobysession.session.managed.session import ManagedSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
    from types import TracebackType

    from mobysession.rpc.registrar import Attachable
    from mobysession.session.managed.memory import Memory
    from mobysession.session.managed.runs import Request
    from mobysession.session.subscription import Subscription

__all__ = ["SessionManager"]

_default: SessionManager | None = None
#: The sessions of all managers of this process, by ID.
_alive: dict[str, ManagedSession] = {}


class SessionManager:
    """Makes sessions.

    Args:
        config: their defaults; None: those of `SessionConfig`.
        store: the database in which sessions are announced while the manager is entered; None: the user's own.
    """

    def __init__(self, config: SessionConfig | None = None, *, store: str | os.PathLike[str] | None = None) -> None:
        self.config = config if config is not None else SessionConfig()
        self._store = store
        #: Open while the manager is entered.
        self._memory: Memory | None = None
        self._stack = AsyncExitStack()
        self._registry = Registry()
        self._tally = Tally(PROCESS)

    async def __aenter__(self) -> Self:
        """Announce the sessions that are made from now on; StateError where nothing can be kept."""
        from mobysession.session.managed.memory import open_memory  # only for who shares: start-up

        if self._memory is not None:
            raise UsageError("the manager is entered already")
        self._memory = await self._stack.enter_async_context(open_memory(self._store))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Announce no more, and write what is not written yet."""
        self._memory = None
        return await self._stack.__aexit__(kind, error, traceback)

    @classmethod
    def default(cls) -> SessionManager:
        """Return the manager of this process, made from the environment the first time.

        Raises:
            ConfigError: a variable makes no sense; the user must mend it.
        """
        global _default
        if _default is None:
            _default = cls(SessionConfig.from_env())
        return _default

    @property
    def sessions(self) -> Mapping[str, ManagedSession]:
        """The sessions that live, by ID; without those that others have spawned."""
        return dict(self._registry.sessions)

    @property
    def counters(self) -> Counters:
        """What its sessions did, in numbers; children count."""
        return self._tally.counters()

    def events(self) -> Subscription[RegistryEvent]:
        """Return an iterator of what becomes of the sessions from now on; leave it with ``async with``.

        A slow one misses events, and is told how many by an `EventsMissed`.
        """
        return self._registry.subscribe()

    @asynccontextmanager
    async def create(
        self,
        services: Iterable[Attachable] | None = None,
        *,
        session_id: str | None = None,
        name: str = "",
        shared_key: str = "",
        metadata: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        parent_session_id: str | None = None,
        wait_ready: bool = False,
        **overrides: Any,
    ) -> AsyncIterator[ManagedSession]:
        """Make a session that lives for the length of the block, at whose end what is in flight is waited for.

        Args:
            services: what it hosts; an empty list where that is nothing.
            session_id: unique on the daemon; made anew when None. ``name`` and ``shared_key`` as for `Session`.
            metadata: labels.
            options: those that its runs begin with.
            parent_session_id: of the session that it works for, in whatever process that is.
            wait_ready: attach it before the block begins; otherwise it is when something needs it.
            **overrides: fields of `SessionConfig`.

        Raises:
            UsageError: no services were chosen, or an override or the session ID makes no sense.
            EndpointError: the environment names no usable daemon.
            TransportError, SessionNotReady: with ``wait_ready``, it could not be opened.
        """
        chosen = _chosen(services)
        config = self.config.with_overrides(overrides)
        dialer, where = await make_dialer(config)
        origin = Origin(
            config=config,
            dialer=dialer,
            where=where,
            services=chosen,
            session_id=session_id,
            shared_key=shared_key,
            name=name,
            metadata=metadata or {},
            options=options or {},
            parent_session_id=parent_session_id,
            registry=self._registry,
            tally=self._tally,
        )
        async with self._live(origin, wait_ready=wait_ready) as session:
            yield session

    @asynccontextmanager
    async def resume(
        self,
        resumed: str | SessionSnapshot,
        services: Iterable[Attachable] | None = None,
        *,
        shared_key: str | None = None,
        **overrides: Any,
    ) -> AsyncIterator[ManagedSession]:
        """Go on with a session that was lost: the same ID and shared key, attached anew before the block begins.

        The engine may still have the old one; its ID is then asked for again for ``resume_timeout`` seconds.

        Args:
            resumed: a snapshot; or an ID, of which the snapshot is used that an entered manager wrote down.
            services: as for `create`.
            shared_key: in place of the snapshot's.
            **overrides: fields of `SessionConfig`.

        Raises:
            SessionAlive: the old one still lives, in this process or in another one that has announced it.
            SessionIdInUse: the engine did not let go of it in time.
            UsageError, EndpointError, TransportError, SessionNotReady: as `create`.
        """
        chosen = _chosen(services)
        snapshot = await self._look_for(resumed)
        config = self.config.with_overrides(overrides)
        dialer, where = await make_dialer(config)
        origin = Origin(
            config=config,
            dialer=dialer,
            where=where,
            services=chosen,
            session_id=snapshot.session_id,
            shared_key=shared_key if shared_key is not None else snapshot.shared_key,
            name=snapshot.name,
            metadata=snapshot.metadata,
            options=snapshot.options,
            parent_session_id=snapshot.parent_session_id,
            snapshot=snapshot,
            registry=self._registry,
            tally=self._tally,
        )
        async with self._live(origin, wait_ready=True) as session:
            yield session

    @asynccontextmanager
    async def session(
        self, services: Iterable[Attachable] | None = None, **options: Any
    ) -> AsyncIterator[ManagedSession]:
        """Make a session as `create` does, attached and ready when the block begins."""
        async with self.create(services, **{**options, "wait_ready": True}) as session:
            yield session

    async def run_once(self, request: Request, services: Iterable[Attachable] | None = None, **options: Any) -> Any:
        """Run one request in a session of its own, and return its result.

        Args:
            request: a build, see `mobysession.build.as_request`, or any async function of the session.
            services: as for `create`; a build brings its own, so that there None is nothing.
            **options: as for `create`.

        Raises:
            Exception: what the request raised; else as `create`.

        Cancel: what the request has asked the daemon for is cancelled.
        """
        if services is None and getattr(request, "brings_services", False):
            services = ()
        async with self.create(services, **options) as session:
            return await (await session.send(request)).result()

    @asynccontextmanager
    async def _live(self, origin: Origin, *, wait_ready: bool) -> AsyncIterator[ManagedSession]:
        observe()
        if origin.session_id is not None:
            # Refuses what no daemon can be told, before it is written down.
            SessionHeaders(session_id=origin.session_id)
        session = ManagedSession(origin)
        if origin.session_id is not None:
            _refuse_alive(session.id)
        _alive[session.id] = session
        memory = self._memory
        try:
            async with session.alive():
                if memory is not None:
                    await memory.announce(session)
                    session.on_persist(lambda _: memory.remember(session))
                if wait_ready:
                    await session.mount()
                yield session
        finally:
            # One that was lost may have been resumed inside of its block.
            if _alive.get(session.id) is session:
                del _alive[session.id]
            if memory is not None:
                memory.withdraw(session)

    async def _look_for(self, resumed: str | SessionSnapshot) -> SessionSnapshot:
        """Return what to go on with; SessionAlive where the session lives."""
        session_id = resumed if isinstance(resumed, str) else resumed.session_id
        _refuse_alive(session_id)
        if self._memory is not None:
            found = await self._memory.look_up(session_id)
        else:
            from mobysession.session.managed.memory import look_up

            found = await look_up(self._store, session_id)
        return resumed if isinstance(resumed, SessionSnapshot) else found or SessionSnapshot(session_id=session_id)


def _chosen(services: Iterable[Attachable] | None) -> tuple[Attachable, ...]:
    if services is None:
        raise UsageError("no services were chosen for the session", hint="services=[] hosts nothing but health.")
    return tuple(services)


def _refuse_alive(session_id: str) -> None:
    if any(living.id == session_id and not living.is_terminal for living in _with_children(_alive.values())):
        raise SessionAlive(f"session {session_id} lives in this process", session_id=session_id, pid=os.getpid())


def _with_children(sessions: Iterable[ManagedSession]) -> Iterator[ManagedSession]:
    for session in sessions:
        yield session
        yield from _with_children(session.children)

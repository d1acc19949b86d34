"""Sessions, held open on trio while a task of asyncio's runs a block."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Literal, TypeVar

import trio

from mobysession.aio.worker import refuse_elsewhere, wait_for, working
from mobysession.errors import RpcError, SessionError, SessionLost
from mobysession.rpc.keepalive import SESSION_KEEPALIVE
from mobysession.session.session import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mobysession.aio.worker import Worker
    from mobysession.rpc.inspection import Inspection
    from mobysession.rpc.keepalive import Keepalive
    from mobysession.rpc.registrar import Attachable
    from mobysession.session.access import Access
    from mobysession.session.attach import Dialer
    from mobysession.session.tracing import Tracing
    from mobysession.transport.endpoint import Endpoint

__all__ = ["AsyncioSession", "open_session"]

T = TypeVar("T")


class AsyncioSession:
    """An attached session, seen from asyncio. Made by `open_session`."""

    def __init__(self, session: Session, worker: Worker) -> None:
        self._session = session
        self._worker = worker

    @property
    def id(self) -> str:
        """The session's ID, to be named in a build request."""
        return self._session.id

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that are hosted, as they are advertised."""
        return self._session.methods

    @property
    def settings(self) -> dict[str, int]:
        """The daemon's HTTP/2 settings by name."""
        return self._session.settings

    async def ping(self) -> float:
        """Return the round trip to the daemon in seconds.

        Raises:
            SessionLost: the session has ended.
        """
        return await self._ask(self._session.ping)

    async def inspect(self) -> Inspection:
        """Return how the session's connection is; see `mobysession.session.Session.inspect`.

        Raises:
            SessionLost: the session has ended.
        """

        async def inspect() -> Inspection:
            return self._session.inspect()

        return await self._ask(inspect)

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._worker.run(question)
        except (trio.RunFinishedError, RpcError, SessionError) as error:
            raise SessionLost(f"session {self.id} has ended") from error


@asynccontextmanager
async def open_session(
    target: Endpoint | Dialer | None = None,
    *services: Attachable,
    attach: str = "auto",
    session_id: str | None = None,
    name: str = "",
    shared_key: str = "",
    keepalive: Keepalive | None = SESSION_KEEPALIVE,
    access: Access | None = None,
    tracing: Tracing | Literal[False] | None = None,
) -> AsyncIterator[AsyncioSession]:
    """Open a session for the length of the ``async with`` block; arguments and errors as `mobysession.open_session`.

    Where the session is lost, the block is cancelled and SessionLost raised in its place.

    Cancel: callbacks that run are cancelled, and the connection is closed.
    """
    refuse_elsewhere("mobysession.open_session(...)")
    session = Session(
        target,
        attach=attach,
        session_id=session_id,
        name=name,
        shared_key=shared_key,
        keepalive=keepalive,
        access=access,
        tracing=tracing,
    )
    session.allow(*services)
    with working() as worker:
        holder = _Holder(session, worker)
        await holder.open()
        try:
            yield AsyncioSession(session, worker)
        except BaseException as error:
            await holder.close(error)
            raise
        await holder.close(None)


class _Holder:
    """A task that holds a session open on trio while its owner, another task of the same loop, runs a block.

    It interrupts the owner when the session is lost, in the way in which ``asyncio.timeout`` does it.
    """

    def __init__(self, session: Session, worker: Worker) -> None:
        self._session = session
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        self._end = trio.Event()
        owner = asyncio.current_task()
        assert owner is not None  # a coroutine that awaits is in a task
        self._owner = owner
        self._cancelling = owner.cancelling()
        self._open = True
        self._interrupted = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Return once the session is attached; raise why it is not."""
        self._task = self._loop.create_task(self._worker.run(self._hold))
        self._task.add_done_callback(self._ended)
        try:
            await self._ready
        except asyncio.CancelledError:
            self._open = False
            self._task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await wait_for(self._task, self._task.cancel)
            raise

    async def _hold(self) -> None:
        async with self._session.attach():
            self._loop.call_soon_threadsafe(self._set_ready)
            await self._end.wait()

    def _set_ready(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if not self._ready.done():
            self._ready.set_exception(error or SessionLost(f"session {self._session.id} was cancelled"))
        elif error is not None and self._open:
            self._interrupted = True
            self._owner.cancel()

    async def close(self, error: BaseException | None) -> None:
        """End the session after a block that ended with ``error``.

        What the session was lost with is raised where the block ended well, or was only interrupted for it.
        """
        assert self._task is not None  # it was opened
        self._open = False
        if self._interrupted:
            by_others = self._owner.uncancel() > self._cancelling
            if not by_others and (error is None or isinstance(error, asyncio.CancelledError)):
                self._task.result()
            return
        with suppress(trio.RunFinishedError):
            self._worker.token.run_sync_soon(self._end.set)
        try:
            await wait_for(self._task, self._task.cancel)
        except Exception:
            if error is None:
                raise

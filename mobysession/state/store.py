"""The store: one database, and the one worker of this process that writes to it behind everybody's back.

Whoever changes something says so and goes on; the worker takes all that has come together, writes it in one
transaction, in a thread, and hands the results out. Between writes it looks now and then whether another process has
written (SQLite's ``data_version``), as long as somebody observes. What cannot be written is kept and tried again;
`Store.flush` says why.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import trio

from mobysession import limits
from mobysession.concurrency import open_nursery
from mobysession.errors import StateError
from mobysession.state.location import state_path

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from mobysession.state.database import Database
    from mobysession.state.state import State

__all__ = ["Job", "Store", "open_store"]

T = TypeVar("T")
_log = logging.getLogger("mobysession.state")


class Job(Protocol):
    """Something that is done to the store in the worker's transaction."""

    #: False where it only reads.
    writes: bool

    def run(self, connection: sqlite3.Connection) -> object:
        """Do it, in the worker's thread; what it raises takes back what it did, and nothing else."""
        ...

    def done(self, result: object) -> None:
        """Take the result, in the loop, when it is durable."""
        ...

    def failed(self, error: Exception) -> None:
        """Take the news that it raised ``error``, in the loop; it will not be tried again."""
        ...


class Observer(Protocol):
    """Somebody who takes part in each turn, and wants to know what others wrote: a state."""

    def next_job(self) -> Job | None:
        """Return what there is to write now; None where there is nothing."""
        ...

    def look(self) -> Job:
        """Return what reads what is stored."""
        ...


class Store:
    """The database, as the tasks of one process see it. Made by `open_store`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._posted: list[Job] = []
        self._observers: list[Observer] = []
        self._leaving: list[Observer] = []
        #: Tasks in `wait_for`.
        self._waiting = 0
        self._seen = -1
        self._turning = trio.Lock()
        self._work = trio.Event()
        self._changed = trio.Event()
        self._failure: StateError | None = None

    @property
    def path(self) -> Path | None:
        """The file; None where it is all in memory."""
        return self._database.path

    def state(self, name: str, initial: Mapping[str, object] | None = None) -> State:
        """Return the state of that name in this store; it is ready inside of ``async with``."""
        from mobysession.state.state import State

        return State(name, initial, store=self)

    def post(self, job: Job) -> None:
        """Have a job done soon; `flush` waits for it."""
        self._posted.append(job)
        self.wake()

    def wake(self) -> None:
        """Tell the worker that there is something to do."""
        self._work.set()

    async def run(self, function: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> T:
        """Call a function in a transaction, behind what was asked for before, and return what it returns.

        Raises:
            StateError: the store cannot be read or written; nothing of it has happened.

        Cancel: it may have happened.
        """
        job = _Awaited(function, writes)
        self._posted.append(job)
        try:
            await self._turn()
        finally:
            # Where the store failed: whoever waits is told, and it must not happen later.
            if job in self._posted:
                self._posted.remove(job)
        if job.error is not None:
            raise job.error
        return cast("T", job.result)

    async def flush(self) -> None:
        """Wait until all that was asked for before is on the disk, and what other processes wrote is known here.

        Raises:
            StateError: it cannot be written; it is kept, and tried again.
        """
        await self._turn(refresh=True)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    @property
    def change(self) -> trio.Event:
        """What happens when something is written next, here or by another process; to be given to `wait_for`."""
        return self._changed

    async def wait_for(self, change: trio.Event) -> None:
        """Wait for a `change` that was taken before, so that what came in between is not missed."""
        self._waiting += 1
        # The worker sleeps for ever while nobody wants to know.
        self.wake()
        try:
            await change.wait()
        finally:
            self._waiting -= 1

    # -- observers -----------------------------------------------------------------------------------------------------

    async def add(self, observer: Observer) -> None:
        """Let somebody take part in each turn, after a first one that shows what is stored."""
        self._observers.append(observer)
        try:
            await self._turn(refresh=True)
        except BaseException:
            self._observers.remove(observer)
            raise
        self.wake()

    def remove(self, observer: Observer) -> None:
        """Let somebody take part no longer, once all that they still have to write is written."""
        self._leaving.append(observer)
        self._let_go()
        self.wake()

    def _let_go(self) -> None:
        # Not before: what is being written at this moment would be taken for the end of it, or be written twice.
        gone = [observer for observer in self._leaving if observer.next_job() is None]
        for observer in gone:
            self._leaving.remove(observer)
            self._observers.remove(observer)

    def fail(self, failure: StateError) -> None:
        """Have the next `flush` raise ``failure``, which nobody waited for."""
        self._failure = failure

    # -- the worker ----------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Write what is asked for, and look for what others wrote, for ever."""
        told = False
        while True:
            watching = self._observers or self._waiting or self._posted
            with trio.move_on_after(limits.STATE_WATCH if watching else float("inf")):
                await self._work.wait()
            self._work = trio.Event()
            try:
                await self._turn()
                told = False
            except StateError as error:
                # Whoever flushes tries it for themselves, and is told; the others find it here, once.
                if not told:
                    _log.warning("what is to be remembered is not written yet: %s", error.message)
                told = True

    async def _turn(self, *, refresh: bool = False) -> None:
        """Do one transaction with all there is to do.

        Not in several tasks at once, so that what is asked for first is done first.
        """
        async with self._turning:
            posted, self._posted = self._posted, []
            writing = {one: job for one in self._observers if (job := one.next_job()) is not None}
            # Whoever writes alone knows what is stored afterwards.
            looks = [one.look() for one in self._observers if len(writing) > 1 or one not in writing]
            jobs = [*posted, *writing.values()]
            try:
                done, others = await trio.to_thread.run_sync(self._transact, jobs, looks, refresh)
            except BaseException:
                self._posted[:0] = posted
                raise
            for job, succeeded, result in done:
                if succeeded:
                    job.done(result)
                else:
                    job.failed(result)
            self._let_go()
            if others or any(job.writes for job, _, _ in done):
                self._changed.set()
                self._changed = trio.Event()

    def _transact(
        self, jobs: Sequence[Job], looks: Sequence[Job], refresh: bool
    ) -> tuple[list[tuple[Job, bool, Any]], bool]:
        # Before the reading: what is committed in between shows at the next look.
        version = self._database.data_version()
        others = version != self._seen
        chosen = [*jobs]
        if refresh or others or any(job.writes for job in jobs):
            chosen += looks
        done: list[tuple[Job, bool, Any]] = []
        if chosen:
            with self._database.transaction(writes=any(job.writes for job in chosen)) as connection:
                done.extend((job, *_attempt(job, connection)) for job in chosen)
        self._seen = version
        return done, others

    async def aclose(self) -> None:
        """Write what is left, and close; StateError where that fails."""
        with trio.CancelScope(shield=True):
            try:
                await self.flush()
            finally:
                await trio.to_thread.run_sync(self._database.close)


def _attempt(job: Job, connection: sqlite3.Connection) -> tuple[bool, Any]:
    import sqlite3

    connection.execute("SAVEPOINT job")
    try:
        result = job.run(connection)
    except (sqlite3.Error, StateError):
        raise  # the store's failure, not the job's
    except Exception as error:
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        return False, error
    connection.execute("RELEASE job")
    return True, result


class _Awaited:
    """A job that somebody waits for."""

    def __init__(self, function: Callable[[sqlite3.Connection], Any], writes: bool) -> None:
        self._function = function
        self.writes = writes
        self.result: object = None
        self.error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> object:
        return self._function(connection)

    def done(self, result: object) -> None:
        self.result = result

    def failed(self, error: Exception) -> None:
        self.error = error


@asynccontextmanager
async def open_store(path: str | os.PathLike[str] | None = None) -> AsyncIterator[Store]:
    """Open the store for the length of the block, at the end of which everything is written.

    Args:
        path: the database, made where there is none; None: `mobysession.state.location.state_path`; ``:memory:``: one
            that nobody else sees and that is gone at the end.

    Raises:
        StateCorrupt, StateTooNew: the database is damaged, none of ours, or a newer version's; it is left as it is.
        StateError: it cannot be made, opened, read or written; the user must act.
    """
    from mobysession.state.database import Database  # which loads sqlite3

    file = None if path == ":memory:" else Path(path) if path is not None else state_path()
    store = Store(await trio.to_thread.run_sync(Database.open, file))
    failed = True
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(store.work)
            yield store
            failed = False
            nursery.cancel_scope.cancel()
    finally:
        await _close(store, report=not failed)


async def _close(store: Store, *, report: bool) -> None:
    try:
        await store.aclose()
    except StateError as error:
        if report:
            raise
        # The block has failed already, and its reason comes first.
        _log.warning("what was to be remembered is lost: %s", error.message)

"""The store's worker: what is asked for together is written together, and what fails is kept."""

from __future__ import annotations

import sqlite3

import pytest
import trio
import trio.testing

from mobysession.errors import StateError
from mobysession.state.database import Database
from mobysession.state.store import open_store


class Post:
    """A job that nobody waits for."""

    def __init__(self, statement="", *, writes=True, error=None):
        self.statement = statement
        self.writes = writes
        self.error = error
        self.heard = []

    def run(self, connection):
        if self.error is not None:
            raise self.error
        return connection.execute(self.statement).fetchall()

    def done(self, result):
        self.heard.append(result)

    def failed(self, error):
        self.heard.append(error)


def insert(name):
    return f"INSERT INTO states VALUES ('{name}', 'id', 0)"


COUNT = "SELECT count(*) FROM states"


@pytest.fixture
def transactions(monkeypatch):
    """Count the transactions."""
    counted = []
    transaction = Database.transaction

    def count(database, **options):
        counted.append(options)
        return transaction(database, **options)

    monkeypatch.setattr(Database, "transaction", count)
    return counted


async def test_what_comes_together_is_written_together(transactions):
    """A thousand changes that nobody waits between are one transaction."""
    async with open_store() as store, store.state("s") as state:
        await store.flush()
        transactions.clear()
        for number in range(1000):
            state.set({"n": number})
        await store.flush()
        assert [options["writes"] for options in transactions].count(True) == 1


async def test_the_worker_writes_without_being_asked(autojump_clock):
    """What is posted is done soon, although nobody flushes."""
    async with open_store() as store:
        job = Post(insert("a"))
        store.post(job)
        await store.wait_for(store.change)
        assert job.heard == [[]]


async def test_nothing_happens_where_nobody_looks(monkeypatch, autojump_clock):
    """Without states and without anybody who waits, the worker does not look at the database."""
    looks = []
    version = Database.data_version

    def look(database):
        looks.append(1)
        return version(database)

    monkeypatch.setattr(Database, "data_version", look)
    async with open_store():
        await trio.sleep(1000)
        assert looks == []


async def test_run_gives_the_result_and_the_error():
    """What a function returns or raises is handed on; what it did before it raised is taken back."""
    async with open_store() as store:
        assert await store.run(lambda connection: connection.execute(COUNT).fetchone()[0], writes=False) == 0

        def fail(connection):
            connection.execute(insert("a"))
            raise KeyError("k")

        with pytest.raises(KeyError):
            await store.run(fail)
        assert await store.run(lambda connection: connection.execute(COUNT).fetchone()[0]) == 0


async def test_a_job_that_fails_harms_no_other():
    """Others of the same transaction are done."""
    async with open_store() as store:
        jobs = [Post(insert("a")), Post(error=ValueError("x")), Post(insert("b")), Post(COUNT)]
        for job in jobs:
            store.post(job)
        await store.flush()
        assert isinstance(jobs[1].heard[0], ValueError)
        assert jobs[3].heard == [[(2,)]]


async def test_what_cannot_be_written_is_kept_and_tried_again(monkeypatch, caplog, autojump_clock):
    """`flush` says why; once it can be written, it is, and nothing is lost or done twice."""
    fails = [True]
    transaction = Database.transaction

    def full(database, **options):
        if fails and options.get("writes"):
            raise StateError("the disk is full")
        return transaction(database, **options)

    monkeypatch.setattr(Database, "transaction", full)
    async with open_store() as store, store.state("s") as state:
        state.set(lambda values: {"n": values.get("n", 0) + 1})
        job = Post(insert("a"))
        store.post(job)
        with pytest.raises(StateError, match="the disk is full"):
            await store.flush()
        with pytest.raises(StateError, match="the disk is full"):
            await store.run(lambda connection: connection.execute(insert("never")))
        assert state.get() == {"n": 1}
        fails.clear()
        await trio.sleep(1)
        await trio.testing.wait_all_tasks_blocked()
        await store.flush()
        assert job.heard == [[]]
        names = await store.run(lambda connection: connection.execute("SELECT name FROM states").fetchall())
        assert sorted(names) == [("a",), ("s",)]
        assert state.get() == {"n": 1}


async def test_leaving_says_what_could_not_be_written(monkeypatch):
    """Where the last writing fails, the block ends with that error, unless it has one of its own."""

    async def use(error=None):
        async with open_store() as store:
            store.post(Post(insert("a")))
            monkeypatch.setattr(Database, "transaction", full)
            if error:
                raise error

    def full(database, **options):
        raise StateError("the disk is full")

    with pytest.raises(StateError, match="the disk is full"):
        await use()
    monkeypatch.undo()
    with pytest.raises(ZeroDivisionError):
        await use(ZeroDivisionError())


async def test_an_error_of_sqlite_is_told_in_our_words():
    """A statement that SQLite refuses is a StateError with its cause, for whoever waits."""
    async with open_store() as store:
        with pytest.raises(StateError, match="no such table") as caught:
            await store.run(lambda connection: connection.execute("SELECT * FROM nowhere"))
        assert isinstance(caught.value.__cause__, sqlite3.Error)


async def test_a_store_in_memory(database_path):
    """``:memory:`` is a store like another, and nothing is left of it."""
    async with open_store(":memory:") as store, store.state("s") as state:
        state.set({"a": 1})
        await state.flush()
        assert (state.get(), store.path) == ({"a": 1}, None)
    async with open_store(":memory:") as store, store.state("s") as state:
        assert state.get() == {}
    assert not database_path.exists()


async def test_cancelling_who_waits_leaves_the_worker_well():
    """A cancelled `run` that had not begun never happens; others go on."""
    async with open_store() as store:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.run(lambda connection: connection.execute(insert("a")))
        assert scope.cancelled_caught
        assert await store.run(lambda connection: connection.execute(COUNT).fetchone()[0]) == 0

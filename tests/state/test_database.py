"""The database file: how it is made, who may read it, and what is done with one that cannot be used."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat

import pytest

from mobysession.errors import StateCorrupt, StateError, StateTooNew
from mobysession.state import schema
from mobysession.state.database import Database
from mobysession.state.state import State
from mobysession.state.store import open_store


def make(path):
    Database.open(path).close()


def files(directory):
    return {entry.name: entry.read_bytes() for entry in directory.iterdir()}


def test_it_is_readable_by_its_user_alone(database_path, monkeypatch):
    """Directory 0700 and file 0600, whatever the umask; also the files that SQLite puts beside it."""
    before = os.umask(0)
    try:
        database = Database.open(database_path)
        with database.transaction() as connection:
            connection.execute("INSERT INTO states VALUES ('a', 'b', 0)")
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in database_path.parent.iterdir()}
    finally:
        os.umask(before)
        database.close()
    assert modes == {"memory.db": 0o600, "memory.db-shm": 0o600, "memory.db-wal": 0o600}
    assert stat.S_IMODE(database_path.parent.stat().st_mode) == 0o700


def test_making_it_leaves_nothing_else(database_path):
    """The database is made beside its place and linked there; nothing of that stays."""
    make(database_path)
    assert list(files(database_path.parent)) == ["memory.db"]


def test_of_two_that_make_it_the_first_wins(database_path, monkeypatch):
    """Where another process was faster, its database is used and what it holds stays."""
    link = os.link

    def be_late(source, target):
        monkeypatch.setattr(os, "link", link)
        database = Database.open(database_path)
        with database.transaction() as connection:
            connection.execute("INSERT INTO states VALUES ('first', 'b', 0)")
        database.close()
        link(source, target)

    monkeypatch.setattr(os, "link", be_late)
    database = Database.open(database_path)
    with database.transaction(writes=False) as connection:
        found = connection.execute("SELECT name FROM states").fetchall()
    database.close()
    assert found == [("first",)]
    assert list(files(database_path.parent)) == ["memory.db"]


def test_it_is_written_ahead_and_synchronously(database_path):
    """The journal is WAL and a commit is on the disk when it returns."""
    database = Database.open(database_path)
    with database.transaction(writes=False) as connection:
        modes = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    database.close()
    assert modes == ["wal", 2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty, and no database"),
        (b"no database at all, but quite long" * 100, "is damaged: file is not a database"),
        (b"SQLite format 3\0" + b"\xff" * 4080, "is damaged"),
    ],
)
async def test_what_is_no_database_is_left_alone(database_path, content, reason):
    """A file that SQLite cannot read is named in a StateCorrupt, with a way out, and not one byte of it changes."""
    database_path.parent.mkdir(parents=True)
    database_path.write_bytes(content)
    with pytest.raises(StateCorrupt, match=reason) as caught:
        async with State("s"):
            pass
    assert str(database_path) in caught.value.message
    assert "Move it away" in str(caught.value.hint)
    assert files(database_path.parent) == {"memory.db": content}


async def test_a_damaged_page_is_found_before_anything_is_written(database_path):
    """Damage behind an intact header is found when the store is opened, and the file stays as it is."""
    make(database_path)
    content = database_path.read_bytes()
    database_path.write_bytes(content[:4096] + b"\xee" * 4096 + content[8192:])
    before = files(database_path.parent)
    with pytest.raises(StateCorrupt, match="is damaged"):
        async with open_store():
            pass
    assert files(database_path.parent) == before


async def test_a_truncated_file_is_found(database_path):
    """A file that has lost its end is damaged."""
    make(database_path)
    os.truncate(database_path, 8192)
    with pytest.raises(StateCorrupt, match="is damaged"):
        async with open_store():
            pass


async def test_a_value_that_is_no_json_is_damage(database_path):
    """What somebody else wrote into a table is not guessed at."""
    make(database_path)
    connection = sqlite3.connect(database_path)
    connection.execute("INSERT INTO state_values VALUES ('s', 'k', '{broken')")
    connection.commit()
    connection.close()
    with pytest.raises(StateCorrupt, match="state 's' cannot be read"):
        async with State("s"):
            pass


def test_a_newer_database_is_left_alone(database_path):
    """One that has taken more steps than this version knows is refused by its number, and stays as it is."""
    make(database_path)
    connection = sqlite3.connect(database_path)
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.commit()
    connection.close()
    before = files(database_path.parent)
    with pytest.raises(StateTooNew, match=f"has version {schema.VERSION + 1}, this one knows {schema.VERSION}"):
        Database.open(database_path)
    assert files(database_path.parent) == before


def test_a_database_that_becomes_newer_is_not_written(database_path):
    """A process that has it open writes nothing any more once a newer version has changed the tables."""
    database = Database.open(database_path)
    connection = sqlite3.connect(database_path)
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.commit()
    connection.close()
    with pytest.raises(StateTooNew), database.transaction() as inner:
        inner.execute("INSERT INTO states VALUES ('a', 'b', 0)")
    database.close()


def test_another_programs_database_is_left_alone(database_path):
    """SQLite alone does not make it ours."""
    database_path.parent.mkdir(parents=True)
    connection = sqlite3.connect(database_path)
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.commit()
    connection.close()
    before = files(database_path.parent)
    with pytest.raises(StateCorrupt, match="is a database of another program"):
        Database.open(database_path)
    assert files(database_path.parent) == before


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_an_older_database_is_brought_up_to_date(database_path, monkeypatch, version):
    """Each older version takes the steps that it lacks, keeps what it holds, and has the tables of a new one."""
    with monkeypatch.context() as older:
        older.setattr("mobysession.state.database.VERSION", version)
        database = Database.open(database_path)
    with monkeypatch.context() as older:
        older.setattr("mobysession.state.database.VERSION", version)
        with database.transaction() as connection:
            connection.execute("INSERT INTO states VALUES ('kept', 'id', 1)")
    database.close()
    database = Database.open(database_path)
    with database.transaction(writes=False) as connection:
        assert connection.execute("SELECT name FROM states").fetchall() == [("kept",)]
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    database.close()
    assert {"states", "state_values", "sessions", "inbox", "inbox_pending"} <= tables


def test_a_step_that_fails_is_taken_back(database_path, monkeypatch):
    """Of steps that do not all succeed none is taken."""
    with monkeypatch.context() as older:
        older.setattr("mobysession.state.database.VERSION", 1)
        make(database_path)
    with monkeypatch.context() as broken:
        broken.setattr("mobysession.state.database.STEPS", (*schema.STEPS[:2], "CREATE TABLE states (x)"))
        with pytest.raises(StateError, match="already exists"):
            Database.open(database_path)
    connection = sqlite3.connect(database_path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT * FROM sqlite_master WHERE name = 'sessions'").fetchall() == []
    connection.close()
    make(database_path)


def test_a_transaction_is_all_or_nothing(database_path):
    """What the block raises comes out as it is, and nothing of the block has happened."""
    database = Database.open(database_path)

    def fail():
        with database.transaction() as connection:
            connection.execute("INSERT INTO states VALUES ('a', 'b', 0)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.transaction(writes=False) as connection:
        assert connection.execute("SELECT count(*) FROM states").fetchone() == (0,)
    database.close()


def test_a_database_that_is_held_for_too_long(database_path):
    """Who waits for another process longer than the bound is told so."""
    holder = Database.open(database_path)
    waiter = Database.open(database_path, busy=0)
    with (
        holder.transaction(),
        pytest.raises(StateError, match="is held by another process"),
        waiter.transaction(),
    ):
        pass
    holder.close()
    waiter.close()


def test_a_place_that_cannot_be_written(tmp_path):
    """Where no database can be made the path and the reason are told."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=f"cannot be made or opened: {os.strerror(errno.EEXIST)}"):
        Database.open(tmp_path / "file" / "memory.db")


@pytest.mark.parametrize("name", ["with space", "per%20cent", "que?stion#mark", "é\udcff"])
def test_any_path_will_do(tmp_path, name):
    """What stands in a path means nothing to SQLite."""
    path = tmp_path / name / "memory.db"
    make(path)
    assert list(files(path.parent)) == ["memory.db"]
    make(path)


def test_what_cannot_be_made_leaves_nothing(database_path, monkeypatch):
    """Neither the database nor what SQLite keeps beside it, which it leaves there where the disk is full."""
    others = []

    class Steps:
        def __getitem__(self, number):
            # Somebody else has it open, so that SQLite does not clean up.
            (path,) = database_path.parent.glob("*.new")
            other = sqlite3.connect(path)
            others.append(other)
            other.execute("SELECT * FROM sqlite_master").fetchall()
            return "NONSENSE"

    monkeypatch.setattr("mobysession.state.database.STEPS", Steps())
    try:
        with pytest.raises(StateError, match=r"memory\.db cannot be used: near"):
            make(database_path)
        assert files(database_path.parent) == {}
    finally:
        for other in others:
            other.close()

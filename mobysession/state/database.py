"""The database file: made, opened, brought up to date, and written in transactions. Everything here blocks.

SQLite in WAL mode, because then readers never wait for a writer, and a process that is killed in the middle of a write
leaves only frames behind which the next one ignores. ``synchronous=FULL`` has a commit on the disk when it returns. A
new database is made beside its place and linked there when it is whole, so that no other process ever finds a half of
one, and so that nothing can be overwritten.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mobysession import limits
from mobysession.errors import StateCorrupt, StateError, StateTooNew
from mobysession.state.schema import APPLICATION_ID, STEPS, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Database", "describe"]

_DAMAGED = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_BUSY = frozenset((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED))


class Database:
    """One connection to the database; used by one thread at a time, whichever. Made by `open`."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path | None, *, busy: float = limits.STATE_BUSY, check: bool = True) -> Database:
        """Open the database at ``path``, and make it where there is none; None: one in memory.

        Args:
            path: the file; its directory is made too, for this user alone.
            busy: seconds that a transaction waits for another process.
            check: look through the whole file for damage.

        Raises:
            StateCorrupt, StateTooNew: it is damaged, none of ours, or a newer version's; it has not been touched.
            StateError: it cannot be made, opened or read; the user must act.
        """
        if path is None:
            database = cls(_connect(":memory:", busy), None)
            database._migrate()
            return database
        try:
            if not path.exists():
                _create(path, busy)
            empty = path.stat().st_size == 0
        except OSError as error:
            raise StateError(f"{path} cannot be made or opened: {error.strerror}") from error
        if empty:
            # SQLite would take it for a new one, and nobody would hear that something is lost.
            raise StateCorrupt(f"{path} is empty, and no database", hint="Move it away; what it held is lost.")
        return cls._open_existing(path, busy, check)

    @classmethod
    def _open_existing(cls, path: Path, busy: float, check: bool) -> Database:
        with _told(path):
            database = cls(_connect(f"{path.absolute().as_uri()}?mode=rw", busy), path)
        try:
            with _told(path):
                database._examine(check)
            database._migrate()
        except BaseException:
            database.close()
            raise
        return database

    def _examine(self, check: bool) -> None:
        self._refuse_foreign(self._number("application_id"))
        self._refuse_newer(self._number("user_version"))
        if check and (found := self._connection.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
            raise self._damaged(str(found[0]) if found else "it cannot be checked")

    def _refuse_foreign(self, application: int) -> None:
        if application != APPLICATION_ID:
            raise StateCorrupt(f"{self.path} is a database of another program", hint="Move it away.")

    def _refuse_newer(self, version: int) -> None:
        if version > VERSION:
            raise StateTooNew(
                f"{self.path} was made by a newer mobysession: it has version {version}, this one knows {VERSION}",
                hint="Use the newer one, or move the file away to begin anew.",
            )

    def _damaged(self, reason: str) -> StateCorrupt:
        return _corrupt(self.path, reason)

    def _number(self, pragma: str) -> int:
        return int(self._connection.execute(f"PRAGMA {pragma}").fetchone()[0])

    def _migrate(self) -> None:
        """Take the steps that are missing, all or none."""
        if self._number("user_version") == VERSION:
            return
        with self.transaction() as connection:
            # Another process may have been faster.
            for number in range(self._number("user_version"), VERSION):
                for statement in STEPS[number].split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def transaction(self, *, writes: bool = True) -> Iterator[sqlite3.Connection]:
        """Run the block in one transaction, which is on the disk when it is left; an error in it takes all back.

        Raises:
            StateError: the database cannot be read or written; nothing of the block has happened.
            StateTooNew: a newer version has changed the database in the meantime.
        """
        with _told(self.path):
            self._connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            try:
                self._refuse_newer(self._number("user_version"))
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # some errors have rolled back already
                    self._connection.execute("ROLLBACK")
                raise

    def data_version(self) -> int:
        """Return a number that changes whenever another connection has committed something."""
        with _told(self.path):
            return self._number("data_version")

    def close(self) -> None:
        """Close the connection; the last of all processes merges the log into the file."""
        with suppress(sqlite3.Error):  # what was committed is safe, and for the rest it is too late
            self._connection.close()


def _connect(name: str, busy: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        name, timeout=busy, isolation_level=None, check_same_thread=False, uri=name.startswith("file:")
    )
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _create(path: Path, busy: float) -> None:
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.urandom(8).hex()}.new")
    try:
        os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with _told(path):
            database = Database(_connect(scratch.absolute().as_uri(), busy), path)
            try:
                database._connection.execute("PRAGMA journal_mode = WAL")
                database._migrate()
            finally:
                database.close()
        # A link refuses to replace: of two processes that start at once, both use the file that came first.
        with suppress(FileExistsError):
            os.link(scratch, path)
        _sync_directory(path.parent)
    finally:
        # SQLite leaves its own files where the disk is full.
        for suffix in ("", "-wal", "-shm"):
            scratch.with_name(scratch.name + suffix).unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told(path: Path | None) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise describe(error, path) from error


def describe(error: sqlite3.Error, path: Path | None) -> StateError:
    """Return what an error of SQLite means for whoever has to act."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGED:
        return _corrupt(path, str(error))
    if code in _BUSY:
        return StateError(f"{path} is held by another process", hint="See which: fuser, or lsof, on that file.")
    if code == sqlite3.SQLITE_FULL:
        return StateError(f"{path} cannot be written: the disk is full")
    hint = "The disk may be full." if code == sqlite3.SQLITE_IOERR else None
    return StateError(f"{path} cannot be used: {error}", hint=hint)


def _corrupt(path: Path | None, reason: str) -> StateCorrupt:
    return StateCorrupt(
        f"{path} is damaged: {reason}", hint="Move it away, with its -wal and -shm, to begin anew; it was not changed."
    )

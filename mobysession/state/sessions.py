"""Which sessions are attached on this machine, by whichever process of this user.

A process announces each of its sessions, with a socket on which it answers questions about it, and withdraws it at the
end. One that was killed cannot; whoever looks next recognises that it is gone and takes away what it left.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from mobysession.state.processes import is_gone

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from mobysession.state.store import Store

__all__ = ["SessionAnnouncement", "SessionDirectory"]

_log = logging.getLogger("mobysession.state")
_COLUMNS = "session_id, endpoint, created, socket, pid, process"


@dataclass(frozen=True, kw_only=True)
class SessionAnnouncement:
    """An attached session.

    Attributes:
        session_id: of the session.
        endpoint: the daemon, as it is shown.
        created: seconds since the epoch.
        socket: where its process answers; see `mobysession.session.local`.
        pid: of its process.
        process: see `mobysession.state.processes.process_token`.
    """

    session_id: str
    endpoint: str
    created: float
    socket: str
    pid: int
    process: str


class SessionDirectory:
    """The announcements in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def announce(self, announcement: SessionAnnouncement) -> None:
        """Write a session down, soon; in place of an earlier one of the same ID."""
        row = astuple(announcement)
        statement = f"INSERT OR REPLACE INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 - a constant
        self._store.post(_Execute(lambda connection: connection.execute(statement, row)))

    def withdraw(self, announcement: SessionAnnouncement) -> None:
        """Take an announcement back, soon; not one that somebody else has made of the same session since."""
        self._store.post(_Execute(lambda connection: _delete(connection, announcement)))

    async def list(self) -> list[SessionAnnouncement]:
        """Return the sessions whose processes live, oldest first, and take away what dead ones left.

        Raises:
            StateError: the store cannot be read or written.
        """
        return await self._store.run(_living)

    async def find(self, session_id: str) -> SessionAnnouncement | None:
        """Return the announcement of a session whose process lives; None where there is none.

        Raises:
            StateError: the store cannot be read or written.
        """
        return next((one for one in await self.list() if one.session_id == session_id), None)


def _living(connection: sqlite3.Connection) -> list[SessionAnnouncement]:
    names = _COLUMNS.split(", ")
    rows = connection.execute(f"SELECT {_COLUMNS} FROM sessions ORDER BY created, session_id")  # noqa: S608 - a constant
    living = []
    for row in rows.fetchall():
        announcement = SessionAnnouncement(**dict(zip(names, row, strict=True)))
        if is_gone(announcement.pid, announcement.process):
            _delete(connection, announcement)
            _remove_socket(announcement.socket)
        else:
            living.append(announcement)
    return living


def _delete(connection: sqlite3.Connection, announcement: SessionAnnouncement) -> None:
    connection.execute(
        "DELETE FROM sessions WHERE session_id = ? AND pid = ? AND process = ? AND socket = ?",
        (announcement.session_id, announcement.pid, announcement.process, announcement.socket),
    )


def _remove_socket(path: str) -> None:
    # Nothing but a socket: what stands in a database is no reason to remove anything else.
    with suppress(OSError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


class _Execute:
    """A job that nobody waits for."""

    writes = True

    def __init__(self, function: Callable[[sqlite3.Connection], object]) -> None:
        self._function = function

    def run(self, connection: sqlite3.Connection) -> object:
        return self._function(connection)

    def done(self, result: object) -> None:
        pass

    def failed(self, error: Exception) -> None:
        # A path that is no text, as of a directory with such a name: no reason to end the sessions themselves.
        _log.warning("a session could not be written down: %s", type(error).__name__)

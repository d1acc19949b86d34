"""The tables of the store, and how a database of an older version becomes one of this.

``user_version`` of the database counts the steps that it has taken; a version of mobysession knows the steps up to its
own, takes those that are missing, in one transaction, and refuses a database that has taken more.
"""

from __future__ import annotations

from typing import Final

__all__ = ["APPLICATION_ID", "STEPS", "VERSION"]

#: "mobs", by which file(1) and we tell our databases from others.
APPLICATION_ID: Final = 0x6D6F6273

#: What makes version n of version n - 1.
STEPS: Final = (
    # 1: observable states. A value is JSON; NULL stands for a key that was taken away although it has a default.
    """
    CREATE TABLE states (name TEXT PRIMARY KEY, id TEXT NOT NULL, created REAL NOT NULL);
    CREATE TABLE state_values (
        state TEXT NOT NULL, key TEXT NOT NULL, value TEXT, PRIMARY KEY (state, key)
    ) WITHOUT ROWID
    """,
    # 2: sessions that are attached somewhere, by the process that holds them.
    """
    CREATE TABLE sessions (
        session_id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, created REAL NOT NULL,
        socket TEXT NOT NULL, pid INTEGER NOT NULL, process TEXT NOT NULL
    )
    """,
    # 3: what children tell their parents.
    """
    CREATE TABLE inbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT, parent_session_id TEXT NOT NULL, sender TEXT NOT NULL,
        message TEXT NOT NULL, created REAL NOT NULL, processed REAL
    );
    CREATE INDEX inbox_pending ON inbox (parent_session_id, id) WHERE processed IS NULL
    """,
)

#: The version that this mobysession makes and reads.
VERSION: Final = len(STEPS)

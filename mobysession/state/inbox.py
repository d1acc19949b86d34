"""What sessions tell their parents, kept until the parent has processed it, whoever of the two is alive."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mobysession import limits
from mobysession.errors import UsageError
from mobysession.state.steps import storable

if TYPE_CHECKING:
    import sqlite3

    from mobysession.state.store import Store

__all__ = ["InboxMessage", "InboxStorage"]

_ID = "a session ID"


@dataclass(frozen=True, kw_only=True)
class InboxMessage:
    """One message.

    Attributes:
        id: to mark it by; later ones have higher ones.
        parent_session_id: whose it is.
        message: what is said: a JSON value.
        created: seconds since the epoch.
        sender: session ID of the child; empty where it did not say.
    """

    id: int
    parent_session_id: str
    message: Any
    created: float
    sender: str = ""


class InboxStorage:
    """The inboxes in a store; each method raises StateError where that cannot be read or written."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, parent_session_id: str, message: object, *, sender: str = "") -> int:
        """Put a message into a session's inbox and return its ID; it is durable then.

        Raises:
            UsageError: it is none that JSON has, or larger than `limits.MAX_INBOX_MESSAGE`; or an ID is no text.
        """
        text = _text(message)
        storable(parent_session_id, _ID)
        storable(sender, _ID)
        now = time.time()

        def put(connection: sqlite3.Connection) -> int:
            # Here, so that an inbox which nobody writes to costs nothing.
            connection.execute("DELETE FROM inbox WHERE processed < ?", (now - limits.INBOX_KEPT,))
            cursor = connection.execute(
                "INSERT INTO inbox (parent_session_id, sender, message, created) VALUES (?, ?, ?, ?)",
                (parent_session_id, sender, text, now),
            )
            assert cursor.lastrowid is not None  # a row was inserted
            return cursor.lastrowid

        return await self._store.run(put)

    async def pending(self, parent_session_id: str) -> list[InboxMessage]:
        """Return what has not been processed, oldest first."""
        storable(parent_session_id, _ID)
        return await self._store.run(lambda connection: _pending(connection, parent_session_id), writes=False)

    async def mark(self, *ids: int) -> None:
        """Mark messages as processed; it is durable then. To do so again changes nothing."""
        now = time.time()
        await self._store.run(
            lambda connection: connection.executemany(
                "UPDATE inbox SET processed = ? WHERE id = ? AND processed IS NULL", [(now, one) for one in ids]
            )
        )

    async def wait(self, parent_session_id: str) -> list[InboxMessage]:
        """Return what has not been processed as soon as there is any, from whichever process."""
        while True:
            # Taken before the look, so that what comes after it is not missed.
            change = self._store.change
            if found := await self.pending(parent_session_id):
                return found
            await self._store.wait_for(change)


def _text(message: object) -> str:
    try:
        text = json.dumps(message, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"a message of an inbox is JSON: {error}") from error
    if len(text) > limits.MAX_INBOX_MESSAGE:
        raise UsageError(f"a message of an inbox has at most {limits.MAX_INBOX_MESSAGE} bytes, not {len(text)}")
    return text


def _pending(connection: sqlite3.Connection, parent_session_id: str) -> list[InboxMessage]:
    rows = connection.execute(
        "SELECT id, sender, message, created FROM inbox WHERE parent_session_id = ? AND processed IS NULL ORDER BY id",
        (parent_session_id,),
    )
    return [
        InboxMessage(
            id=number, parent_session_id=parent_session_id, message=json.loads(text), created=created, sender=sender
        )
        for number, sender, text, created in rows.fetchall()
    ]

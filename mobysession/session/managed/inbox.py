"""Messages between sessions that outlive both: the child leaves them in a storage, the parent takes them from there."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mobysession.session.managed.session import ManagedSession

__all__ = ["InboxEntry", "InboxStorage", "process_inbox"]

_log = logging.getLogger("mobysession.session")


class InboxEntry(Protocol):
    """A message that waits."""

    @property
    def id(self) -> int:
        """By which it is marked."""

    @property
    def message(self) -> Any:
        """What was left."""

    @property
    def sender(self) -> str:
        """The ID of the session that left it; empty where it is not known."""


class InboxStorage(Protocol):
    """Where they are kept; `mobysession.state.inbox.InboxStorage` is one."""

    async def put(self, parent_session_id: str, message: object, *, sender: str = "") -> int:
        """Keep a message; durable when it returns."""

    async def wait(self, parent_session_id: str) -> Sequence[InboxEntry]:
        """Return what waits for a session, oldest first, when there is something."""

    async def mark(self, *ids: int) -> None:
        """Take messages for processed; durable when it returns."""


async def process_inbox(
    session: ManagedSession, storage: InboxStorage, on_message: Callable[[Any], Awaitable[None] | None]
) -> None:
    """Give ``on_message`` what waits for a session and what comes, from when it is attached on.

    A message whose processing fails is given again to whoever resumes the session, and no other overtakes it.
    """
    await session.wait_resolved()
    while True:
        for entry in await storage.wait(session.id):
            session.feed.publish("inbox_message", entry)
            try:
                done = on_message(entry.message)
                if isinstance(done, Awaitable):
                    await done
            except Exception as error:  # of any kind: the function is not ours
                _log.warning("a message for session %s could not be processed: %s", session.id, type(error).__name__)
                return
            await storage.mark(entry.id)

"""The session in whose scope a task runs, and its ID on every log record that is made there.

The scope is a context variable, which tasks inherit from whoever starts them, whichever nursery they are started in.
The session's own tasks enter it themselves, so that the handlers of its calls and what its requests start run in it.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.session.managed.session import ManagedSession

__all__ = ["LOGGERS", "ambient", "current_session", "name_sessions_in_logs"]

#: Who logs: a filter of the logger above them would not see their records.
LOGGERS: Final = tuple(
    f"mobysession.{room}"
    for room in (
        *("bake", "build", "buildkit", "cli", "dockerconfig", "filesync", "progress", "rpc", "services", "session"),
        *("state", "testing.engine", "transport"),
    )
)
_current: ContextVar[ManagedSession | None] = ContextVar("mobysession_session", default=None)


def current_session() -> ManagedSession:
    """Return the session in whose scope this is called.

    Raises:
        UsageError: it is called outside of any.
    """
    session = _current.get()
    if session is None:
        raise UsageError("there is no current session", hint="Call it inside of `async with manager.create(...)`.")
    return session


@contextmanager
def ambient(session: ManagedSession) -> Iterator[None]:
    """Make ``session`` the current one for the length of the block."""
    token = _current.set(session)
    try:
        yield
    finally:
        _current.reset(token)


def name_sessions_in_logs() -> None:
    """Let our log records have the attribute ``session_id`` from now on; empty outside of any session."""
    for name in LOGGERS:
        # Once: the same filter is not added again.
        logging.getLogger(name).addFilter(_name_session)


def _name_session(record: logging.LogRecord) -> bool:
    if not hasattr(record, "session_id"):
        session = _current.get()
        record.session_id = "" if session is None else session.id
    return True

"""What happens on a session, as values: frozen, comparable, the same words for every listener."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobysession.errors import MobysessionError, StatusCode

__all__ = ["AccessDecided", "CallEnded", "CallStarted", "SessionEnded", "SessionEvent", "SessionReady"]


@dataclass(frozen=True, kw_only=True)
class SessionEvent:
    """The common part: which session, and when (seconds since the epoch)."""

    session_id: str
    time: float = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class SessionReady(SessionEvent):
    """The daemon's HTTP/2 SETTINGS have arrived; ``settings`` has them by name."""

    settings: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class CallStarted(SessionEvent):
    """The daemon called ``method``; ``call_id`` numbers the calls of a session from 1."""

    call_id: int
    method: str


@dataclass(frozen=True, kw_only=True)
class CallEnded(SessionEvent):
    """A call was answered, or ended otherwise.

    ``code`` is what the daemon was told, ``message`` its text, ``duration`` seconds, ``received`` and ``sent`` bytes
    of gRPC messages. ``error`` is the local failure behind a code other than OK, where there was one.
    """

    call_id: int
    method: str
    code: StatusCode
    message: str = ""
    duration: float = field(compare=False)
    received: int = 0
    sent: int = 0
    error: BaseException | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class AccessDecided(SessionEvent):
    """A call was allowed or refused before it was served; see `mobysession.session.access`.

    ``kind`` and ``subject`` say what it asked for, as ``secret`` and its ID. ``by`` is what decided: ``rule`` for globs
    of methods, ``offer`` where there is no such thing on this session, ``approval`` for a function or a person.
    ``reason`` is empty where it was allowed.
    """

    call_id: int
    method: str
    kind: str
    subject: str
    allowed: bool
    by: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class SessionEnded(SessionEvent):
    """The session is over; ``error`` says why when it did not end on request."""

    error: MobysessionError | None = field(default=None, compare=False)

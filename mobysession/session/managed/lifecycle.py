"""The statuses of a managed session, and which may follow which.

::

    opening -> ready -> streaming <-> idle
       ^         |          |          |
       +---------+----------|----------+     attached anew, because a request brings methods that
       |                    |                the daemon was not told of
       +---- any of them ---+--> closing -> closed
                            +--> failed

What is not in the table does not happen; to try it is a fault of ours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from mobysession.errors import LocalProtocolError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TERMINAL", "TRANSITIONS", "Lifecycle", "SessionInfo", "SessionSnapshot", "SessionStatus"]

SessionStatus = Literal["opening", "ready", "streaming", "idle", "closing", "closed", "failed"]

#: What may follow.
TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    "opening": frozenset({"ready", "streaming", "idle", "closing", "failed"}),
    "ready": frozenset({"opening", "streaming", "closing", "failed"}),
    "streaming": frozenset({"opening", "idle", "closing", "failed"}),
    "idle": frozenset({"opening", "streaming", "closing", "failed"}),
    "closing": frozenset({"closed", "failed"}),
    "closed": frozenset(),
    "failed": frozenset(),
}
#: Those that nothing follows.
TERMINAL: Final = frozenset({"closed", "failed"})


class Lifecycle:
    """The status of one session; ``on_change`` is called after each change with the old and the new one."""

    def __init__(self, on_change: Callable[[SessionStatus, SessionStatus], None]) -> None:
        self.status: SessionStatus = "opening"
        self._on_change = on_change

    def move(self, status: SessionStatus) -> None:
        """Take a status; the same again is no change.

        Raises:
            LocalProtocolError: it cannot follow the present one.
        """
        before = self.status
        if status == before:
            return
        if status not in TRANSITIONS[before]:
            raise LocalProtocolError(f"a session that is {before} cannot become {status}")
        self.status = status
        self._on_change(before, status)


@dataclass(frozen=True, kw_only=True)
class SessionInfo:
    """What is known of a session at one moment.

    Attributes:
        session_id: the session's ID, which the daemon has confirmed from ``ready`` on.
        status: one of `SessionStatus`.
        created_at: seconds since the epoch; of the first one, where it was resumed.
        last_activity: when something last happened on it: a call of the daemon's, a run's beginning or end.
        endpoint: the daemon, in words.
        resumed_from: the ID of the session that this one goes on with; None where it was made anew.
        options: the options that its runs begin with.
    """

    session_id: str
    status: SessionStatus
    created_at: float
    last_activity: float
    endpoint: str
    resumed_from: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def age(self) -> float:
        """Seconds since it was made."""
        return time.time() - self.created_at


@dataclass(frozen=True, kw_only=True)
class SessionSnapshot:
    """What a session is resumed from, in this process or another one: JSON values and nothing secret.

    Requests, services and their secrets are no part of it; they are given anew. The shared key names directories to the
    engine and is worthless elsewhere.

    Attributes:
        session_id, shared_key, name: under which the daemon knows it.
        created_at: as in `SessionInfo`.
        runs: how many there were; the next one has the next number.
        sequence: how many events; the next one has the next number.
        parent_session_id: of the session that this one works for; None where there is none.
        metadata: its labels.
        options: those that its runs begin with, as far as they are JSON values.
    """

    session_id: str
    shared_key: str = ""
    name: str = ""
    created_at: float = 0.0
    runs: int = 0
    sequence: int = 0
    parent_session_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SessionSnapshot:
        """Return what `to_json` made; UsageError where it did not."""
        if not isinstance(value, Mapping):
            raise UsageError(f"a snapshot of a session is an object of JSON, and not of type {type(value).__name__}")
        wrong = [name for name in value if name not in _FIELDS or not _FIELDS[name](value[name])]
        if not value.get("session_id"):
            wrong.append("session_id")
        if wrong:
            raise UsageError(f"this is no snapshot of a session: {wrong[0]!r} makes no sense")
        return cls(**value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_options(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value))


def _is_labels(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, (*value, *value.values())))


#: What each field of a snapshot may be.
_FIELDS: Final[dict[str, Callable[[object], bool]]] = {
    "session_id": _is_text,
    "shared_key": _is_text,
    "name": _is_text,
    "created_at": _is_time,
    "runs": _is_count,
    "sequence": _is_count,
    "parent_session_id": lambda value: value is None or _is_text(value),
    "metadata": _is_labels,
    "options": _is_options,
}

"""Sessions as resources: a manager that makes them, their runs, children, approvals, channels and snapshots.

Names load on first use: whoever only builds an image loads none of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobysession.session.managed.ambient import current_session
    from mobysession.session.managed.approvals import ApprovalAsked, ApprovalSettled
    from mobysession.session.managed.channels import Channel, QueueChanged
    from mobysession.session.managed.config import SessionConfig
    from mobysession.session.managed.counters import Counters
    from mobysession.session.managed.feed import ManagedEvent
    from mobysession.session.managed.handle import RunHandle
    from mobysession.session.managed.inspection import SessionInspection
    from mobysession.session.managed.lifecycle import SessionInfo, SessionSnapshot
    from mobysession.session.managed.manager import SessionManager
    from mobysession.session.managed.methods import MethodInfo
    from mobysession.session.managed.middleware import Operation
    from mobysession.session.managed.registry import (
        EventsMissed,
        SessionClosed,
        SessionCreated,
        SessionFailed,
        SessionIdResolved,
    )
    from mobysession.session.managed.runs import SchedulerState
    from mobysession.session.managed.session import ManagedSession

_HOMES = {
    "ApprovalAsked": "approvals",
    "ApprovalSettled": "approvals",
    "Channel": "channels",
    "Counters": "counters",
    "EventsMissed": "registry",
    "ManagedEvent": "feed",
    "ManagedSession": "session",
    "MethodInfo": "methods",
    "Operation": "middleware",
    "QueueChanged": "channels",
    "RunHandle": "handle",
    "SchedulerState": "runs",
    "SessionClosed": "registry",
    "SessionConfig": "config",
    "SessionCreated": "registry",
    "SessionFailed": "registry",
    "SessionIdResolved": "registry",
    "SessionInfo": "lifecycle",
    "SessionInspection": "inspection",
    "SessionManager": "manager",
    "SessionSnapshot": "lifecycle",
    "current_session": "ambient",
}

__all__ = [
    "ApprovalAsked",
    "ApprovalSettled",
    "Channel",
    "Counters",
    "EventsMissed",
    "ManagedEvent",
    "ManagedSession",
    "MethodInfo",
    "Operation",
    "QueueChanged",
    "RunHandle",
    "SchedulerState",
    "SessionClosed",
    "SessionConfig",
    "SessionCreated",
    "SessionFailed",
    "SessionIdResolved",
    "SessionInfo",
    "SessionInspection",
    "SessionManager",
    "SessionSnapshot",
    "current_session",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value

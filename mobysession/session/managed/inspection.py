"""How a managed session is at one moment, for whoever has to find out why nothing goes on. Nothing in it is secret."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mobysession.session.managed.methods import Methods, audience_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobysession.rpc.inspection import CallInspection, Inspection
    from mobysession.session.access import AccessRequest
    from mobysession.session.managed.lifecycle import SessionInfo
    from mobysession.session.managed.runs import SchedulerState
    from mobysession.session.managed.session import ManagedSession

__all__ = ["ServiceState", "SessionInspection", "inspect_session", "json_value"]


@dataclass(frozen=True, kw_only=True)
class ServiceState:
    """A service: its class, its methods, for whom it is, and how many calls of each method have ended."""

    name: str
    methods: tuple[str, ...]
    audience: str
    calls: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SessionInspection:
    """A session.

    Attributes:
        info: its status and what else is known of it.
        connection: the connection, with its windows, queues and last frames; None while it is not attached.
        calls: the daemon's calls that are open, those of builds too.
        outputs: what the latest requests wrote, latest last.
        totals: bytes received and sent in messages, calls that have ended, requests done, steps that came from a cache.
        services: what is hosted.
        scheduler: what goes on with its requests.
        approvals: what waits for a decision.
        children: IDs of the sessions that it has spawned and that live.
        parent_session_id: of the session that it works for.
    """

    info: SessionInfo
    connection: Inspection | None
    calls: tuple[CallInspection, ...]
    outputs: tuple[str, ...]
    totals: Mapping[str, int]
    services: tuple[ServiceState, ...]
    scheduler: SchedulerState
    approvals: tuple[AccessRequest, ...]
    children: tuple[str, ...]
    parent_session_id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; what has no such form, as text."""
        found = json_value(asdict(self))
        assert isinstance(found, dict)
        found["info"]["age"] = self.info.age
        return found


def inspect_session(session: ManagedSession) -> SessionInspection:
    """Return how ``session`` is; changes nothing."""
    connection = session.bare.inspect() if session.bare.attachment is not None else None
    attached = [one for one in (session.bare, *session.companions) if one.attachment is not None]
    tally = session.tally
    return SessionInspection(
        info=session.info,
        connection=connection,
        calls=tuple(call for one in attached for call in one.inspect().calls),
        outputs=tuple(session.outputs),
        totals={
            "bytes_received": tally.bytes_received,
            "bytes_sent": tally.bytes_sent,
            "calls": sum(tally.callbacks.values()),
            "requests": session.scheduler_state.done,
            "cache_hits": session.cache_hits,
        },
        services=tuple(
            _service_state(session, service) for layer in (session.services, *session.hosted) for service in layer
        ),
        scheduler=session.scheduler_state,
        approvals=session.approvals.pending,
        children=tuple(child.id for child in session.children),
        parent_session_id=session.parent_session_id,
    )


def _service_state(session: ManagedSession, service: Any) -> ServiceState:
    methods = Methods(session.id, (service,)).names
    counts = {name.lower(): count for name, count in session.tally.callbacks.items()}
    return ServiceState(
        name=type(service).__name__,
        methods=methods,
        audience=audience_of(service),
        calls={name: counts[name.lower()] for name in methods if name.lower() in counts},
    )


def json_value(value: object) -> Any:
    """Return ``value`` as JSON has it, in which what has no such form is text."""
    if isinstance(value, dict):
        return {str(key): json_value(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)

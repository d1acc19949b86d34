"""What a managed session is made from, by a manager or by the session that spawns it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobysession.rpc.registrar import Attachable
    from mobysession.session.attach import Dialer
    from mobysession.session.managed.config import SessionConfig
    from mobysession.session.managed.counters import Tally
    from mobysession.session.managed.lifecycle import SessionSnapshot
    from mobysession.session.managed.registry import Registry
    from mobysession.session.managed.session import ManagedSession

__all__ = ["Origin"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a managed session is made from.

    Attributes:
        config: the defaults, with what was overridden.
        dialer: gets its stream; ``where`` is the daemon in words.
        services: what it hosts.
        session_id, shared_key, name: as for `mobysession.session.session.Session`.
        metadata: its labels; ``options``: those that its runs begin with.
        parent: the session that spawned it; ``depth`` counts the generations above it.
        parent_session_id: of the session that it works for.
        snapshot: what it goes on with, where it is resumed.
        registry: is told of it; None for a child.
        tally: where what it does is counted too.
    """

    config: SessionConfig
    dialer: Dialer
    where: str
    services: tuple[Attachable, ...]
    session_id: str | None = None
    shared_key: str = ""
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    parent: ManagedSession | None = None
    depth: int = 1
    parent_session_id: str | None = None
    snapshot: SessionSnapshot | None = None
    registry: Registry | None = None
    tally: Tally | None = None

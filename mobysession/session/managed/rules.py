"""Who decides on a session's requests, by its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobysession.session.access import Access
    from mobysession.session.managed.approvals import Approvals
    from mobysession.session.managed.config import SessionConfig

__all__ = ["make_access"]


def make_access(config: SessionConfig, approvals: Approvals) -> Access | None:
    """Return who decides; None where whatever is offered is granted."""
    if config.approval == "granted" and config.allow == ("*",) and not config.deny:
        return None
    from mobysession.session.access import Access

    approve: Any = None
    if config.approval == "terminal":
        from mobysession.session.terminal import TerminalApproval

        approve = TerminalApproval()
    elif config.approval == "channel":
        approve = approvals.ask
    elif config.approval == "refused":
        approve = _refuse
    return Access(allow=config.allow, deny=config.deny, approve=approve, timeout=config.approval_timeout)


async def _refuse() -> bool:
    return False

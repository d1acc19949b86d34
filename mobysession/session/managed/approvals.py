"""Approvals out of band: a request waits on the channel until somebody answers it, or its time is up.

What waits is published on ``approvals`` as an `ApprovalAsked`, what became of it as an `ApprovalSettled`. An approval
may replace the request: the daemon that asked for one secret is answered with another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from mobysession.errors import RpcError, StatusCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from mobysession.rpc.server import ServerCall
    from mobysession.session.access import AccessRequest
    from mobysession.session.managed.channels import Channel

__all__ = ["ApprovalAsked", "ApprovalSettled", "Approvals"]


@dataclass(frozen=True, kw_only=True)
class ApprovalAsked:
    """A request waits for `ManagedSession.submit_approval`, which takes ``call_id``: it counts those of the session."""

    call_id: int
    request: AccessRequest


@dataclass(frozen=True, kw_only=True)
class ApprovalSettled:
    """A request was answered; ``reason`` is what was given, or that nobody answered in time."""

    call_id: int
    approved: bool
    reason: str | None = None


class _Pending:
    def __init__(self, call_id: int, request: AccessRequest) -> None:
        self.call_id = call_id
        self.request = request
        self.answered = trio.Event()
        self.approved = False
        self.reason: str | None = "nobody answered in time"


class Approvals:
    """The requests of one session that wait for an answer."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pending: dict[int, _Pending] = {}
        #: By the session, of a build or not, and the number of the call there.
        self._replacements: dict[tuple[str, int], Message | Mapping[str, Any]] = {}
        self._count = 0

    @property
    def pending(self) -> tuple[AccessRequest, ...]:
        """What waits, oldest first."""
        return tuple(pending.request for pending in self._pending.values())

    async def ask(self, request: AccessRequest) -> bool:
        """Wait for the answer. Cancel, which is also what the time limit does: it counts as a refusal."""
        self._count += 1
        pending = self._pending[self._count] = _Pending(self._count, request)
        self._channel.publish(ApprovalAsked(call_id=pending.call_id, request=request))
        try:
            await pending.answered.wait()
            return pending.approved
        finally:
            del self._pending[pending.call_id]
            self._channel.publish(
                ApprovalSettled(call_id=pending.call_id, approved=pending.approved, reason=pending.reason)
            )

    def submit(
        self, call_id: int, approved: bool, replacement: Message | Mapping[str, Any] | None, reason: str | None
    ) -> None:
        """Answer a request that waits; UsageError where none of this number does, or a refusal has a replacement."""
        pending = self._pending.get(call_id)
        if pending is None or pending.answered.is_set():
            raise UsageError(f"no request of number {call_id} waits for an approval")
        if replacement is not None:
            if not approved:
                raise UsageError("what is refused cannot be replaced")
            self._replacements[pending.request.session_id, pending.request.call_id] = replacement
        pending.approved, pending.reason = approved, reason
        pending.answered.set()

    def amend(self, call: ServerCall, message: Message) -> None:
        """Put what an approval replaced the request with into it; the message is that of one call."""
        replacement = self._replacements.pop((call.session_id, call.number), None)
        if replacement is None:
            return
        if not isinstance(replacement, type(message)):
            from mobysession.session.managed.messages import make_message

            try:
                replacement = make_message(type(message), replacement)
            except UsageError as error:
                refusal = f"the replacement does not fit {call.method}: {error.message}"
                raise RpcError(StatusCode.PERMISSION_DENIED, refusal) from error
        message.CopyFrom(replacement)

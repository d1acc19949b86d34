"""What a `GrpcConnection` reports. The last event of a call is `CallEnded` (client) or `CallReset` (either side)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mobysession.errors import RpcError, StatusCode

__all__ = [
    "CallEnded",
    "CallReceived",
    "CallReset",
    "Event",
    "GoAwayReceived",
    "InitialMetadata",
    "MessagesReceived",
    "PingAcknowledged",
    "RequestEnded",
    "SettingsReceived",
]


class CallReceived(NamedTuple):
    """The peer opened a call; ``timeout`` is in seconds, None without a deadline."""

    stream_id: int
    method: str
    metadata: list[tuple[str, str | bytes]]
    timeout: float | None
    #: What the peer calls itself; no metadata of its own.
    user_agent: str = ""


class MessagesReceived(NamedTuple):
    """Whole messages arrived; the receiver owes a `GrpcConnection.consumed` for them."""

    stream_id: int
    messages: list[bytes]


class RequestEnded(NamedTuple):
    """The peer half-closed a call that we serve."""

    stream_id: int


class InitialMetadata(NamedTuple):
    """The peer began its response to a call of ours."""

    stream_id: int
    metadata: list[tuple[str, str | bytes]]


class CallEnded(NamedTuple):
    """The peer ended a call of ours with a status; ``details`` is a serialized ``google.rpc.Status`` or empty."""

    stream_id: int
    code: StatusCode
    message: str
    details: bytes
    trailers: list[tuple[str, str | bytes]]


class CallReset(NamedTuple):
    """A call is over without trailers: reset by the peer, or by us because the peer broke the call's rules.

    ``error`` is what a server answered to a request that cannot be read; None where nothing was answered.
    """

    stream_id: int
    error_code: int
    error: RpcError | None = None


class SettingsReceived(NamedTuple):
    """The peer's SETTINGS arrived; the first time this means that it speaks HTTP/2. Current values by RFC 9113 name."""

    settings: dict[str, int]


class PingAcknowledged(NamedTuple):
    """A PING of ours came back."""

    payload: bytes


class GoAwayReceived(NamedTuple):
    """The peer will open no more calls and answers none above ``last_stream_id``."""

    error_code: int
    last_stream_id: int
    debug_data: bytes


Event = (
    CallReceived
    | MessagesReceived
    | RequestEnded
    | InitialMetadata
    | CallEnded
    | CallReset
    | SettingsReceived
    | PingAcknowledged
    | GoAwayReceived
)

"""What may be watched of a connection, by whoever records it: calls with all they say, and the bytes themselves.

A connection has no observer, as a rule, and then this costs nothing. One that has asks it for each call that begins
whether it wants to hear of it. All is told in the loop, at the moment that it happens, in the order of the wire;
nothing may be waited for, and an observer must not raise. Messages and pieces may be kept, for nobody changes them.
They are as they are for whoever sends and receives them, so who keeps them has to keep the secrets out
(`mobysession.redaction`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession.errors import StatusCode
    from mobysession.protocol.framing import Buffer
    from mobysession.rpc.call import Call

__all__ = ["CallObserver", "Observer"]


class CallObserver(Protocol):
    """Hears of one call, until `ended`."""

    def initial_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """Take what the answer begins with; not called for one that begins without any."""

    def received(self, messages: Sequence[bytes]) -> None:
        """Take messages that have just arrived, whether anybody will read them or not."""

    def received_all(self) -> None:
        """Take the news that the other side sends no more; it may come with `ended` alone."""

    def sent(self, messages: Sequence[Buffer]) -> None:
        """Take messages of ours that have just been queued."""

    def ended(
        self, code: StatusCode, message: str, details: bytes, trailers: Sequence[tuple[str, str | bytes]]
    ) -> None:
        """Take the status: what the caller was told, or would have been told. The last of all, and called once."""


class Observer(Protocol):
    """Hears of one connection."""

    def call_started(self, call: Call, metadata: Sequence[tuple[str, str | bytes]]) -> CallObserver | None:
        """Take a call that begins, with the request's metadata; return who is to hear of it, None for nobody."""

    def bytes_received(self, data: bytes) -> None:
        """Take what has just been read."""

    def bytes_sent(self, pieces: Sequence[Buffer]) -> None:
        """Take what is just being written, in pieces; whole frames together."""

"""One call as the protocol knows it: how far its two directions are, and what is owed to the peer's window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession.protocol.framing import MessageReader
from mobysession.protocol.windows import CallWindow

if TYPE_CHECKING:
    from mobysession.errors import StatusCode

__all__ = ["CallState"]


class CallState(CallWindow):
    """The state of one stream that carries a call."""

    __slots__ = (
        "accepts_gzip",
        "awaited",
        "buffered",
        "compress",
        "header_size",
        "headers_sent",
        "local_ended",
        "overdue_at",
        "reader",
        "refused",
        "status",
    )

    def __init__(self) -> None:
        super().__init__()
        self.reader = MessageReader()
        self.headers_sent = False
        self.local_ended = False
        #: Server: the peer takes gzip, and was told that it gets it.
        self.accepts_gzip = False
        self.compress = False
        #: Server: from when on a reset by the peer is that of the call's own timeout.
        self.overdue_at = float("inf")
        #: Bytes of a message that has not arrived to its end, and of the headers that the call began with.
        self.buffered = 0
        self.header_size = 0
        #: Bytes of DATA still to come, where the headers announced their number.
        self.awaited: int | None = None
        #: Server: nobody was told of it, because it is HTTP, not gRPC.
        self.refused = False
        #: The status of what is HTTP, not gRPC, and whose DATA means nothing to us.
        self.status: tuple[StatusCode, str] | None = None

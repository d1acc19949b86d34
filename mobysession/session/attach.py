"""The ways in. A session gets its byte stream from a dialer and cannot tell which one it was.

Here is the oldest way, which every engine so far has: ``POST /session`` on the engine's socket, hijacked after the 101
(moby/buildkit session/manager.go, HandleHTTPRequest).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobysession.transport.hijack import hijack

if TYPE_CHECKING:
    import trio

    from mobysession.protocol.session_headers import SessionHeaders
    from mobysession.transport.endpoint import Endpoint

__all__ = ["Attachment", "Dialer", "hijack_dialer"]


@dataclass(frozen=True)
class Attachment:
    """A session's byte stream and how it was got.

    ``way`` names the dialer; ``status_line`` and ``headers`` are what the daemon answered, empty where nothing was
    asked in HTTP/1.1.
    """

    stream: trio.abc.Stream
    way: str
    status_line: str = ""
    headers: tuple[tuple[str, str], ...] = ()


#: Takes what the session says of itself and returns its stream, on which the daemon is about to speak HTTP/2.
Dialer = Callable[["SessionHeaders"], Awaitable[Attachment]]


def hijack_dialer(endpoint: Endpoint) -> Dialer:
    """Return the dialer that hijacks ``POST /session`` on ``endpoint``.

    Raises, when called:
        ConnectError, HandshakeError, UpgradeRefused, SessionIdInUse: see `mobysession.transport.hijack`.
    """

    async def dial(headers: SessionHeaders) -> Attachment:
        stream = await hijack(endpoint, "/session", headers.fields())
        return Attachment(stream, "hijack", stream.status_line, tuple(stream.headers))

    return dial

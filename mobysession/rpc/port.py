"""Writing without waiting, where a stream is a plain socket underneath.

A task that has an answer in its hands saves a turn of the event loop if it puts the answer into the socket itself
instead of waking the writer. The kernel takes all of it, or a part of it, at once; so nothing can be cancelled in the
middle, and what is left is the writer's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession.protocol.framing import Buffer

__all__ = ["nowait_sender"]


def nowait_sender(stream: trio.abc.Stream) -> Callable[[Buffer], int] | None:
    """Return a function that writes to ``stream`` what fits and returns the number of bytes; None where there is none.

    A stream that is a socket, and changes nothing on the way to it, may say so by an attribute ``plain_socket``, a
    `trio.SocketStream`. The function must not be used while a `send_all` is under way. What the connection has come to
    is not its business: it says 0, and the next `send_all` will tell.
    """
    plain = getattr(stream, "plain_socket", stream)
    # Elsewhere a socket is no file descriptor.
    if not isinstance(plain, trio.SocketStream) or os.name != "posix":
        return None
    socket = plain.socket

    def send_nowait(data: Buffer) -> int:
        try:
            return os.write(socket.fileno(), data)
        except OSError:
            return 0

    return send_nowait

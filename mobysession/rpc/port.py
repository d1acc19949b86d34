"""Writing without waiting, where a stream is a plain socket underneath.

A task that has an answer in its hands saves a turn of the event loop if it puts the answer into the socket itself
instead of waking the writer. The kernel takes all of it, or a part of it, at once; so nothing can be cancelled in the
middle, and what is left is the writer's.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from mobysession import limits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mobysession.protocol.framing import Buffer

__all__ = ["nowait_sender", "supply", "unsent"]

#: Pieces that writev(2) takes at once (IOV_MAX on Linux, the BSDs and macOS), and bytes from which on it is cheaper
#: than to put the pieces together.
_MAX_PIECES = 1024
_WORTH_IT = 16 * limits.KIB


def nowait_sender(stream: trio.abc.Stream) -> Callable[[Sequence[Buffer], int], int] | None:
    """Return a function that writes to ``stream`` what fits and returns the number of bytes; None where there is none.

    It takes pieces that are to be written one behind the other, and the number of their bytes.

    A stream that is a socket, and changes nothing on the way to it, may say so by an attribute ``plain_socket``, a
    `trio.SocketStream`. The function must not be used while a `send_all` is under way. What the connection has come to
    is not its business: it says 0, and the next `send_all` will tell.
    """
    plain = _plain_socket(stream)
    # Elsewhere a socket is no file descriptor.
    if plain is None or os.name != "posix":
        return None
    fileno = plain.socket.fileno

    def send_nowait(pieces: Sequence[Buffer], size: int) -> int:
        try:
            if size < _WORTH_IT or len(pieces) > _MAX_PIECES:
                return os.write(fileno(), b"".join(pieces))
            return os.writev(fileno(), pieces)
        except OSError:
            return 0

    return send_nowait


def supply(stream: trio.abc.Stream) -> None:
    """Have a TCP socket take `limits.UNSENT` bytes ahead of what it has sent, where the system can bound that.

    Source: tcp(7); trio/_highlevel_socket.py, which sets less.
    """
    plain, option = _plain_socket(stream), getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if plain is None or option is None or plain.socket.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):  # closed by the other side already: the first read tells
        plain.setsockopt(socket.IPPROTO_TCP, option, limits.UNSENT)


def _plain_socket(stream: trio.abc.Stream) -> trio.SocketStream | None:
    plain = getattr(stream, "plain_socket", stream)
    return plain if isinstance(plain, trio.SocketStream) else None


def unsent(pieces: Sequence[Buffer], sent: int) -> bytes:
    """Return what is left of ``pieces`` behind the first ``sent`` bytes."""
    for number, piece in enumerate(pieces):
        if sent < len(piece):
            return b"".join([memoryview(piece)[sent:], *pieces[number + 1 :]])
        sent -= len(piece)
    return b""

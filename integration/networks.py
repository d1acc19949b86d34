"""One registry for several private engines, each of which has a network of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from typing import TYPE_CHECKING, Final

import trio

from mobysession.concurrency import open_nursery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from integration.engines import Registry

__all__ = ["open_to_all"]

_CLONE_NEWNET: Final = 0x40000000


@contextlib.asynccontextmanager
async def open_to_all(registry: Registry, home: int, others: Sequence[int]) -> AsyncIterator[None]:
    """Let ``registry`` answer at its own address in other networks and in ours too, for the length of the block.

    Args:
        registry: it runs in the network of the process ``home``.
        home, others: IDs of processes in these networks.
    """
    host, _, port = registry.address.rpartition(":")
    place = (host, int(port))

    async def serve(client: trio.SocketStream) -> None:
        async with client, trio.SocketStream(trio.socket.from_stdlib_socket(_socket_in(home))) as server:
            await server.socket.connect(place)
            async with open_nursery() as nursery:
                nursery.start_soon(_copy, client, server)
                nursery.start_soon(_copy, server, client)

    listeners = [_listen(_socket_in(pid), place) for pid in (os.getpid(), *others)]
    async with open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield
        nursery.cancel_scope.cancel()


def _socket_in(pid: int) -> socket.socket:
    """Return a socket in the network of a process; it stays there, whoever uses it."""
    made: list[socket.socket] = []

    def make() -> None:
        # Of this thread only, which ends here.
        network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(network, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.socket())
        finally:
            os.close(network)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    made[0].setblocking(False)
    return made[0]


def _listen(sock: socket.socket, place: tuple[str, int]) -> trio.SocketListener:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(place)
    sock.listen()
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


async def _copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            await target.send_all(data)
        await target.send_eof()

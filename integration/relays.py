"""Other ways to an engine that listens on a unix socket: relays over TCP and TLS, that refuse requests, that record."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio

from mobysession.concurrency import open_nursery

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Collection
    from pathlib import Path

__all__ = ["open_relay"]

_METHODS = (b"GET", b"HEAD", b"POST")
_REFUSAL = b'{"message":"this proxy does not let upgrades through"}\n'


@contextlib.asynccontextmanager
async def open_relay(
    engine: Path,
    *,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    refuse: Collection[str] = (),
    record: list[bytearray] | None = None,
) -> AsyncIterator[int]:
    """Relay connections to an engine's socket for the length of the block, which gets the port.

    Args:
        engine: the unix socket.
        host: the address to listen on.
        tls: the server's side of TLS; None for plain TCP.
        refuse: paths whose requests are answered with 403.
        record: gets what each connection's client sends, a piece for each connection.
    """

    async def serve(client: trio.SocketStream) -> None:
        stream: trio.abc.Stream = client
        if tls is not None:
            stream = trio.SSLStream(client, tls, server_side=True, https_compatible=True)
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                await _serve(stream, engine, refuse, record)

    async with open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=host)
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def _serve(
    client: trio.abc.Stream, engine: Path, refuse: Collection[str], record: list[bytearray] | None
) -> None:
    sent = bytearray()
    if record is not None:
        record.append(sent)
    async with await trio.open_unix_socket(engine) as server, trio.open_nursery() as nursery:
        nursery.start_soon(_pump_requests, client, server, refuse, sent if record is not None else None)
        await _pump(server, client)
        nursery.cancel_scope.cancel()


async def _pump_requests(
    client: trio.abc.Stream, server: trio.SocketStream, refuse: Collection[str], record: bytearray | None
) -> None:
    """Pass on what the client sends up to a request that is refused; a connection may carry several."""
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in client:
            # A client begins a request when the one before is answered, so with a read of its own.
            if _path(bytes(data)) in refuse:
                fields = (
                    f"Content-Type: application/json\r\nContent-Length: {len(_REFUSAL)}\r\nConnection: close\r\n\r\n"
                )
                await client.send_all(b"HTTP/1.1 403 Forbidden\r\n" + fields.encode() + _REFUSAL)
                break
            if record is not None:
                record += data
            await server.send_all(data)
        await server.send_eof()


def _path(data: bytes) -> str | None:
    method, _, rest = data.partition(b"\r\n")[0].partition(b" ")
    return rest.split(b" ")[0].decode().partition("?")[0] if method in _METHODS else None


async def _pump(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            await sink.send_all(data)
    if isinstance(sink, trio.abc.HalfCloseableStream):
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await sink.send_eof()

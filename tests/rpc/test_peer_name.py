"""What is told of where a call comes from; that grpcio's own server says the same is seen in `test_grpcio_context`."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trio
import trio.testing

from mobysession.protocol.handshake import Upgraded
from mobysession.rpc.listener import serve_listener
from mobysession.rpc.peer_name import NAMELESS, peer_name
from mobysession.rpc.registrar import Registrar
from mobysession.transport.hijack import HijackedStream
from tests.rpc.conftest import socket_stream_pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mobysession.rpc.server import ServerCall


@asynccontextmanager
async def dialled(family: socket.AddressFamily, address: Any) -> AsyncIterator[tuple[trio.SocketStream, Any]]:
    """Give a stream that was dialled to ``address``, where somebody listens, and the address that came of it."""
    with socket.socket(family) as listening:
        listening.bind(address)
        listening.listen()
        stream = trio.SocketStream(trio.socket.socket(family))
        async with stream:
            await stream.socket.connect(listening.getsockname())
            yield stream, listening.getsockname()


async def test_of_sockets(tmp_path: Path) -> None:
    """A TCP address has its port, an IPv6 one its brackets escaped, and a unix socket its path."""
    async with dialled(socket.AF_INET, ("127.0.0.1", 0)) as (stream, address):
        assert peer_name(stream) == f"ipv4:127.0.0.1:{address[1]}"
    async with dialled(socket.AF_INET6, ("::1", 0)) as (stream, address):
        assert peer_name(stream) == f"ipv6:%5B::1%5D:{address[1]}"
    async with dialled(socket.AF_UNIX, str(tmp_path / "s")) as (stream, address):
        assert peer_name(stream) == f"unix:{address}"


async def test_below_tls_and_a_hijack() -> None:
    """What stands upon a socket has the name of the socket."""
    async with dialled(socket.AF_INET, ("127.0.0.1", 0)) as (stream, address):
        secured = trio.SSLStream(stream, ssl.create_default_context(), server_hostname="localhost")
        hijacked = HijackedStream(secured, Upgraded("HTTP/1.1 101 UPGRADED", (), b""))
        assert peer_name(secured) == peer_name(hijacked) == f"ipv4:127.0.0.1:{address[1]}"


async def test_without_a_name() -> None:
    """A pipe, an unnamed socket and one that has hung up are nameless."""
    ours, theirs = trio.testing.memory_stream_pair()
    assert peer_name(ours) == peer_name(theirs) == NAMELESS
    near, far = socket_stream_pair()
    assert peer_name(near) == NAMELESS
    await far.aclose()
    await near.aclose()
    assert peer_name(near) == NAMELESS


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_of_a_call(kind: str, tmp_path: Path) -> None:
    """A handler of a listener is told the address that its caller has."""
    seen: list[str] = []

    async def handle(call: ServerCall) -> None:
        seen.append(call.peer_name)
        await call.send(b"")

    def ask(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/t.S/M")
            unary(b"", timeout=20)

    registrar = Registrar()
    registrar.stream("/t.S/M", handle)
    address = "tcp://127.0.0.1:0" if kind == "tcp" else f"unix://{tmp_path}/s"
    async with trio.open_nursery() as nursery:
        listening = await nursery.start(partial(serve_listener, address, registrar))
        await trio.to_thread.run_sync(ask, listening.addresses[0])
        listening.stop()
    assert seen[0].startswith("ipv4:127.0.0.1:" if kind == "tcp" else "unix:")
    assert seen[0] != f"ipv4:{listening.addresses[0]}"

"""What a servicer is told of TLS and of its caller's certificate, held against grpcio's own server."""

from __future__ import annotations

import functools
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trio
import trustme

from mobysession.protocol.handshake import Upgraded
from mobysession.rpc.grpcio import GrpcioServicer
from mobysession.rpc.listener import serve_listener
from mobysession.rpc.security import security_of
from mobysession.transport.hijack import HijackedStream
from tests.rpc.conftest import socket_stream_pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

METHOD = "/tests.Who/Ask"
#: What Python's TLS does not tell.
UNKNOWN = {"x509_subject", "ssl_requested_server_name", "ssl_negotiated_key_exchange_group"}
PLAIN = {"transport_security_type": [b"insecure"], "security_level": [b"TSI_SECURITY_NONE"]}


class Who:
    """A servicer that notes what it is told of its caller."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, list[bytes]], Any, Any]] = []

    def Ask(self, request: bytes, context: Any) -> bytes:
        """Note it."""
        identities = context.peer_identities()
        known = {key: list(values) for key, values in context.auth_context().items() if key not in UNKNOWN}
        self.seen.append((known, identities and list(identities), context.peer_identity_key()))
        return request


def add_who(servicer: Who, server: Any) -> None:
    """Do as generated code does."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"Ask": grpc.unary_unary_rpc_method_handler(servicer.Ask)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests.Who", handlers),))


def chain(certificate: trustme.LeafCert) -> bytes:
    """Return a certificate with those behind it."""
    return b"".join(blob.bytes() for blob in certificate.cert_chain_pems)


class Keys:
    """An authority, a server's certificate, and how the two kinds of servers and a client are told of them."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.server = self.authority.issue_cert("localhost")

    def context(self, *, ask: bool) -> ssl.SSLContext:
        """Return our server's context, which may ``ask`` for certificates."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.server.configure_cert(context)
        if ask:
            self.authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    @contextmanager
    def genuine(self, servicer: Who, *, ask: bool) -> Iterator[int]:
        """Run grpcio's server and give its port."""
        trusted = self.authority.cert_pem.bytes() if ask else None
        pair = (self.server.private_key_pem.bytes(), chain(self.server))
        with ThreadPoolExecutor(1) as threads:
            server = grpc.server(threads)
            add_who(servicer, server)
            port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair], trusted, ask))
            server.start()
            try:
                yield port
            finally:
                server.stop(0).wait()

    def call(self, port: int, caller: trustme.LeafCert | None) -> None:
        """Ask the server behind ``port``, as ``caller``."""
        own = (caller.private_key_pem.bytes(), chain(caller)) if caller is not None else (None, None)
        credentials = grpc.ssl_channel_credentials(self.authority.cert_pem.bytes(), *own)
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            ask(b"", timeout=20)


@pytest.mark.parametrize(
    ("names", "common_name", "ask"),
    [
        pytest.param(None, None, False, id="nobody"),
        pytest.param(("client.example",), "alice", False, id="shown to one who does not look"),
        pytest.param(("user@example.org", "client.example", "*.example.net"), "alice", True, id="names"),
        pytest.param(("10.1.2.3", "::1", "2001:db8::7:0:1"), None, True, id="addresses"),
    ],
)
async def test_what_grpcio_tells_is_told(names: tuple[str, ...] | None, common_name: str | None, ask: bool) -> None:
    """Behind TLS both servers say the same of the connection and of a certificate that was verified."""
    keys = Keys()
    caller = keys.authority.issue_cert(*names, common_name=common_name) if names is not None else None
    theirs, ours = Who(), Who()
    with keys.genuine(theirs, ask=ask) as port:
        await trio.to_thread.run_sync(keys.call, port, caller)
    async with trio.open_nursery() as nursery:
        serve = functools.partial(
            serve_listener, "tcp://127.0.0.1:0", GrpcioServicer(ours, add_who), tls=keys.context(ask=ask)
        )
        listening = await nursery.start(serve)
        await trio.to_thread.run_sync(keys.call, int(listening.addresses[0].rpartition(":")[2]), caller)
        listening.stop()
    assert ours.seen == theirs.seen
    ((known, identities, key),) = ours.seen
    assert known["transport_security_type"] == [b"ssl"]
    assert (key, len(identities or ())) == (("x509_subject_alternative_name", len(names or ())) if ask else (None, 0))


@asynccontextmanager
async def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    """Give the client's end of a connection whose handshake is over."""
    below, above = socket_stream_pair()
    behind = trio.SSLStream(below, server, server_side=True)
    ahead = trio.SSLStream(above, client, server_hostname="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(behind.do_handshake)
        await ahead.do_handshake()
    yield ahead
    await trio.aclose_forcefully(ahead)
    await trio.aclose_forcefully(behind)


@pytest.mark.parametrize("verified", [True, False])
async def test_below_a_hijack(verified: bool) -> None:
    """On a session over TLS the caller is the daemon, named by its certificate where that was verified."""
    keys = Keys()
    context = ssl.create_default_context()
    keys.authority.configure_trust(context)
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    async with handshake(keys.context(ask=False), context) as secured:
        said = security_of(HijackedStream(secured, Upgraded("HTTP/1.1 101 UPGRADED", (), b"")))
    assert said["transport_security_type"] == [b"ssl"]
    assert said.get("peer_dns") == ([b"localhost"] if verified else None)


async def test_without_tls() -> None:
    """A socket, and whatever has no transport below it, is insecure."""
    ours, theirs = socket_stream_pair()
    assert security_of(ours) == security_of(trio.StapledStream(ours, theirs)) == PLAIN
    await ours.aclose()
    await theirs.aclose()

"""Small servers on real sockets: what stands at the other end of an endpoint."""

from __future__ import annotations

import itertools
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from mobysession.transport.endpoint import Endpoint
from mobysession.transport.tls import TLSConfig

if TYPE_CHECKING:
    from pathlib import Path

Handler = Callable[[trio.abc.Stream], Awaitable[None]]
Serve = Callable[..., AbstractAsyncContextManager[Endpoint]]


class Daemon:
    """Scripts for one connection, and what was heard on them."""

    def __init__(self) -> None:
        self.heard = b""

    async def head(self, stream: trio.abc.Stream) -> bytes:
        """Read to the end of a head."""
        head = b""
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some()
            if not data:
                break
            head += bytes(data)
        self.heard += head
        return head

    def answer(self, *parts: bytes, close: bool = True) -> Handler:
        """Read one head, send these parts in writes of their own, close or else wait for the other side to."""

        async def handle(stream: trio.abc.Stream) -> None:
            await self.head(stream)
            for part in parts:
                await stream.send_all(part)
                await trio.sleep(0.005)  # a real clock: so that each part has a segment of its own
            if not close:
                while data := await stream.receive_some():
                    self.heard += bytes(data)

        return handle


def alerting(context: ssl.SSLContext) -> Handler:
    """Shake hands and, when that fails, send the alert, which trio's own TLS does not do; then close."""

    async def handle(stream: trio.abc.Stream) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        failed = False
        while not failed:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await stream.send_all(outgoing.read())
                incoming.write(bytes(await stream.receive_some()))
            except ssl.SSLError:
                failed = True
        await stream.send_all(outgoing.read())

    return handle


@pytest.fixture
def daemon() -> Daemon:
    """Give the scripts for a server."""
    return Daemon()


async def _run(handler: Handler, listeners: list[trio.abc.Listener[trio.abc.Stream]]) -> None:
    async def handle(stream: trio.abc.Stream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await handler(stream)

    await trio.serve_listeners(handle, listeners)


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Give ``serve(handler)``: a server on a unix socket, as a context manager that gives its endpoint."""
    numbers = itertools.count()

    @asynccontextmanager
    async def serve(handler: Handler) -> AsyncIterator[Endpoint]:
        path = tmp_path / f"docker {next(numbers)}%20.sock"
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        await sock.bind(str(path))
        sock.listen()
        async with trio.open_nursery() as nursery:
            listeners: list[trio.abc.Listener[trio.abc.Stream]] = [trio.SocketListener(sock)]
            nursery.start_soon(_run, handler, listeners)
            yield Endpoint.parse(f"unix://{path}")
            nursery.cancel_scope.cancel()

    return serve


@pytest.fixture
def serve_tcp() -> Serve:
    """Give ``serve_tcp(handler, host=..., tls=..., server=...)``: the same on a port, in TLS with a context."""

    @asynccontextmanager
    async def serve(
        handler: Handler, *, host: str = "127.0.0.1", tls: TLSConfig | None = None, server: ssl.SSLContext | None = None
    ) -> AsyncIterator[Endpoint]:
        listeners: list[trio.abc.Listener[trio.abc.Stream]] = list(await trio.open_tcp_listeners(0, host=host))
        assert isinstance(listeners[0], trio.SocketListener)
        port = listeners[0].socket.getsockname()[1]
        if server is not None:
            listeners = [trio.SSLListener(listener, server, https_compatible=True) for listener in listeners]
        name = f"[{host}]" if ":" in host else host
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run, handler, listeners)
            yield Endpoint.parse(f"tcp://{name}:{port}", tls=tls)
            nursery.cancel_scope.cancel()

    return serve


class Certificates:
    """A CA, a daemon's certificate, and files for a client in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self.directory = directory
        directory.mkdir()
        self.authority.cert_pem.write_to_path(directory / "ca.pem")
        client = self.authority.issue_cert("client@example.com")
        client.private_key_pem.write_to_path(directory / "key.pem")
        client.cert_chain_pems[0].write_to_path(directory / "cert.pem")

    def server(self, name: str = "127.0.0.1", *, demand: bool = False, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        """Make a daemon's context; ``demand`` a client certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(name).configure_cert(context)
        if demand:
            self.authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def client(self, *, with_certificate: bool = True) -> TLSConfig:
        """Make a client's configuration."""
        config = TLSConfig.from_directory(self.directory)
        return config if with_certificate else TLSConfig(ca=config.ca)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Give certificates, made once."""
    return Certificates(tmp_path_factory.mktemp("tls") / "certs")


@pytest.fixture(scope="session")
def other_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Give certificates of another CA."""
    return Certificates(tmp_path_factory.mktemp("tls") / "certs")


#: What ``docker system dial-stdio`` and ``buildctl dial-stdio`` do, on the socket that RELAY_SOCKET names.
RELAY = """
import os, socket, sys, threading
open(os.environ["RELAY_LOG"], "a").write(repr(sys.argv[1:]) + "\\n")
sock = socket.socket(socket.AF_UNIX)
sock.connect(os.environ["RELAY_SOCKET"])
def upload():
    while data := os.read(0, 65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
threading.Thread(target=upload, daemon=True).start()
while data := sock.recv(65536):
    os.write(1, data)
"""


@pytest.fixture
def relay_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Give ``relay_programs(*names)``: programs on PATH that relay; it returns the log of their command lines."""

    def make(*names: str) -> Path:
        directory = tmp_path / "bin"
        directory.mkdir()
        (directory / "relay.py").write_text(RELAY)
        for name in names:
            (directory / name).write_text(f'#!/bin/sh\nexec {sys.executable} -IS {directory}/relay.py {name} "$@"\n')
            (directory / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
        monkeypatch.setenv("RELAY_LOG", str(tmp_path / "log"))
        return tmp_path / "log"

    return make

"""gRPC on a listening socket: any client that speaks HTTP/2 at once (prior knowledge), or after TLS with ALPN ``h2``.

Each connection that is accepted is a `Server` of its own, in a task of its own. What goes wrong on one of them ends
that one: the others, and the accepting, go on. When `limits.MAX_CONNECTIONS` are open no more are accepted; those that
come then wait in the kernel's queue.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

import trio
import trio.lowlevel

from mobysession import limits
from mobysession.concurrency import open_nursery
from mobysession.errors import UsageError
from mobysession.rpc.addresses import open_listeners, target
from mobysession.rpc.keepalive import LISTENER_KEEPALIVE
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Sequence

    from mobysession.errors import StatusCode
    from mobysession.rpc.keepalive import Keepalive
    from mobysession.rpc.registrar import Attachable
    from mobysession.rpc.server import Server, ServerCall

    Listener = trio.abc.Listener[trio.abc.Stream]

__all__ = ["Listening", "serve_listener"]

_log = logging.getLogger("mobysession.rpc")

#: What accept(2) says when the machine has run out of something; it has more once somebody hangs up.
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Listening:
    """A listener at work, as `serve_listener` reports it."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        #: Where it can be reached, in the form that gRPC's clients take: ``127.0.0.1:50051``, ``unix:/path``.
        self.addresses: tuple[str, ...] = tuple(filter(None, map(target, listeners)))
        #: The connections that are open.
        self.servers: set[Server] = set()
        self.stopped = False
        self._accepting = trio.CancelScope()
        self._serving = trio.CancelScope()

    def stop(self, grace: float = 0.0) -> None:
        """Accept no more connections, and end those that are open within ``grace`` seconds; `serve_listener` returns.

        Calls that run get these seconds to end; then they are cancelled and their callers told.
        """
        self.stopped = True
        self._serving.deadline = min(self._serving.deadline, trio.current_time() + grace)
        self._accepting.cancel()
        for server in self.servers:
            server.drain()


async def serve_listener(
    listeners: str | Listener | Iterable[str | Listener],
    *services: Registrar | Attachable,
    tls: ssl.SSLContext | None = None,
    max_connections: int = limits.MAX_CONNECTIONS,
    max_message: int = limits.MAX_MESSAGE,
    keepalive: Keepalive | None = LISTENER_KEEPALIVE,
    on_call_started: Callable[[ServerCall], None] | None = None,
    on_call_ended: Callable[[ServerCall, StatusCode, str, BaseException | None], None] | None = None,
    task_status: trio.TaskStatus[Listening] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve gRPC on listening sockets until cancelled, or stopped through the `Listening` that ``nursery.start`` gives.

    Args:
        listeners: addresses, ``unix:///path`` and ``tcp://host:port`` (port 0: any that is free), or trio's listeners,
            which belong to this function from now on.
        services: what is served: attachables, or one registrar that has them already.
        tls: speak TLS with this context, which is told to offer only ``h2``; None: plain HTTP/2 at once.
        max_connections: that are open at once; more wait in the kernel's queue.
        max_message: bytes of one message of a request; a larger one ends its call with RESOURCE_EXHAUSTED.
        keepalive: when a silent connection is asked whether anybody is there, and closed where nobody is; None: never.
        on_call_started: called in the loop for each call; must not wait.
        on_call_ended: the same at its end, with what the peer was told and the local failure behind it.

    Raises:
        UsageError: no service, or a registrar beside other services, nowhere to listen, or a bad bound; the caller
            must act.
        EndpointError: nothing can listen at an address; the user must act.

    Cancel: calls that run are cancelled, their callers told, and the connections closed with a GOAWAY, within
        `limits.GOODBYE_TIMEOUT`.
    """
    registrar = _registrar(services)
    for name, bound in (("max_connections", max_connections), ("max_message", max_message)):
        if bound < 1:
            raise UsageError(f"{name} is {bound}; it must be at least 1")
    opened = await open_listeners(listeners)
    if not opened:
        raise UsageError("serve_listener has nowhere to listen: give it an address or a listener")
    try:
        listening = Listening(opened)
        door = _Door(listening, registrar, tls, max_connections, max_message, keepalive, on_call_started, on_call_ended)
        task_status.started(listening)
        with listening._serving:
            async with open_nursery() as connections:
                with listening._accepting:
                    async with open_nursery() as accepting:
                        for listener in opened:
                            accepting.start_soon(door.accept_from, listener, connections)
                await opened.aclose()
    finally:
        await opened.aclose()


class _Door:
    """Lets connections in, each into a task of its own, as long as there is room."""

    def __init__(
        self,
        listening: Listening,
        registrar: Registrar,
        tls: ssl.SSLContext | None,
        max_connections: int,
        max_message: int,
        keepalive: Keepalive | None,
        on_call_started: Callable[[ServerCall], None] | None,
        on_call_ended: Callable[[ServerCall, StatusCode, str, BaseException | None], None] | None,
    ) -> None:
        self._listening = listening
        self._registrar = registrar
        self._tls = tls
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
        self._max_message = max_message
        self._keepalive = keepalive
        self._room = trio.Semaphore(max_connections)
        self._on_call_started = on_call_started
        self._on_call_ended = on_call_ended

    async def accept_from(self, listener: Listener, connections: trio.Nursery) -> None:
        """Accept as long as there is room, for ever; what the machine is short of is waited for."""
        while True:
            await self._room.acquire()
            try:
                stream = await _accept(listener)
            except trio.ClosedResourceError:
                # Whoever gave it to us has closed it; the others go on.
                self._room.release()
                return
            except BaseException:
                self._room.release()
                raise
            connections.start_soon(self._serve, stream)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        try:
            secured = stream if self._tls is None else await _secure(stream, self._tls)
            if secured is not None:
                await self._serve_calls(secured)
        except Exception as error:
            # Ours, or of a stranger's callback; it must not take the other connections with it.
            _log.warning("a connection failed with %s", type(error).__name__)
            _log.debug("it failed", exc_info=error)
        finally:
            self._room.release()
            await trio.aclose_forcefully(stream)

    async def _serve_calls(self, stream: trio.abc.Stream) -> None:
        servers = self._listening.servers
        async with open_server(
            stream,
            self._registrar,
            on_call_started=self._on_call_started,
            on_call_ended=self._on_call_ended,
            max_message=self._max_message,
            keepalive=self._keepalive,
        ) as server:
            servers.add(server)
            if self._listening.stopped:
                server.drain()
            try:
                with trio.move_on_after(limits.READY_TIMEOUT) as waiting:
                    await _first(server.ready, server.closed)
                if waiting.cancelled_caught:
                    _log.debug("a connection was silent for %g s", limits.READY_TIMEOUT)
                    return
                await server.closed.wait()
            finally:
                servers.discard(server)


async def _first(*happenings: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def wait_for(happening: trio.Event) -> None:
            await happening.wait()
            nursery.cancel_scope.cancel()

        for happening in happenings:
            nursery.start_soon(wait_for, happening)


async def _accept(listener: Listener) -> trio.abc.Stream:
    while True:
        try:
            return await listener.accept()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                # The network of a connection that is gone again (accept(2), "error handling"); the listener is well.
                _log.debug("a connection was lost before it was accepted: %s", error)
                await trio.lowlevel.checkpoint()
                continue
            _log.warning("no connection can be accepted for now: %s", error.strerror)
            await trio.sleep(limits.ACCEPT_PAUSE)


async def _secure(stream: trio.abc.Stream, tls: ssl.SSLContext) -> trio.abc.Stream | None:
    """Shake hands; None where that fails, which is no concern of the other connections."""
    secured = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
    try:
        with trio.fail_after(limits.HANDSHAKE_TIMEOUT):
            await secured.do_handshake()
    except (trio.BrokenResourceError, trio.TooSlowError) as error:
        _log.debug("a connection failed in the TLS handshake: %s", error.__cause__ or type(error).__name__)
        return None
    if secured.selected_alpn_protocol() != "h2":
        _log.debug("a connection did not ask for h2 (ALPN)")
        return None
    return secured


def _registrar(services: Sequence[Registrar | Attachable]) -> Registrar:
    if not services:
        raise UsageError("serve_listener has nothing to serve: give it a service or a registrar")
    first = services[0]
    if isinstance(first, Registrar) and len(services) == 1:
        return first
    registrar = Registrar()
    for service in services:
        if isinstance(service, Registrar):
            raise UsageError("serve_listener takes one registrar or any number of services, not both")
        service.register(registrar)
    return registrar

"""The server role: calls that the other side opens, run by a few tasks in turns (`mobysession.rpc.workers`)."""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from mobysession import limits
from mobysession.concurrency import open_nursery
from mobysession.errors import LocalProtocolError, MobysessionError, RpcError, StatusCode
from mobysession.protocol import events
from mobysession.protocol.metadata import encoded_values, values
from mobysession.protocol.server import ServerConnection
from mobysession.rpc.call import Call
from mobysession.rpc.connection import Connection
from mobysession.rpc.outcome import OK, Outcome, outcome_of
from mobysession.rpc.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from mobysession.rpc.keepalive import Keepalive
    from mobysession.rpc.observer import Observer
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.security import Security

__all__ = ["Server", "ServerCall", "open_server"]

_log = logging.getLogger("mobysession.rpc")


class ServerCall(Call):
    """A call as its handler sees it."""

    _connection: Server

    def __init__(self, server: Server, received: events.CallReceived, number: int) -> None:
        super().__init__(server, received.stream_id, received.method)
        #: Counts the calls of a connection from 1.
        self.number = number
        #: The request's metadata, in order.
        self.metadata: Sequence[tuple[str, str | bytes]] = received.metadata
        #: What the caller calls itself; empty where it does not say.
        self.user_agent = received.user_agent
        #: Sent with the status; a handler may append.
        self.trailing_metadata: list[tuple[str, str | bytes]] = []
        #: True when the daemon cancelled the call, as opposed to its deadline, a lost connection or our own end.
        self.cancelled_by_peer = False
        self._deadline = math.inf if received.timeout is None else trio.current_time() + received.timeout
        #: What the handler runs in, while it runs.
        self._scope: trio.CancelScope | None = None

    def values(self, key: str) -> list[str]:
        """Return the text values of one key of the request's metadata, in order."""
        return values(self.metadata, key)

    def encoded_values(self, key: str) -> list[str]:
        """Return the same, unescaped where BuildKit's companion key says that they are escaped."""
        return encoded_values(self.metadata, key)

    @property
    def session_id(self) -> str:
        """The ID of the session on which the call came; empty where the methods are hosted otherwise."""
        return self._connection.session_id

    @property
    def peer_name(self) -> str:
        """What gRPC calls the caller: ``ipv4:127.0.0.1:50051``, ``unix:/path``; ``unix:`` where it has no address."""
        return self._connection.peer_name

    @property
    def security(self) -> Security:
        """What gRPC's ``auth_context`` says of the caller: how the connection is secured, and by which certificate."""
        return self._connection.security

    def time_remaining(self) -> float | None:
        """Return the seconds to the call's deadline, not below 0; None without one."""
        if self._deadline == math.inf:
            return None
        return max(0.0, self._deadline - trio.current_time())

    def begin(self, scope: trio.CancelScope) -> None:
        """Take ``scope`` as what the handler runs in from now on."""
        self._scope = scope
        if self._deadline != math.inf:
            scope.deadline = self._deadline

    def leave(self) -> None:
        """Let go of the scope: the handler has ended."""
        scope, self._scope = self._scope, None
        if scope is not None and self._deadline != math.inf:
            scope.deadline = math.inf

    def stop(self, failure: MobysessionError) -> None:
        """Cancel the handler, now or when it would begin, because of ``failure``."""
        self.fail(failure)
        if self._scope is not None:
            self._scope.cancel()

    async def send_initial_metadata(self, metadata: Sequence[tuple[str, str | bytes]] = ()) -> None:
        """Begin the response before its first message, which otherwise does it with empty metadata."""
        await trio.lowlevel.checkpoint()
        if self._failure is not None:
            raise self._failure
        self._connection.core.send_initial_metadata(self.stream_id, metadata)
        if self.observer is not None:
            self.observer.initial_metadata(metadata)
        self._connection.writer.wake()

    def compress_answers(self) -> None:
        """Compress the answers with gzip where the peer takes that; nothing happens once an answer was sent."""
        self._connection.core.compress_answers(self.stream_id)


class Server(Connection):
    """The methods of a registrar, served on one stream. Made by `open_server`."""

    core: ServerConnection

    def __init__(
        self,
        stream: trio.abc.Stream,
        registrar: Registrar,
        *,
        on_call_started: Callable[[ServerCall], None] | None = None,
        on_call_ended: Callable[[ServerCall, StatusCode, str, BaseException | None], None] | None = None,
        max_message: int = limits.MAX_MESSAGE,
        keepalive: Keepalive | None = None,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(stream, ServerConnection(max_message=max_message), keepalive, observer)
        self._registrar = registrar
        #: Where handlers run; None while none may be started.
        self.nursery: trio.Nursery | None = None
        self._on_call_started = on_call_started
        self._on_call_ended = on_call_ended
        self._count = 0
        self._workers: Workers | None = None
        #: Somebody is reading, and nobody else may.
        self.reading = False
        #: There is nothing more to read.
        self.read_over = False
        #: Where the reader waits as long as the workers read.
        self._relieved = trio.lowlevel.ParkingLot()

    @property
    def session_id(self) -> str:
        """The ID of the session whose methods these are; empty where there is none."""
        return self._registrar.session_id

    def drain(self) -> None:
        """Ask the other side to open no more calls, and end once those that it had opened have ended.

        What it opens before it has heard of that is served too; `finish` still ends it all at once.
        """
        self.core.drain(b"the server is ending the connection")
        self.writer.wake()

    # -- reading -------------------------------------------------------------------------------------------------------

    def open(self, nursery: trio.Nursery) -> None:
        """Run handlers, in ``nursery``, from now on."""
        self.nursery = nursery
        self._workers = Workers(self, nursery)

    def abandon(self) -> None:
        """End the calls that have not begun and never will."""
        if self._workers is not None:
            self._workers.abandon()

    async def _read_until_closed(self) -> None:
        while not self.read_over:
            workers = self._workers
            if self.reading or (workers is not None and workers.reads):
                await self._relieved.park()
                continue
            await self.read_in_turn()
            if workers is not None and workers.waiting:
                workers.take_over()

    async def read_in_turn(self) -> None:
        """Read once, as the only one who does."""
        self.reading = True
        try:
            self.read_over = not await self._read()
        finally:
            self.reading = False
        if self.read_over:
            self._relieved.unpark_all()

    def look_after_reading(self) -> None:
        """Let the reader find out whether it has to read itself."""
        self._relieved.unpark_all()

    # -- calls ---------------------------------------------------------------------------------------------------------

    def handle_call_event(self, event: events.Event) -> None:
        """Start, feed and stop calls."""
        match event:
            case events.CallReceived():
                self.writer.courtesy.request_arrived()
                self._start(event)
            case events.RequestEnded(stream_id):
                self.writer.courtesy.request_arrived()
                if (call := self.calls.get(stream_id)) is not None:
                    call.end_of_messages()
            case events.CallReset(stream_id, _, error):
                call = self.calls.get(stream_id)
                if call is not None:
                    if isinstance(call, ServerCall):
                        call.cancelled_by_peer = error is None
                    self.call_lost(call, error or RpcError(StatusCode.CANCELLED, "the other side cancelled the call"))
            case _:
                pass

    def call_lost(self, call: Call, failure: MobysessionError) -> None:
        """Stop the handler of a call that nobody waits for any more."""
        if isinstance(call, ServerCall):
            call.stop(failure)
        else:
            call.fail(failure)

    def _start(self, received: events.CallReceived) -> None:
        self._count += 1
        call = ServerCall(self, received, self._count)
        method = self._registrar.find(received.method)
        _log.debug("call %d: %s", call.number, call.method)
        if self._on_call_started is not None:
            self._on_call_started(call)
        if self.observer is not None:
            call.observer = self.observer.call_started(call, call.metadata)
        if method is None:
            self._end(call, Outcome(StatusCode.UNIMPLEMENTED, f"unknown method {received.method}"))
        elif self.nursery is None or self._workers is None:
            self._end(call, Outcome(StatusCode.UNAVAILABLE, "the session is ending"))
        else:
            self.calls[received.stream_id] = call
            self._workers.waiting.append((call, method))

    def conclude(
        self,
        call: ServerCall,
        failure: BaseException | None = None,
        *,
        cancelled: bool = False,
        abandoned: bool = False,
    ) -> None:
        """End a call whose handler has returned, failed, been cancelled because of the call, or been given up."""
        call.leave()
        call.discard()
        outcome = OK if failure is None else outcome_of(call, failure)
        if cancelled:
            # Why it was stopped; only the deadline stops a call without a failure.
            stop = call.failure
            if stop is None:
                stop = RpcError(StatusCode.DEADLINE_EXCEEDED, "the deadline of the call has passed")
            code = stop.code if isinstance(stop, RpcError) else StatusCode.CANCELLED
            outcome = Outcome(code, stop.message, error=outcome.error)
        self.calls.pop(call.stream_id, None)
        if abandoned:
            # What is queued for a call that we give up must not hold up the goodbye.
            self.core.reset(call.stream_id)
            outcome = Outcome(StatusCode.CANCELLED, "the session ended")
        self._end(call, outcome)

    def _end(self, call: ServerCall, outcome: Outcome) -> None:
        code, message, details, trailers, error = outcome
        metadata = (*call.trailing_metadata, *trailers)
        try:
            self.core.send_trailers(call.stream_id, code, message, details=details, metadata=metadata)
        except LocalProtocolError as bad:
            code, message, error, details, metadata = StatusCode.INTERNAL, bad.message, bad, b"", ()
            self.core.send_trailers(call.stream_id, code, message)
        self.writer.wake()
        call.observe_end(code, message, details, metadata)
        _log.debug(
            "call %d ended with %s %s, %d bytes in, %d bytes out",
            call.number,
            code.name,
            message,
            call.bytes_received,
            call.bytes_sent,
        )
        if self._on_call_ended is not None:
            self._on_call_ended(call, code, message, error)


@asynccontextmanager
async def open_server(
    stream: trio.abc.Stream,
    registrar: Registrar,
    *,
    on_call_started: Callable[[ServerCall], None] | None = None,
    on_call_ended: Callable[[ServerCall, StatusCode, str, BaseException | None], None] | None = None,
    max_message: int = limits.MAX_MESSAGE,
    keepalive: Keepalive | None = None,
    observer: Observer | None = None,
) -> AsyncIterator[Server]:
    """Serve the methods of ``registrar`` on ``stream``, which the server owns from now on, while the block runs.

    A request's message over ``max_message`` bytes ends its call with RESOURCE_EXHAUSTED. With ``keepalive`` a silent
    connection is asked whether it lives, and ended with ConnectionLost where nothing answers.
    The callbacks, and ``observer``, are called in the loop and must not wait. At the end of the block running handlers
    are cancelled, their callers are told, and the stream is closed. A connection that ends before shows in ``closed``
    and ``failure``.
    """
    async with open_nursery() as pump:
        server = Server(
            stream,
            registrar,
            on_call_started=on_call_started,
            on_call_ended=on_call_ended,
            max_message=max_message,
            keepalive=keepalive,
            observer=observer,
        )
        pump.start_soon(server.run)
        try:
            async with open_nursery() as handlers:
                server.open(handlers)
                try:
                    yield server
                finally:
                    # The nursery closes when its last task ends, and the other side may call until the connection does.
                    server.nursery = None
                    handlers.cancel_scope.cancel()
        finally:
            server.abandon()
            await server.finish()

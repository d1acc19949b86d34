"""The pump between a byte stream and a `GrpcConnection`: one reader, one writer, and the calls between them.

::

    stream --> reader --> GrpcConnection.receive_data --> events --> the calls' inboxes
    stream <-- writer <-- GrpcConnection.data_to_send <-- the calls' queues

Only the writer (`mobysession.rpc.writer`) waits for the stream to take something. What the peer and the network do
ends `Connection.run` and shows in ``failure``; it is never raised where nobody could do anything about it.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

import trio

from mobysession import limits
from mobysession.errors import ConnectionLost, MobysessionError, RemoteProtocolError, RpcError, StatusCode
from mobysession.protocol import events
from mobysession.rpc.keepalive import keep_alive
from mobysession.rpc.peer_name import peer_name
from mobysession.rpc.pings import Pings
from mobysession.rpc.traffic import Traffic
from mobysession.rpc.watchdog import Watchdog
from mobysession.rpc.writer import Writer

if TYPE_CHECKING:
    from mobysession.protocol.connection import GrpcConnection
    from mobysession.rpc.call import Call
    from mobysession.rpc.inspection import Inspection
    from mobysession.rpc.keepalive import Keepalive
    from mobysession.rpc.observer import Observer
    from mobysession.rpc.security import Security

__all__ = ["Connection"]

_log = logging.getLogger("mobysession.rpc")

#: Events that are no call's.
_ON_CONNECTION = frozenset((events.SettingsReceived, events.PingAcknowledged, events.GoAwayReceived))

#: Bytes to ask the stream for until it turns out that there are more.
_SMALL_READ = 16 * limits.KIB


class Connection(ABC):
    """A `GrpcConnection` on a stream. `run` does the work; it ends with the stream or by `finish`, nothing else."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        core: GrpcConnection,
        keepalive: Keepalive | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.core = core
        self.calls: dict[int, Call] = {}
        self.traffic = Traffic(core.heads)
        self.writer = Writer(stream, core, self.traffic, self.calls)
        self.pings = Pings()
        self.watchdog = Watchdog(self)
        self.observer = observer
        #: Set when the peer's SETTINGS have arrived; then ``settings`` has their values by name.
        self.ready = trio.Event()
        self.settings: dict[str, int] = {}
        #: Why the connection is over; None while it is not, and when it was ended on request.
        self.failure: MobysessionError | None = None
        #: Set when nothing can be received or sent any more.
        self.closed = trio.Event()
        #: What gRPC calls the other end.
        self.peer_name = peer_name(stream)
        self._stream = stream
        self._keepalive = keepalive
        self._goaway: events.GoAwayReceived | None = None
        self._scope = trio.CancelScope(shield=True)
        #: Cancelled when the two tasks have nothing more to do.
        self._pump = self._scope
        self._read_size = _SMALL_READ

    @property
    def observer(self) -> Observer | None:
        """Who hears of the calls that begin from now on, and of all bytes; None for nobody."""
        return self.writer.observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        self.writer.observer = observer

    @cached_property
    def security(self) -> Security:
        """What gRPC's ``auth_context`` says of the connection; not before something has come over it."""
        from mobysession.rpc.security import security_of

        return security_of(self._stream)

    @property
    def round_trip(self) -> float | None:
        """Seconds that the latest PING of ours took; None where there was none."""
        return self.pings.round_trip

    async def run(self) -> None:
        """Pump until the stream ends; never raises for what the peer or the network did: see ``failure``."""
        try:
            # Shielded, because a cancelled owner still says goodbye: `finish` always ends it, in bounds.
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._pump = nursery.cancel_scope
                    nursery.start_soon(self._write_until_closed)
                    nursery.start_soon(self.watchdog.run)
                    if self._keepalive is not None:
                        nursery.start_soon(keep_alive, self, self._keepalive)
                    await self._read_until_closed()
                    nursery.cancel_scope.cancel()
        finally:
            self._over(self.failure or ConnectionLost("the connection was closed"))
            self.closed.set()
            # Closing is bounded by its own scope: a peer that reads nothing must not hold us up.
            with trio.move_on_after(limits.COMMAND_EXIT_TIMEOUT, shield=True):
                await trio.aclose_forcefully(self._stream) if self.failure else await self._stream.aclose()

    async def finish(self) -> None:
        """Send what is queued, say GOAWAY and end `run`, all within `limits.GOODBYE_TIMEOUT`, also when cancelled."""
        with trio.CancelScope(shield=True):
            writer = self.writer
            writer.ending = True
            writer.lingering = writer.lingering or self.core.has_queued
            writer.wake()
            with trio.move_on_after(limits.GOODBYE_TIMEOUT / 2):
                await self.closed.wait()
            # The peer does not open its window for what is queued; it may still read a goodbye.
            writer.impatient = True
            writer.wake()
            with trio.move_on_after(limits.GOODBYE_TIMEOUT / 2):
                await self.closed.wait()
        self._scope.cancel()

    async def ping(self) -> float:
        """Return the round trip to the peer in seconds; RpcError UNAVAILABLE when the connection ends meanwhile."""
        if self.closed.is_set():
            raise RpcError(StatusCode.UNAVAILABLE, "the connection was closed before the ping")
        ping = self.pings.begin()
        self.core.ping(ping.payload)
        self.writer.wake()
        try:
            await ping.over.wait()
        finally:
            self.pings.forget(ping)
        if ping.took is None:
            raise RpcError(StatusCode.UNAVAILABLE, "the connection ended during a ping")
        return ping.took

    def inspect(self) -> Inspection:
        """Return how the connection is: its calls, queues, windows, times and last frames."""
        from mobysession.rpc.inspection import inspect_connection

        return inspect_connection(self)

    def give_up(self, failure: MobysessionError) -> None:
        """End the connection at once because of ``failure``, without a goodbye that nobody would hear."""
        if not self.writer.ending and self.failure is None:
            self.failure = failure
            self._scope.cancel()

    # -- the two tasks -------------------------------------------------------------------------------------------------

    async def _read_until_closed(self) -> None:
        while await self._read():
            pass

    async def _read(self) -> bool:
        """Read once and pass on what that means; False when there is nothing more to read."""
        try:
            data = await self._stream.receive_some(self._read_size)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._lost(error)
            return False
        if not data:
            self._lost(None)
            return False
        # Room for 256 KiB is only asked for when there is so much: it costs more than a small read.
        self._read_size = limits.READ_SIZE if len(data) >= self._read_size else _SMALL_READ
        self.traffic.received(len(data))
        if (observer := self.writer.observer) is not None:
            observer.bytes_received(bytes(data))
        try:
            happened = self.core.receive_data(data)
        except RemoteProtocolError as error:
            self._violated(error)
            return True
        for event in happened:
            self.handle(event)
        if (self.core.terminated or self.core.exhausted) and not self.writer.ending:
            # A GOAWAY, and no answer will follow, whether the other side hangs up or not.
            self._lost(None)
            return False
        if self.core.wants_to_send or self.core.draining:
            self.writer.wake()
        return True

    def _violated(self, error: RemoteProtocolError) -> None:
        self.failure = error
        # Only the writer may finish a frame it is in the middle of; it sends the GOAWAY that explains, then ends. What
        # arrives until then means nothing any more.
        self.writer.ending = self.writer.lingering = True
        # The writer may be waiting for a peer that has stopped reading, and nobody need call `finish` before `closed`
        # is set.
        self._pump.deadline = trio.current_time() + limits.GOODBYE_TIMEOUT
        self.writer.wake()

    async def _write_until_closed(self) -> None:
        try:
            await self.writer.run()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # What the other side said before it hung up may still be there to read.
            with trio.move_on_after(limits.GOODBYE_TIMEOUT / 4):
                await trio.sleep_forever()
            self._lost(error)
        else:
            if self.writer.lingering:
                # Closing a socket with unread bytes in it would take the last words from the other side.
                with trio.move_on_after(limits.GOODBYE_TIMEOUT / 4):
                    await trio.sleep_forever()
        self._pump.cancel()

    def _lost(self, error: Exception | None) -> None:
        if self.writer.ending or self.failure is not None or (self.core.draining and not self.calls):
            return
        goaway = self._goaway
        if goaway is not None and (goaway.error_code or goaway.debug_data):
            text = goaway.debug_data.decode("utf-8", "replace")
            message = f"the other side ended the connection: error {goaway.error_code} {text}".rstrip()
        else:
            message = "the other side closed the connection"
        self.failure = ConnectionLost(message)
        self.failure.__cause__ = error

    def _over(self, failure: MobysessionError) -> None:
        for call in list(self.calls.values()):
            self.call_lost(call, failure)
        self.pings.give_up()

    # -- events --------------------------------------------------------------------------------------------------------

    def handle(self, event: events.Event) -> None:
        """Pass one event to the call it belongs to."""
        # Most of all there are these, and a chain of patterns would be tried for each of them.
        if isinstance(event, events.MessagesReceived):
            if (call := self.calls.get(event.stream_id)) is not None:
                call.deliver(event.messages)
        elif type(event) in _ON_CONNECTION:
            self._handle_connection_event(event)
        else:
            self.handle_call_event(event)

    def _handle_connection_event(self, event: events.Event) -> None:
        match event:
            case events.SettingsReceived(settings):
                self.settings = settings
                self.ready.set()
            case events.PingAcknowledged(payload):
                self.pings.answered(payload)
            case events.GoAwayReceived():
                self._goaway = event
                _log.debug("the other side says goodbye: %r", event)
            case _:
                pass

    @abstractmethod
    def handle_call_event(self, event: events.Event) -> None:
        """Take an event that the two roles treat differently."""

    @abstractmethod
    def call_lost(self, call: Call, failure: MobysessionError) -> None:
        """Take the news that ``call`` cannot go on because the connection is over."""

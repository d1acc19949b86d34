"""The pump between a byte stream and a `GrpcConnection`: one reader, one writer, and the calls between them.

::

    stream --> reader --> GrpcConnection.receive_data --> events --> the calls' inboxes
    stream <-- writer <-- GrpcConnection.data_to_send <-- the calls' queues

Nobody but the writer waits for the stream to take something: a cancelled ``send_all`` may have sent part of a frame,
after which every other call on the connection would be garbage. Others may put into a plain socket what it takes at
once, as long as the writer is not in the middle of something (`mobysession.rpc.port`).
"""

from __future__ import annotations

import itertools
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING

import trio

from mobysession import limits
from mobysession.errors import ConnectionLost, MobysessionError, RemoteProtocolError, RpcError, StatusCode
from mobysession.protocol import events
from mobysession.rpc.courtesy import Courtesy
from mobysession.rpc.keepalive import keep_alive
from mobysession.rpc.port import nowait_sender
from mobysession.rpc.traffic import Traffic
from mobysession.rpc.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mobysession.protocol.connection import GrpcConnection
    from mobysession.protocol.framing import Buffer
    from mobysession.rpc.inspection import Inspection
    from mobysession.rpc.keepalive import Keepalive

__all__ = ["Call", "Connection"]

_log = logging.getLogger("mobysession.rpc")

#: Events that are no call's.
_ON_CONNECTION = frozenset((events.SettingsReceived, events.PingAcknowledged, events.GoAwayReceived))

#: Messages, and bytes, that one call may take or queue before others get their turn.
_SHARED_TURN = 32
_SHARED_BYTES = limits.WRITE_SIZE
#: Bytes to ask the stream for until it turns out that there are more.
_SMALL_READ = 16 * limits.KIB


class Call:
    """One gRPC call on a connection: an inbox of messages, and a way to queue answers."""

    def __init__(self, connection: Connection, stream_id: int, method: str) -> None:
        self.method = method
        self.stream_id = stream_id
        #: Bytes of messages received and sent so far, for whoever counts.
        self.bytes_received = 0
        self.bytes_sent = 0
        #: By `time.monotonic`.
        self.started = time.monotonic()
        self._connection = connection
        self._inbox: deque[bytes] = deque()
        #: Who waits for messages, and for room in the queue; None while nobody does.
        self._arrived: trio.lowlevel.ParkingLot | None = None
        self._drained: trio.lowlevel.ParkingLot | None = None
        #: Bytes in the queue at which whoever waits for room is told.
        self.enough_room = limits.SEND_QUEUE // 2
        #: The peer sends no more messages.
        self._peer_ended = False
        #: Why the call is over before its time.
        self._failure: MobysessionError | None = None
        #: What was taken and queued without a turn for others.
        self._messages_in_turn = 0
        self._bytes_in_turn = 0

    @property
    def failure(self) -> MobysessionError | None:
        """Why the call is over before its time; None where it is not."""
        return self._failure

    @property
    def unread(self) -> int:
        """Bytes of messages that arrived and that nobody has taken."""
        return sum(map(len, self._inbox))

    async def receive_batch(self) -> list[bytes]:
        """Return every message that has arrived, waiting for at least one; empty when the peer sends no more.

        Raises:
            RpcError: the call failed or was cancelled.

        Cancel: no message is lost; the next call returns it.
        """
        await self._wait_for_messages()
        messages = list(self._inbox)
        self._inbox.clear()
        if messages:
            await self._consumed(messages)
        return messages

    async def receive(self) -> bytes | None:
        """Return the next message; None when the peer sends no more. Otherwise as `receive_batch`."""
        await self._wait_for_messages()
        if not self._inbox:
            return None
        message = self._inbox.popleft()
        await self._consumed((message,))
        return message

    async def _wait_for_messages(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._inbox:
            if self._failure is not None:
                raise self._failure
            if self._peer_ended:
                return
            if self._arrived is None:
                self._arrived = trio.lowlevel.ParkingLot()
            await self._arrived.park()
            self._messages_in_turn = self._bytes_in_turn = 0

    async def _consumed(self, messages: Sequence[bytes]) -> None:
        size = sum(map(len, messages))
        self.bytes_received += size
        core = self._connection.core
        core.consumed(self.stream_id, messages)
        if core.wants_to_send:
            self._connection.wake_writer()
        await self._take_turn(len(messages), size)

    async def _take_turn(self, messages: int, size: int) -> None:
        """Give others their turn once this call has had enough; messages are in safe hands and cannot be lost."""
        self._messages_in_turn += messages
        self._bytes_in_turn += size
        if self._messages_in_turn > _SHARED_TURN or self._bytes_in_turn >= _SHARED_BYTES:
            self._messages_in_turn = self._bytes_in_turn = 0
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def send_batch(self, messages: Sequence[Buffer], *, compress: bool = True) -> None:
        """Queue ``messages``, then wait while the call has more than `limits.SEND_QUEUE` bytes queued.

        Or while it has more than a small answer queued, and all calls together more than `limits.MAX_QUEUED`.

        Their bytes must not be changed afterwards. What the peer's flow control holds back waits in the queue.
        ``compress`` takes effect on calls whose answers are compressed.

        Several small batches in a row may share one turn of the loop, and leave in one frame.

        Cancel: the messages are queued, unless the cancellation came first.

        Raises:
            RpcError: the call failed or was cancelled.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._failure is not None:
            raise self._failure
        connection = self._connection
        core = connection.core
        size = sum(map(len, messages))
        self.bytes_sent += size
        core.send_messages(self.stream_id, messages, compress=compress)
        written = 0
        if size > limits.SMALL_ANSWER and len(connection.calls) == 1:
            # Enough to be worth a write of its own; several calls leave it to the writer, who knows whose turn it is.
            written = connection.send_now(bulk=True)
        else:
            connection.wake_writer()
        await self._take_turn(len(messages), written)
        while not core.has_room(self.stream_id):
            await self._wait_for_room()
            if self._failure is not None:
                raise self._failure

    async def send(self, message: Buffer) -> None:
        """Queue one message; see `send_batch`."""
        await self.send_batch((message,))

    async def _wait_for_room(self) -> None:
        if self._drained is None:
            self._drained = trio.lowlevel.ParkingLot()
        waiting = self._connection.waiting_for_room
        waiting.add(self)
        try:
            await self._drained.park()
        finally:
            waiting.discard(self)

    # -- what the connection tells ------------------------------------------------------------------------------------

    def deliver(self, messages: list[bytes]) -> None:
        """Take messages that arrived."""
        self._inbox.extend(messages)
        if self._arrived is not None:
            self._arrived.unpark_all()

    def end_of_messages(self) -> None:
        """Take the news that the peer sends no more."""
        self._peer_ended = True
        self._wake_all()

    def fail(self, failure: MobysessionError) -> None:
        """Take the news that the call is over before its time; the first reason counts."""
        if self._failure is None:
            self._failure = failure
        self._wake_all()

    def discard(self) -> None:
        """Drop what arrived and nobody took; it would live as long as whoever still knows the call."""
        self._inbox.clear()

    def drained(self) -> None:
        """Take the news that the writer made room."""
        if self._drained is not None:
            self._drained.unpark_all()

    def _wake_all(self) -> None:
        if self._arrived is not None:
            self._arrived.unpark_all()
        if self._drained is not None:
            self._drained.unpark_all()


class _Ping:
    """A PING of ours on its way."""

    def __init__(self) -> None:
        self.sent_at = trio.current_time()
        self.over = trio.Event()
        #: Seconds; None while it is not answered.
        self.took: float | None = None

    def answer(self) -> float:
        """Take the answer; return the round trip."""
        self.took = trio.current_time() - self.sent_at
        self.over.set()
        return self.took


class Connection(ABC):
    """A `GrpcConnection` on a stream. `run` does the work; it ends with the stream or by `finish`, nothing else."""

    def __init__(self, stream: trio.abc.Stream, core: GrpcConnection, keepalive: Keepalive | None = None) -> None:
        self.core = core
        self.traffic = Traffic(core.heads)
        self.watchdog = Watchdog(self)
        self.courtesy = Courtesy()
        #: Seconds that the latest PING of ours took; None where there was none.
        self.round_trip: float | None = None
        #: Set when the peer's SETTINGS have arrived; then ``settings`` has their values by name.
        self.ready = trio.Event()
        self.settings: dict[str, int] = {}
        #: Why the connection is over; None while it is not, and when it was ended on request.
        self.failure: MobysessionError | None = None
        #: Set when nothing can be received or sent any more.
        self.closed = trio.Event()
        self.calls: dict[int, Call] = {}
        #: The calls whose senders wait for room in their queues.
        self.waiting_for_room: set[Call] = set()
        self._stream = stream
        self._send_nowait = nowait_sender(stream)
        self._keepalive = keepalive
        #: Where the writer waits for something to do; nobody stands there while it works.
        self._idle = trio.lowlevel.ParkingLot()
        #: What `send_now` could not put into the socket; it has begun, so nothing may come before it.
        self._rest = b""
        #: Somebody at work looks for what is to be sent before it lets others run; see `hold`.
        self._held = False
        #: The writer has not let others run since it wrote.
        self._doubled = False
        #: Something may be there to be sent.
        self._wanted = True
        self._ending = False
        #: Set when the last words matter, so that the other side gets time to read them and hang up.
        self._lingering = False
        #: Set when what is queued gets no more time.
        self._impatient = False
        self._goaway: events.GoAwayReceived | None = None
        self._pings: dict[bytes, _Ping] = {}
        self._ping_numbers = itertools.count()
        self._scope = trio.CancelScope(shield=True)
        #: Cancelled when the two tasks have nothing more to do.
        self._pump = self._scope
        self._read_size = _SMALL_READ

    def wake_writer(self) -> None:
        """Have somebody look for something to send: the writer, or whoever holds it."""
        self._wanted = True
        if not self._held:
            self._idle.unpark_all()

    def hold(self) -> None:
        """Leave what is to be sent to the running task, until it calls `release`; it must do so before it waits."""
        self._held = True

    def release(self) -> None:
        """Give what is to be sent back to the writer."""
        self._held = False
        if self._wanted:
            self._idle.unpark_all()

    def send_now(self, *, bulk: bool = False) -> int:
        """Put into the socket what it takes at once of what is to be sent, and leave the rest to the writer.

        Without ``bulk``, or when bulk has to wait its turn, only small answers go now.

        Returns: the number of bytes that went.
        """
        if self._send_nowait is None or self._rest or self._ending or self.core.draining or not self._idle:
            # There is no such way, or a frame to be finished, or a goodbye to be said, or the writer is at work.
            self.wake_writer()
            return 0
        bulk = bulk and not self.courtesy.owed
        data = self.core.data_to_send(bulk=bulk)
        left = b""
        if data:
            self.traffic.sending(data)
            left = data[self._send_nowait(data) :]
            if left:
                self._rest = left
            else:
                self.traffic.sent()
                self._tell_drained()
        self._wanted = False
        if left or self.core.wants_to_send:
            self.wake_writer()
        return len(data) - len(left)

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
            self._ending = True
            self._lingering = self._lingering or self.core.has_queued
            self.wake_writer()
            with trio.move_on_after(limits.GOODBYE_TIMEOUT / 2):
                await self.closed.wait()
            # The peer does not open its window for what is queued; it may still read a goodbye.
            self._impatient = True
            self.wake_writer()
            with trio.move_on_after(limits.GOODBYE_TIMEOUT / 2):
                await self.closed.wait()
        self._scope.cancel()

    async def ping(self) -> float:
        """Return the round trip to the peer in seconds; RpcError UNAVAILABLE when the connection ends meanwhile."""
        if self.closed.is_set():
            raise RpcError(StatusCode.UNAVAILABLE, "the connection was closed before the ping")
        payload = next(self._ping_numbers).to_bytes(8, "big")
        ping = self._pings[payload] = _Ping()
        self.core.ping(payload)
        self.wake_writer()
        try:
            await ping.over.wait()
        finally:
            self._pings.pop(payload, None)
        if ping.took is None:
            raise RpcError(StatusCode.UNAVAILABLE, "the connection ended during a ping")
        return ping.took

    def asked_at(self) -> Iterator[float]:
        """Yield when each PING of ours that is not answered was sent."""
        return (ping.sent_at for ping in self._pings.values() if ping.took is None)

    def inspect(self) -> Inspection:
        """Return how the connection is: its calls, queues, windows, times and last frames."""
        from mobysession.rpc.inspection import inspect_connection

        return inspect_connection(self)

    def give_up(self, failure: MobysessionError) -> None:
        """End the connection at once because of ``failure``, without a goodbye that nobody would hear."""
        if not self._ending and self.failure is None:
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
        try:
            happened = self.core.receive_data(data)
        except RemoteProtocolError as error:
            self._violated(error)
            return True
        for event in happened:
            self.handle(event)
        if (self.core.terminated or self.core.exhausted) and not self._ending:
            # A GOAWAY, and no answer will follow, whether the other side hangs up or not.
            self._lost(None)
            return False
        if self.core.wants_to_send or self.core.draining:
            self.wake_writer()
        return True

    def _violated(self, error: RemoteProtocolError) -> None:
        self.failure = error
        # Only the writer may finish a frame it is in the middle of; it sends the GOAWAY that explains, then ends. What
        # arrives until then means nothing any more.
        self._ending = self._lingering = True
        # The writer may be waiting for a peer that has stopped reading, and nobody need call `finish` before `closed`
        # is set.
        self._pump.deadline = trio.current_time() + limits.GOODBYE_TIMEOUT
        self.wake_writer()

    async def _write_until_closed(self) -> None:
        while True:
            if self._rest:
                data, self._rest = self._rest, b""
            else:
                self._wanted = False
                bulk = self.courtesy.bulk_may_go(self.core.bulk_waits)
                data = self.core.data_to_send(bulk=bulk)
                if not bulk and not data:
                    await trio.lowlevel.checkpoint()
                    continue
                if data:
                    self.traffic.sending(data)
            if data:
                try:
                    await self._send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    # What the other side said before it hung up may still be there to read.
                    with trio.move_on_after(limits.GOODBYE_TIMEOUT / 4):
                        await trio.sleep_forever()
                    self._lost(error)
                    self._pump.cancel()
                    return
                self.traffic.sent()
                self._tell_drained()
                continue
            if self.core.drained:
                self._ending = self._lingering = True
            if self._ending:
                if self.core.terminated:
                    if self._lingering:
                        # Closing a socket with unread bytes in it would take the last words from the other side.
                        with trio.move_on_after(limits.GOODBYE_TIMEOUT / 4):
                            await trio.sleep_forever()
                    self._pump.cancel()
                    return
                if self._impatient or not self.core.has_queued:
                    self.core.close()
                    continue
            while not self._wanted:
                await self._idle.park()

    async def _send_all(self, data: bytes) -> None:
        if self._send_nowait is not None:
            # What a stream does around the same call costs as much as the call.
            sent = self._send_nowait(data)
            if sent == len(data):
                # A second write in the same turn, where there is but one call whose answers could be late for it.
                self._doubled = len(self.calls) == 1 and not self._doubled
                if not self._doubled:
                    await trio.lowlevel.checkpoint()
                return
            await self._stream.send_all(memoryview(data)[sent:])
        else:
            await self._stream.send_all(data)

    def _tell_drained(self) -> None:
        for call in self.waiting_for_room:
            if self.core.queued(call.stream_id) <= call.enough_room:
                call.drained()

    def _lost(self, error: Exception | None) -> None:
        if self._ending or self.failure is not None or (self.core.draining and not self.calls):
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
        for ping in self._pings.values():
            ping.over.set()

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
                if (ping := self._pings.get(payload)) is not None:
                    self.round_trip = ping.answer()
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

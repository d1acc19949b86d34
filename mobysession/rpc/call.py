"""One gRPC call on a connection: an inbox of messages, and a way to queue answers. What both roles have in common."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

import trio

from mobysession import limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession.errors import MobysessionError, StatusCode
    from mobysession.protocol.framing import Buffer
    from mobysession.rpc.connection import Connection
    from mobysession.rpc.observer import CallObserver

__all__ = ["Call"]

#: Messages, and bytes, that one call may take or queue before others get their turn.
_SHARED_TURN = 32
_SHARED_BYTES = limits.WRITE_SIZE


class Call:
    """A call, from whichever side."""

    def __init__(self, connection: Connection, stream_id: int, method: str) -> None:
        self.method = method
        self.stream_id = stream_id
        #: Bytes of messages received and sent so far, for whoever counts.
        self.bytes_received = 0
        self.bytes_sent = 0
        #: By `time.monotonic`.
        self.started = time.monotonic()
        #: Who is told what goes over it; nearly always nobody.
        self.observer: CallObserver | None = None
        self._connection = connection
        self._inbox: deque[bytes] = deque()
        #: Where one waits for messages, and for room in the queue; made when somebody does.
        self._arrived: trio.lowlevel.ParkingLot | None = None
        self._drained: trio.lowlevel.ParkingLot | None = None
        #: Tasks that wait for messages.
        self._waiting = 0
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
            self._waiting += 1
            try:
                await self._arrived.park()
            finally:
                self._waiting -= 1
            self._messages_in_turn = self._bytes_in_turn = 0

    async def _consumed(self, messages: Sequence[bytes]) -> None:
        size = sum(map(len, messages))
        self.bytes_received += size
        core = self._connection.core
        core.consumed(self.stream_id, messages)
        if core.wants_to_send:
            self._connection.writer.wake()
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
        if self.observer is not None:
            self.observer.sent(messages)
        written = 0
        if size > limits.SMALL_ANSWER and len(connection.calls) == 1:
            # Enough to be worth a write of its own; several calls leave it to the writer, who knows whose turn it is.
            written = connection.writer.send_now(bulk=True)
        else:
            connection.writer.wake()
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
        waiting = self._connection.writer.waiting_for_room
        waiting.add(self)
        try:
            await self._drained.park()
        finally:
            # Another task may be waiting for the same room.
            if not self._drained:
                waiting.discard(self)

    # -- what the connection tells ------------------------------------------------------------------------------------

    def deliver(self, messages: list[bytes]) -> None:
        """Take messages that arrived."""
        self._inbox.extend(messages)
        if self.observer is not None:
            self.observer.received(messages)
        if self._waiting and self._arrived is not None:
            self._arrived.unpark_all()

    def end_of_messages(self) -> None:
        """Take the news that the peer sends no more."""
        self._peer_ended = True
        if self.observer is not None:
            self.observer.received_all()
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

    def observe_end(
        self, code: StatusCode, message: str, details: bytes = b"", trailers: Sequence[tuple[str, str | bytes]] = ()
    ) -> None:
        """Tell the observer, if there is one, how the call ended; only the first end counts."""
        if self.observer is not None:
            observer, self.observer = self.observer, None
            observer.ended(code, message, details, trailers)

    def _wake_all(self) -> None:
        if self._arrived is not None:
            self._arrived.unpark_all()
        if self._drained is not None:
            self._drained.unpark_all()

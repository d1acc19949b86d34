"""The one who writes: takes from the core what is to be sent and gives it to the stream, in order and whole frames.

Nobody but the writer waits for the stream to take something: a cancelled ``send_all`` may have sent part of a frame,
after which every other call on the connection would be garbage. Others may put into a plain socket what it takes at
once, as long as the writer is not in the middle of something (`mobysession.rpc.port`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from mobysession.rpc.courtesy import Courtesy
from mobysession.rpc.port import nowait_sender, supply, unsent

if TYPE_CHECKING:
    from collections.abc import Sized

    from mobysession.protocol.connection import GrpcConnection
    from mobysession.protocol.framing import Buffer
    from mobysession.rpc.call import Call
    from mobysession.rpc.observer import Observer
    from mobysession.rpc.traffic import Traffic

__all__ = ["Writer"]


class Writer:
    """The writer of one connection.

    Args:
        stream: what is written to; nobody else may.
        core: what has the bytes.
        traffic: where is noted what was written.
        calls: the calls of the connection; how many there are decides how often others get their turn.
    """

    def __init__(self, stream: trio.abc.Stream, core: GrpcConnection, traffic: Traffic, calls: Sized) -> None:
        self.courtesy = Courtesy()
        self.observer: Observer | None = None
        #: The calls whose senders wait for room in their queues.
        self.waiting_for_room: set[Call] = set()
        #: A goodbye is to be said once all is sent that may be; then `run` ends.
        self.ending = False
        #: Set when what is queued gets no more time.
        self.impatient = False
        #: Set when the last words matter, so that the other side gets time to read them and hang up.
        self.lingering = False
        self._stream = stream
        self._core = core
        self._traffic = traffic
        self._calls = calls
        self._send_nowait = nowait_sender(stream)
        supply(stream)
        #: Where the writer waits for something to do, and whether it is there and not called yet.
        self._bench = trio.lowlevel.ParkingLot()
        self._idle = False
        #: What `send_now` could not put into the socket; it has begun, so nothing may come before it.
        self._rest = b""
        #: Somebody at work looks for what is to be sent before it lets others run; see `hold`.
        self._held = False
        #: The writer has not let others run since it wrote.
        self._doubled = False
        #: Something may be there to be sent.
        self._wanted = True

    def wake(self) -> None:
        """Have somebody look for something to send: the writer, or whoever holds it."""
        self._wanted = True
        if self._idle and not self._held:
            self._call()

    def hold(self) -> None:
        """Leave what is to be sent to the running task, until it calls `release`; it must do so before it waits."""
        self._held = True

    def release(self) -> None:
        """Give what is to be sent back to the writer."""
        self._held = False
        if self._idle and self._wanted:
            self._call()

    def _call(self) -> None:
        self._idle = False
        self._bench.unpark_all()

    def send_now(self, *, bulk: bool = False) -> int:
        """Put into the socket what it takes at once of what is to be sent, and leave the rest to the writer.

        Without ``bulk``, or when bulk has to wait its turn, only small answers go now.

        Returns: the number of bytes that went.
        """
        core = self._core
        if not self._idle or self._send_nowait is None or self._rest or self.ending or core.draining:
            # The writer is at work, or there is no such way, or a frame to be finished, or a goodbye to be said.
            self.wake()
            return 0
        if not core.bulk_waits:
            self.courtesy.nothing_waits()
        pieces = core.pieces_to_send(bulk=bulk and not self.courtesy.owed)
        sent = size = 0
        if pieces:
            size = self._note(pieces)
            sent = self._send_nowait(pieces, size)
            if sent < size:
                self._rest = unsent(pieces, sent)
            else:
                self._taken()
        self._wanted = False
        if sent < size or core.wants_to_send:
            self.wake()
        return sent

    async def run(self) -> None:
        """Write until the goodbye is said; raises what the stream raises."""
        try:
            await self._write_on()
        finally:
            self._idle = False

    async def _write_on(self) -> None:
        core = self._core
        while True:
            if self._rest:
                rest, self._rest = self._rest, b""
                await self._stream.send_all(rest)
                self._taken()
                continue
            self._wanted = False
            bulk = self.courtesy.bulk_may_go(core.bulk_waits)
            pieces = core.pieces_to_send(bulk=bulk)
            if pieces:
                await self._write(pieces)
            elif not bulk:
                await trio.lowlevel.checkpoint()
            elif self._has_said_all():
                return
            else:
                while not self._wanted:
                    self._idle = True
                    await self._bench.park()

    def _has_said_all(self) -> bool:
        """Say the goodbye if it is time; True when it was sent."""
        core = self._core
        if core.drained:
            self.ending = self.lingering = True
        if self.ending:
            if core.terminated:
                return True
            if self.impatient or not core.has_queued:
                core.close()
                self._wanted = True
        return False

    async def _write(self, pieces: list[Buffer]) -> None:
        size = self._note(pieces)
        if self._send_nowait is None:
            await self._stream.send_all(b"".join(pieces))
        else:
            # What a stream does around the same call costs as much as the call.
            sent = self._send_nowait(pieces, size)
            if sent < size:
                await self._stream.send_all(unsent(pieces, sent))
            else:
                # A second write in the same turn, where there is but one call whose answers could be late for it.
                self._doubled = len(self._calls) == 1 and not self._doubled
                if not self._doubled:
                    await trio.lowlevel.checkpoint()
        self._taken()

    def _note(self, pieces: list[Buffer]) -> int:
        """Note that ``pieces`` are about to be written; return how many bytes they are."""
        size = sum(map(len, pieces))
        self._traffic.sending(pieces, size)
        if self.observer is not None:
            self.observer.bytes_sent(pieces)
        return size

    def _taken(self) -> None:
        self._traffic.sent()
        if self.waiting_for_room:
            self._tell_drained()

    def _tell_drained(self) -> None:
        for call in self.waiting_for_room:
            if self._core.queued(call.stream_id) <= call.enough_room:
                call.drained()

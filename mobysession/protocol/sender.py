"""What a connection says next: what h2 has to say, then the streams' queues in the order of the outbox.

Nothing is joined and nothing copied on the way: what comes out is a row of pieces, our own frames and heads of frames
as `bytes`, and between them views of the messages that were queued. Whoever writes to a socket can hand over the row as
it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession import limits
from mobysession.protocol.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession.protocol.framing import Buffer
    from mobysession.protocol.http2 import Http2
    from mobysession.protocol.outbox import StreamQueue

__all__ = ["Sender"]

#: Bytes that a slice may have more than `limits.SLICE` if it is the last one of what is queued.
_CRUMB = 1 * limits.KIB


class Sender:
    """The sending half of one connection.

    Args:
        http2: whose frames and windows these are.
        end_stream: called when the last byte of a queue that has an ending was sent.
    """

    def __init__(self, http2: Http2, end_stream: Callable[[StreamQueue], None]) -> None:
        self.outbox = Outbox()
        #: Bytes of control frames that the peer made us say since it last took something.
        self.pending_control = 0
        #: Nothing is sent but what h2 has to say.
        self.closed = False
        self._http2 = http2
        self._end_stream = end_stream
        #: Taken from h2, so that those of its doing can be told from ours.
        self._early: list[Buffer] = []

    @property
    def wants_to_send(self) -> bool:
        """True when `pieces` probably has something; never False when it has."""
        return bool(self._early or self._http2.has_pieces or self.outbox.stands)

    def gather(self, *, control: bool = True) -> None:
        """Take from h2 what it has for the peer; ``control`` counts it as the peer's doing."""
        if pieces := self._http2.take():
            self._early += pieces
            if control:
                self.pending_control += sum(map(len, pieces))

    def pieces(self, *, bulk: bool = True) -> list[Buffer]:
        """Return the next pieces for the peer; see `GrpcConnection.pieces_to_send`."""
        budget = limits.WRITE_SIZE
        outbox = self.outbox
        # A connection that is going away has its GOAWAY and nothing else to say.
        while budget > 0 and not self.closed:
            turn = outbox.next(bulk=bulk)
            if turn is None:
                break
            budget -= self._send_some(*turn)
        pieces = self._http2.take()
        if self._early:
            pieces, self._early = [*self._early, *pieces], []
        self.pending_control = 0
        return pieces

    def _send_some(self, queue: StreamQueue, bulk: bool) -> int:
        """Send at most a slice of one stream, and its end behind its last byte; return the bytes sent."""
        http2, size = self._http2, queue.size
        sent = 0
        if size:
            stream = http2.streams[queue.stream_id]
            # Nobody else waits for the turn of a stream that is alone.
            allowed = limits.SLICE if self.outbox.stands else limits.WRITE_SIZE
            # A message of 64 KiB has a prefix, whose five bytes must not become a frame of their own.
            if size <= allowed + _CRUMB:
                allowed = size
            sent = min(allowed, http2.sendable(stream, limits.WINDOW_RESERVE if bulk else 0))
            if sent > 0:
                http2.send_slice(stream, queue.take_pieces(sent), sent)
            else:
                sent = 0
            http2.abuse.sent(sent, drained=sent == size)
            if sent < allowed:
                # Out of line until a WINDOW_UPDATE or SETTINGS brings it back.
                return sent
        if sent < size:
            self.outbox.line_up(queue)
        elif queue.ending is not None:
            self._end_stream(queue)
            http2.abuse.call_ended()
        return sent

    # -- how it is -----------------------------------------------------------------------------------------------------

    def queued(self, stream_id: int) -> int:
        """Return the bytes of a call that wait to be sent; 0 for a call that is over."""
        queue = self.outbox.streams.get(stream_id)
        return queue.size if queue is not None else 0

    def has_room(self, stream_id: int) -> bool:
        """Tell whether a call may queue more; see `GrpcConnection.has_room`."""
        size = self.queued(stream_id)
        if size <= limits.SMALL_ANSWER:
            return True
        if size > limits.SEND_QUEUE:
            return False
        queues = self.outbox.streams
        return len(queues) == 1 or sum([queue.size for queue in queues.values()]) <= limits.MAX_QUEUED

    @property
    def has_queued(self) -> bool:
        """True while a call has messages, or its end, waiting for the peer's window or for `pieces`."""
        queues = self.outbox.streams.values()
        return not self.closed and any(queue.size or queue.ending is not None for queue in queues)

    def waiting(self) -> dict[int, tuple[int, int]]:
        """Return, of each call that has bytes to send, how many wait and how many `pieces` has returned."""
        return {
            stream_id: (queue.size, queue.total - queue.size)
            for stream_id, queue in self.outbox.streams.items()
            if queue.size
        }

    # -- who may go on -------------------------------------------------------------------------------------------------

    def window_opened(self, stream_id: int) -> None:
        """Bring a stream back in line whose window has opened; 0 stands for the connection's, and for all streams."""
        if stream_id:
            queue = self.outbox.streams.get(stream_id)
            queues = [queue] if queue is not None else []
        else:
            queues = list(self.outbox.streams.values())
        for queue in queues:
            if queue.size or queue.ending is not None:
                self.outbox.line_up(queue)

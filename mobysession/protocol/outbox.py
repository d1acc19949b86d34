"""Who sends next: the queues of a connection's streams and the order in which they get the socket.

Small answers go first, so that a health check is answered in the middle of a 10 GiB upload. Bulk streams take turns of
one slice each, and leave a reserve of the connection's send window to the small ones: a daemon that reads slowly would
otherwise keep an answer waiting until it has read everything else.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from mobysession.limits import SMALL_ANSWER

if TYPE_CHECKING:
    from mobysession.protocol.framing import Buffer

__all__ = ["Outbox", "StreamQueue"]


class StreamQueue:
    """What one stream still has to send: chunks of bytes, then perhaps its end."""

    __slots__ = ("chunks", "ending", "offset", "size", "stream_id", "total", "waiting")

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        self.chunks: deque[memoryview] = deque()
        self.offset = 0
        self.size = 0
        #: Bytes queued in all the stream's life.
        self.total = 0
        #: None: goes on; empty: END_STREAM; else the trailers to end with.
        self.ending: list[tuple[bytes, bytes]] | None = None
        #: True while the stream stands in one of the two lines of the outbox.
        self.waiting = False

    @property
    def bulk(self) -> bool:
        """True once more than a small answer was queued; from then on, so that its last bytes overtake nobody."""
        return self.total > SMALL_ANSWER and self.size > 0

    def append(self, data: Buffer) -> None:
        """Queue ``data``; it must not be changed afterwards."""
        if data:
            self.chunks.append(memoryview(data))
            self.size += len(data)
            self.total += len(data)

    def take_pieces(self, limit: int) -> list[memoryview]:
        """Remove at most ``limit`` bytes from the front, and return them as views of what was queued."""
        chunks = self.chunks
        pieces: list[memoryview] = []
        missing = min(limit, self.size)
        self.size -= missing
        while missing:
            chunk = chunks[0]
            offset, left = self.offset, len(chunk) - self.offset
            if left <= missing:
                pieces.append(chunk[offset:] if offset else chunk)
                chunks.popleft()
                self.offset = 0
                missing -= left
            else:
                pieces.append(chunk[offset : offset + missing])
                self.offset = offset + missing
                missing = 0
        return pieces


class Outbox:
    """Two lines of streams that have something to send; each line is served in turns."""

    def __init__(self) -> None:
        self._small: deque[StreamQueue] = deque()
        self._bulk: deque[StreamQueue] = deque()
        self.streams: dict[int, StreamQueue] = {}

    def queue(self, stream_id: int) -> StreamQueue:
        """Return the queue of ``stream_id``, made on first use."""
        queue = self.streams.get(stream_id)
        if queue is None:
            queue = self.streams[stream_id] = StreamQueue(stream_id)
        return queue

    def line_up(self, queue: StreamQueue) -> None:
        """Let ``queue`` stand in line, in the one for its kind, unless it stands already."""
        if not queue.waiting:
            queue.waiting = True
            (self._bulk if queue.bulk else self._small).append(queue)

    @property
    def stands(self) -> bool:
        """True while any stream stands in line."""
        return bool(self._small or self._bulk)

    @property
    def bulk_waits(self) -> bool:
        """True while a bulk stream stands in line; one that waits for a window does not."""
        return bool(self._bulk)

    def next(self, *, bulk: bool = True) -> tuple[StreamQueue, bool] | None:
        """Take the next stream out of line; True marks bulk. Who has more to send lines up again, at the end.

        Without ``bulk`` only the small answers get their turns.
        """
        while self._small:
            queue = self._small.popleft()
            if not queue.bulk:
                queue.waiting = False
                return queue, False
            # It has grown while it stood here.
            self._bulk.append(queue)
        if not self._bulk or not bulk:
            return None
        queue = self._bulk.popleft()
        queue.waiting = False
        return queue, True

    def drop(self, stream_id: int) -> None:
        """Forget a stream and what it had queued."""
        queue = self.streams.pop(stream_id, None)
        if queue is not None and queue.waiting:
            line = self._small if queue in self._small else self._bulk
            line.remove(queue)

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

    __slots__ = ("chunks", "ending", "offset", "size", "stream_id", "waiting")

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        self.chunks: deque[memoryview] = deque()
        self.offset = 0
        self.size = 0
        #: None: goes on; empty: END_STREAM; else the trailers to end with.
        self.ending: list[tuple[bytes, bytes]] | None = None
        #: True while the stream stands in one of the two lines of the outbox.
        self.waiting = False

    def append(self, data: Buffer) -> None:
        """Queue ``data``; it must not be changed afterwards."""
        self.chunks.append(memoryview(data))
        self.size += len(data)

    def take(self, limit: int) -> memoryview:
        """Remove and return at most ``limit`` bytes from the front, without copying."""
        chunk = self.chunks[0]
        piece = chunk[self.offset : self.offset + limit]
        self.size -= len(piece)
        self.offset += len(piece)
        if self.offset == len(chunk):
            self.chunks.popleft()
            self.offset = 0
        return piece


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
        """Let ``queue`` stand in line, in the one its size says, unless it stands already."""
        if not queue.waiting:
            queue.waiting = True
            (self._small if queue.size <= SMALL_ANSWER else self._bulk).append(queue)

    def next(self) -> tuple[StreamQueue, bool] | None:
        """Take the next stream out of line; True marks bulk. Who has more to send lines up again, at the end."""
        bulk = not self._small
        line = self._bulk if bulk else self._small
        if not line:
            return None
        queue = line.popleft()
        queue.waiting = False
        return queue, bulk

    def drop(self, stream_id: int) -> None:
        """Forget a stream and what it had queued."""
        queue = self.streams.pop(stream_id, None)
        if queue is not None and queue.waiting:
            line = self._small if queue in self._small else self._bulk
            line.remove(queue)

"""What went over a connection: bytes, times, and the last frames. Written on the hot path, so it only takes notes.

What was heard last is noted by h2's parser, which reads the heads anyway; the time of a read stands between them. What
was said last is kept as the bytes it was, where these are few; of large writes only the latest is kept, because to walk
through all of them would cost a hundredth of the speed. Nobody looks at any of it before `mobysession.rpc.inspection`
is asked.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from mobysession import limits
from mobysession.protocol.frame_heads import FrameHead, parse_heads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.protocol.frame_heads import Noted

__all__ = ["Traffic"]


def _heads(written: bytes | tuple[FrameHead, ...]) -> tuple[FrameHead, ...]:
    return written if isinstance(written, tuple) else tuple(parse_heads(written))


class Traffic:
    """The notes of one connection.

    Args:
        heads: where the parser notes what it reads.
    """

    __slots__ = (
        "_heads",
        "_large",
        "_times",
        "_writes",
        "bytes_handed",
        "bytes_received",
        "bytes_sent",
        "handed_at",
        "heard_at",
        "opened_at",
    )

    def __init__(self, heads: deque[Noted]) -> None:
        now = trio.current_time()
        self.opened_at = now
        #: When bytes came last, and when some were given to the stream; at first, when the connection was opened.
        self.heard_at = now
        self.handed_at = now
        self.bytes_received = 0
        #: Bytes that were given to the stream, and those that it has taken.
        self.bytes_handed = 0
        self.bytes_sent = 0
        self._heads = heads
        #: What was given to the stream at one time, and when: whole frames, or what became of them. Two rows, because
        #: an object for each write would cost more than all the rest.
        self._writes: deque[bytes | tuple[FrameHead, ...]] = deque(maxlen=limits.RECENT_WRITES)
        self._times: deque[float] = deque(maxlen=limits.RECENT_WRITES)
        #: True while one of them is large.
        self._large = False

    def received(self, size: int) -> None:
        """Note that ``size`` bytes came; to be called before they are parsed."""
        self.heard_at = now = trio.current_time()
        self.bytes_received += size
        self._heads.append(now)

    def sending(self, data: bytes) -> None:
        """Note that ``data``, which is whole frames, is given to the stream."""
        self.bytes_handed += len(data)
        self.handed_at = now = trio.current_time()
        if len(data) > limits.SMALL_WRITE:
            if self._large:
                self._replace_large(())
            self._large = True
        self._writes.append(data)
        self._times.append(now)

    def sent(self) -> None:
        """Note that the stream has taken all that it was given."""
        self.bytes_sent = self.bytes_handed

    def settle(self) -> None:
        """Let go of the bytes of a large write, for its heads; to be called once in a while."""
        if self._large:
            self._replace_large(None)
            self._large = False

    def _replace_large(self, heads: tuple[FrameHead, ...] | None) -> None:
        """Put ``heads``, or the heads it has, in the place of the large write; it may be forgotten already."""
        for index in range(len(self._writes) - 1, -1, -1):
            written = self._writes[index]
            if isinstance(written, bytes) and len(written) > limits.SMALL_WRITE:
                self._writes[index] = _heads(written) if heads is None else heads
                return

    def heard_heads(self) -> Iterator[tuple[float | None, FrameHead]]:
        """Yield the latest frames of the peer, oldest first, with the times they were read; None for the oldest."""
        at: float | None = None
        for note in self._heads:
            if isinstance(note, float):
                at = note
            else:
                yield at, FrameHead.of(*note)

    def said_heads(self) -> Iterator[tuple[float, FrameHead]]:
        """Yield our latest frames, oldest first, with the times they were given to the stream."""
        for at, written in zip(self._times, self._writes, strict=True):
            for head in _heads(written):
                yield at, head

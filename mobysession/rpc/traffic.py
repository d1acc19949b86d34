"""What went over a connection: bytes, times, and the last frames. Written on the hot path, so it only takes notes.

What was heard last is noted by h2's parser, which reads the heads anyway; the time of a read stands between them. What
was said last is kept as the first bytes of each frame. Nobody looks at any of it before `mobysession.rpc.inspection` is
asked.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from mobysession import limits
from mobysession.protocol.frame_heads import FrameHead, parse_heads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mobysession.protocol.frame_heads import Noted
    from mobysession.protocol.framing import Buffer

__all__ = ["Traffic"]


#: Bytes of a piece that are kept: the head of a frame, and before the first of all a client's preface.
_NOTED = 24 + 9


class Traffic:
    """The notes of one connection.

    Args:
        heads: where the parser notes what it reads.
    """

    __slots__ = (
        "_heads",
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
        #: The beginnings of what was given to the stream at one time, and when. Two rows, because an object for each
        #: write would cost more than all the rest.
        self._writes: deque[list[bytes]] = deque(maxlen=limits.RECENT_WRITES)
        self._times: deque[float] = deque(maxlen=limits.RECENT_WRITES)

    def received(self, size: int) -> None:
        """Note that ``size`` bytes came; to be called before they are parsed."""
        self.heard_at = now = trio.current_time()
        self.bytes_received += size
        self._heads.append(now)

    def sending(self, pieces: Sequence[Buffer], size: int) -> None:
        """Note that ``pieces`` of ``size`` bytes, as `GrpcConnection.pieces_to_send` returns them, go to the stream."""
        self.bytes_handed += size
        self.handed_at = now = trio.current_time()
        # Views are of messages; what is ours begins with the head of a frame.
        self._writes.append([piece[:_NOTED] for piece in pieces[-limits.RECENT_FRAMES :] if type(piece) is bytes])
        self._times.append(now)

    def sent(self) -> None:
        """Note that the stream has taken all that it was given."""
        self.bytes_sent = self.bytes_handed

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
            for piece in written:
                for head in parse_heads(piece):
                    yield at, head

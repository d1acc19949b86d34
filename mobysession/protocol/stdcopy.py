"""The two outputs of a container's process on one connection, as the Engine API sends them where there is no terminal.

::

    +--------+-------+-------------------------+---------------+
    | stream | 0 0 0 | length, big-endian, 4 B |  that many B  |
    +--------+-------+-------------------------+---------------+

The stream is 1 for stdout, 2 for stderr, 3 for an error of the engine itself. What goes the other way, the process's
input, has no such frames.
(moby/moby api/pkg/stdcopy; engines 20.10.24 and 28.5.2)
"""

from __future__ import annotations

from typing import Final

from mobysession.errors import RemoteProtocolError

__all__ = ["STDERR", "STDOUT", "SYSTEM", "StdcopyDecoder"]

STDOUT: Final = 1
STDERR: Final = 2
#: What the engine says of itself in the middle of the stream; the stream ends with it.
SYSTEM: Final = 3
_HEAD: Final = 8
_STREAMS: Final = frozenset({0, STDOUT, STDERR, SYSTEM})  # 0 is stdin, which nobody sends and Go's decoder takes


class StdcopyDecoder:
    """Takes what was read and tells the streams apart; a frame is passed on as it comes, whatever length it claims."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._stream = STDOUT
        self._left = 0

    @property
    def is_between_frames(self) -> bool:
        """True where the connection may end: no frame has been begun."""
        return not self._left and not self._head

    def receive_data(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the pieces in ``data``, in order: the stream's number and bytes of it, never empty.

        Raises:
            RemoteProtocolError: this is no such connection.
        """
        pieces: list[tuple[int, bytes]] = []
        position = 0
        while position < len(data):
            if not self._left:
                position = self._read_head(data, position)
                continue
            piece = data[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            pieces.append((self._stream, piece))
        return pieces

    def _read_head(self, data: bytes, position: int) -> int:
        end = position + _HEAD - len(self._head)
        self._head += data[position:end]
        # Judged as early as possible: who waits for eight bytes of something else may wait for ever.
        if self._head[0] not in _STREAMS or any(self._head[1:4]):
            raise RemoteProtocolError("the output of a process in a container is not in frames of stdout and stderr")
        if len(self._head) == _HEAD:
            self._stream = self._head[0] or STDOUT
            self._left = int.from_bytes(self._head[4:], "big")
            self._head.clear()
        return end

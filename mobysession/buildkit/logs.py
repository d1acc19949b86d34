"""What a step writes, put together again as lines.

The engine forwards the output of a process as it was read from a pipe: a message may end in the middle of a line or of
a character. Standard output and standard error are put together apart from each other. Only a tail is kept, for
the error that may come.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from mobysession import limits

__all__ = ["STDERR", "STDOUT", "LogLine", "LogTail"]

STDOUT = 1
STDERR = 2


class LogLine(NamedTuple):
    """One line without its newline: when its first byte came (ns since the epoch), the stream, the text as it was."""

    time: int
    stream: int
    text: str


class LogTail:
    """The last lines of one step, and the beginnings of those that are not complete yet."""

    __slots__ = ("_partial", "_size", "lines")

    def __init__(self) -> None:
        self.lines: deque[LogLine] = deque()
        self._size = 0
        self._partial: dict[int, tuple[int, bytes]] = {}

    def feed(self, time: int, stream: int, data: bytes) -> list[LogLine]:
        """Take the next bytes of one stream and return the lines they complete; a line over the bound is cut."""
        stream = STDERR if stream == STDERR else STDOUT
        begun = self._partial.pop(stream, None)
        begin, prefix = begun if begun is not None else (time, b"")
        complete, newline, rest = data.rpartition(b"\n")
        lines: list[LogLine] = []
        if newline:
            for raw in (prefix + complete).split(b"\n"):
                lines.extend(_cut(begin, stream, raw))
                begin = time
            prefix = b""
        rest = prefix + rest
        while len(rest) > limits.MAX_LOG_LINE:
            head, rest = rest[: limits.MAX_LOG_LINE], rest[limits.MAX_LOG_LINE :]
            lines.append(_decode(begin, stream, head))
        if rest:
            self._partial[stream] = (begin, rest)
        self._keep(lines)
        return lines

    def flush(self) -> list[LogLine]:
        """End the lines that were begun and return them: nothing more will come."""
        lines = self.partial()
        self._partial.clear()
        self._keep(lines)
        return lines

    def partial(self) -> list[LogLine]:
        """Return the lines that were begun, as far as they got, and leave them begun."""
        return [_decode(begin, stream, raw) for stream, (begin, raw) in self._partial.items()]

    def last(self, count: int) -> list[LogLine]:
        """Return at most ``count`` lines, oldest first, begun ones included."""
        return [*self.lines, *self.partial()][-count:]

    def snapshot(self) -> LogTail:
        """Return a copy that stays as it is."""
        copy = LogTail()
        copy.lines = self.lines.copy()
        copy._size = self._size
        copy._partial = dict(self._partial)
        return copy

    def _keep(self, lines: list[LogLine]) -> None:
        for line in lines[-limits.LOG_TAIL_LINES :]:
            self.lines.append(line)
            self._size += len(line.text)
        while len(self.lines) > limits.LOG_TAIL_LINES or self._size > limits.LOG_TAIL_SIZE:
            self._size -= len(self.lines.popleft().text)


def _cut(time: int, stream: int, raw: bytes) -> list[LogLine]:
    if len(raw) <= limits.MAX_LOG_LINE:
        return [_decode(time, stream, raw)]
    size = limits.MAX_LOG_LINE
    return [_decode(time, stream, raw[start : start + size]) for start in range(0, len(raw), size)]


def _decode(time: int, stream: int, raw: bytes) -> LogLine:
    return LogLine(time, stream, raw.decode("utf-8", "replace"))

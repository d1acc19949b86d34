"""Which frames of a recording may be shown: those that cannot hold what is hidden.

What stands in DATA frames is known where they are as long as the messages of that side of their call with their
prefixes: then nothing was compressed, and a frame is shown where none of its bytes is a hidden one's. Headers are shown
where no text of the call had anything to hide, and it has ended, so that all are known; what belongs to no call that is
known is not. Of other frames the bytes themselves say whether a value stands in them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mobysession.recording import CLIENT, DAEMON

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mobysession.recording import CallBegan, Frame, Message

__all__ = ["ShownFrames"]

_DATA, _HEADERS, _CONTINUATION = 0, 1, 9
#: What stands before a message of gRPC: a byte that is zero where it is not compressed, and its length.
_PREFIX: Final = 5


@dataclass
class _Side:
    """One side of a call: where its messages begin, with their prefixes, and what of them is hidden."""

    told: int = 0
    numbers: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    unknown: set[int] = field(default_factory=set)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    #: A message does not begin where it should, so that nobody knows what is where.
    is_lost: bool = False

    def add(self, number: int, record: Message) -> None:
        """Take a message."""
        self.numbers.append(number)
        self.begins.append(self.told)
        self.told += record.size + _PREFIX
        if record.body is None:
            self.unknown.add(number)

    def settle(self, found: Mapping[int, Sequence[tuple[int, int]]]) -> None:
        """Take what is hidden, by the numbers of messages."""
        ends = [*self.begins[1:], self.told] if self.begins else []
        for number, begin, end in zip(self.numbers, self.begins, ends, strict=True):
            whole = [(0, end - begin - _PREFIX)] if number in self.unknown else found.get(number, ())
            for low, high in whole:
                self.starts.append(begin + _PREFIX + low)
                self.ends.append(begin + _PREFIX + high)

    def may_show(self, start: int, payload: bytes) -> bool:
        """Tell whether bytes from ``start`` on, of all that this side said, have nothing to hide."""
        if not self.starts:
            return True
        end = start + len(payload)
        begins = self.begins[bisect_left(self.begins, start) : bisect_left(self.begins, end)]
        self.is_lost = self.is_lost or any(payload[begin - start] for begin in begins)
        behind = bisect_right(self.ends, start)
        return not self.is_lost and (behind == len(self.starts) or self.starts[behind] >= end)


@dataclass
class _Call:
    """A call."""

    texts_are_open: bool
    is_over: bool = False
    sides: dict[str, _Side] = field(default_factory=lambda: {DAEMON: _Side(), CLIENT: _Side()})


class ShownFrames:
    """Looks at all records, and then judges the frames in their order.

    Args:
        holds: tells whether a value stands in some bytes.
    """

    def __init__(self, holds: Callable[[bytes], bool]) -> None:
        self._holds = holds
        self._calls: dict[int, _Call] = {}
        #: By connection and number of the stream.
        self._numbers: dict[tuple[int, int], int] = {}
        #: Bytes of DATA frames by connection, stream and sender: all of them, and those that were judged.
        self._framed: Counter[tuple[int, int, str]] = Counter()
        self._judged: Counter[tuple[int, int, str]] = Counter()

    def began(self, record: CallBegan, *, is_open: bool) -> None:
        """Take a call; ``is_open``: its texts have nothing to hide."""
        self._numbers[record.connection, record.stream] = record.call
        self._calls[record.call] = _Call(is_open)

    def answered(self, call: int, *, is_open: bool, is_over: bool) -> None:
        """Take more texts of a call, the last ones where it is over."""
        if (known := self._calls.get(call)) is not None:
            known.texts_are_open = known.texts_are_open and is_open
            known.is_over = known.is_over or is_over

    def said(self, number: int, record: Message) -> None:
        """Take a message."""
        if (call := self._calls.get(record.call)) is not None:
            call.sides[record.sender].add(number, record)

    def framed(self, record: Frame) -> None:
        """Take a frame; it may come before its call, where both were read at once."""
        if record.kind == _DATA:
            self._framed[record.connection, record.stream, record.sender] += record.length

    def settle(self, found: Mapping[int, Sequence[tuple[int, int]]]) -> None:
        """Take the places that are hidden, by the numbers of messages: everything was looked at."""
        for call in self._calls.values():
            for side in call.sides.values():
                side.settle(found)

    def may_show(self, frame: Frame) -> bool:
        """Tell whether the payload of a frame has nothing to hide."""
        key = (frame.connection, frame.stream, frame.sender)
        start = self._judged[key]
        if frame.kind == _DATA:
            self._judged[key] += frame.length
        if not frame.payload:
            return True
        call = self._calls.get(self._numbers.get((frame.connection, frame.stream), 0))
        if frame.kind == _DATA:
            if call is None or call.sides[frame.sender].told != self._framed[key]:
                return False
            return call.sides[frame.sender].may_show(start, frame.payload)
        if frame.kind in (_HEADERS, _CONTINUATION):
            return call is not None and call.texts_are_open and call.is_over
        return not self._holds(frame.payload)

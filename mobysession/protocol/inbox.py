"""DATA of the peer as messages: cut, counted, and bounded by what one connection may hold.

What was received is acknowledged to the peer in the end, whoever took it or did not (`mobysession.protocol.windows`).
Windows bound what arrives; two things they do not bound are bounded here: messages that never come to their ends, and
what comes out of compressed ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession import limits
from mobysession.errors import RpcError, StatusCode
from mobysession.protocol.framing import PREFIX_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession.protocol.call_state import CallState
    from mobysession.protocol.framing import Buffer
    from mobysession.protocol.windows import ReceiveWindows

__all__ = ["Inbox", "weigh"]


def weigh(messages: Sequence[Buffer]) -> int:
    """Return the bytes of ``messages`` with their prefixes."""
    return sum(map(len, messages)) + PREFIX_SIZE * len(messages)


class Inbox:
    """The messages of all calls of one connection."""

    def __init__(self, windows: ReceiveWindows) -> None:
        #: Bytes of messages, of all calls, that have not arrived to their ends.
        self.incomplete = 0
        self._windows = windows

    def read(self, call: CallState, data: bytes) -> tuple[list[bytes], RpcError | None]:
        """Return the messages of ``call`` that ``data`` completes, and what is wrong with the rest, if anything.

        What is returned is held until it is released.
        """
        reader = call.reader
        try:
            if reader.inflates:
                return self._inflate(call, data)
            messages = reader.receive_data(data)
        except RpcError as error:
            return [], error
        if messages:
            self._windows.hold(call, weigh(messages))
        if reader.buffered != call.buffered:
            return messages, self._keep_rest(call) or reader.failure
        return messages, reader.failure

    def _inflate(self, call: CallState, data: bytes) -> tuple[list[bytes], RpcError | None]:
        """Read what may become a thousand times as much, in parts of a frame's size, until it is too much."""
        messages: list[bytes] = []
        for start in range(0, len(data), limits.MAX_FRAME):
            try:
                part = call.reader.receive_data(data[start : start + limits.MAX_FRAME])
            except RpcError as error:
                return messages, error
            failure = self._keep_rest(call)
            if failure is None and part and (unread := self._windows.unread + weigh(part)) > limits.MAX_UNREAD:
                failure = _too_much("inflated messages that nobody has taken", unread, limits.MAX_UNREAD)
            if failure is not None:
                return messages, failure
            self._windows.hold(call, weigh(part))
            messages += part
        return messages, call.reader.failure

    def _keep_rest(self, call: CallState) -> RpcError | None:
        """Count what a call has of its next message; return an error where all together is too much."""
        buffered = call.reader.buffered
        self.incomplete += buffered - call.buffered
        call.buffered = buffered
        if self.incomplete <= limits.MAX_INCOMPLETE:
            return None
        return _too_much("messages without their ends", self.incomplete, limits.MAX_INCOMPLETE)

    def forget(self, call: CallState) -> None:
        """Drop what a call has of its next message, and give back its windows."""
        self.incomplete -= call.buffered
        self._windows.forget(call)


def _too_much(what: str, size: int, limit: int) -> RpcError:
    text = f"{what} are too much for one connection ({size} vs. {limit} bytes)"
    return RpcError(StatusCode.RESOURCE_EXHAUSTED, text)

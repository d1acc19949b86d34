"""What we owe to the peer's sending: the windows that it has filled, and when they open again (RFC 9113 section 5.2).

Every byte of DATA shrinks two windows, the stream's and the connection's. They open again an eighth at a time,
because each opening is a frame. A stream's window waits for the handler. That of the connection does not, or one call
that is never read would starve all others; but it does once more is unread than memory should hold.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import h2.exceptions

from mobysession import limits

if TYPE_CHECKING:
    from mobysession.protocol.http2 import Http2

__all__ = ["CallWindow", "ReceiveWindows"]


class CallWindow:
    """What one call has received, as far as windows go."""

    __slots__ = ("held", "owed", "remote_ended")

    def __init__(self) -> None:
        #: Flow-controlled bytes received and not yet acknowledged.
        self.owed = 0
        #: Bytes of whole messages, with their prefixes, that were reported and not yet consumed.
        self.held = 0
        #: The peer sends nothing more, and needs no window.
        self.remote_ended = False


class ReceiveWindows:
    """The receiving windows of one connection and of its calls."""

    def __init__(self, http2: Http2) -> None:
        self._http2 = http2
        #: Flow-controlled bytes not yet given back to the connection's window.
        self.owed = 0
        #: Bytes of messages, of all calls, that were reported and not yet consumed.
        self.unread = 0
        #: True when nothing may be sent any more, no window either.
        self.closed = False

    def hold(self, window: CallWindow, size: int) -> None:
        """Count ``size`` bytes of messages that are reported now and that somebody will `release`."""
        window.held += size
        self.unread += size

    def release(self, stream_id: int, window: CallWindow, size: int) -> None:
        """Take ``size`` held bytes as consumed, and give back what that frees."""
        window.held -= size
        self.unread -= size
        self.give_back(stream_id, window)

    def forget(self, window: CallWindow) -> None:
        """Give back what a call that is over has received, whoever took it or did not."""
        self.unread -= window.held
        self.give_back_connection()

    def give_back(self, stream_id: int, window: CallWindow) -> None:
        """Open the windows of a call and of the connection again, as far as their bytes were taken."""
        size = window.owed - max(0, window.held)
        if size >= limits.STREAM_WINDOW // limits.WINDOW_PARTS and not window.remote_ended and not self.closed:
            window.owed -= size
            # The stream may have ended further on in the bytes being handled; then nobody waits for its window.
            with suppress(h2.exceptions.ProtocolError):
                self._http2.increment_flow_control_window(size, stream_id)
        self.give_back_connection()

    def give_back_connection(self) -> None:
        """Open the connection's window again."""
        if (
            self.owed >= limits.CONNECTION_WINDOW // limits.WINDOW_PARTS
            and self.unread <= limits.MAX_UNREAD
            and not self.closed
        ):
            self._http2.increment_flow_control_window(self.owed)
            self.owed = 0

"""DATA becomes messages, and what one connection may hold of them is counted to the byte."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import pytest

from mobysession import limits
from mobysession.errors import StatusCode
from mobysession.protocol.call_state import CallState
from mobysession.protocol.framing import MessageReader, encode_messages
from mobysession.protocol.http2 import open_http2
from mobysession.protocol.inbox import Inbox, weigh
from mobysession.protocol.windows import ReceiveWindows

if TYPE_CHECKING:
    from mobysession.protocol.windows import CallWindow


def inbox() -> tuple[Inbox, ReceiveWindows]:
    """Return an empty one, and the windows that it tells."""
    windows = ReceiveWindows(open_http2(client_side=False))
    return Inbox(windows), windows


def call(encoding: str = "identity") -> CallState:
    """Return a call whose messages are encoded so."""
    made = CallState()
    made.reader = MessageReader(encoding)
    return made


def test_what_is_held_and_what_is_left() -> None:
    """Whole messages are held with their prefixes until they are released, the beginning of the next one is counted."""
    box, windows = inbox()
    state = call()
    assert box.read(state, encode_messages([b"abc", b""]) + b"\0\0\0\0\5ab") == ([b"abc", b""], None)
    held: CallWindow = state
    assert (held.held, windows.unread, box.incomplete) == (13, 13, 7)
    assert weigh([b"abc", b""]) == 13
    assert box.read(state, b"cde") == ([b"abcde"], None)
    assert (held.held, windows.unread, box.incomplete) == (23, 23, 0)
    assert box.read(state, b"\0") == ([], None)
    box.forget(state)
    assert (windows.unread, box.incomplete) == (0, 0)


def test_what_is_wrong_comes_behind_what_is_right() -> None:
    """Messages before a broken one are returned together with the error, and held."""
    box, windows = inbox()
    state = call()
    messages, error = box.read(state, encode_messages([b"good"]) + b"\7\0\0\0\0")
    assert messages == [b"good"]
    assert error is not None
    assert error.code is StatusCode.INTERNAL
    assert windows.unread == 9
    again, error = box.read(state, encode_messages([b"more"]))
    assert again == []
    assert error is not None


@pytest.mark.parametrize("over", [0, 1])
def test_messages_that_do_not_end(monkeypatch: pytest.MonkeyPatch, over: int) -> None:
    """Of all calls together, `MAX_INCOMPLETE` bytes are kept, and not one more."""
    monkeypatch.setattr(limits, "MAX_INCOMPLETE", 100)
    box, _ = inbox()
    first, second = call(), call()
    assert box.read(first, b"\0\0\0\1\0" + bytes(35)) == ([], None)
    messages, error = box.read(second, b"\0\0\0\1\0" + bytes(55 + over))
    assert messages == []
    assert (error is not None) == bool(over)
    assert error is None or error.message.startswith("messages without their ends are too much")
    assert error is None or error.message.endswith("(101 vs. 100 bytes)")


@pytest.mark.parametrize("over", [0, 1])
def test_messages_that_inflate(monkeypatch: pytest.MonkeyPatch, over: int) -> None:
    """What comes out of compressed messages is held up to `MAX_UNREAD`; those before the one too many are kept."""
    monkeypatch.setattr(limits, "MAX_UNREAD", 10_010)
    box, windows = inbox()
    state = call("gzip")
    bodies = [zlib.compress(bytes(size), wbits=31) for size in (5000, 5000 + over)]
    data = [b"\1" + len(body).to_bytes(4, "big") + body for body in bodies]
    messages, error = box.read(state, data[0])
    assert (messages, error) == ([bytes(5000)], None)
    messages, error = box.read(state, data[1])
    assert len(messages) == 1 - over
    assert (error is not None) == bool(over)
    assert error is None or error.message.endswith("(10011 vs. 10010 bytes)")
    assert windows.unread == 5005 * (2 - over)


def test_much_at_once_is_inflated_in_parts() -> None:
    """Compressed messages in one row of frames are bounded by what is unread, not by how many come at once."""
    box, windows = inbox()
    body = zlib.compress(bytes(5 * limits.MIB), wbits=31)
    data = (b"\1" + len(body).to_bytes(4, "big") + body) * 9
    assert limits.MAX_FRAME < len(data) < 9 * limits.MAX_FRAME
    messages, error = box.read(call("gzip"), data)
    assert error is None
    assert [len(message) for message in messages] == [5 * limits.MIB] * 9
    assert windows.unread > 2 * limits.MAX_MESSAGE

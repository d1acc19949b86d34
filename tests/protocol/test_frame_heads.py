"""The heads of frames, as they are noted and as they are read back."""

from __future__ import annotations

import h2.settings

from mobysession import limits
from mobysession.protocol.frame_heads import FrameHead, parse_heads
from mobysession.protocol.server import ServerConnection
from tests.protocol.peers import Bare


def test_heads_of_a_row_of_frames() -> None:
    """Each frame gives its type, stream, length and flags by name; types and flags nobody knows do not matter."""
    frames = (
        b"\0\0\3\0\x09\0\0\0\1abc"
        b"\0\0\0\1\x2f\x80\0\0\2"
        b"\0\0\0\4\1\0\0\0\0"
        b"\0\0\x08\6\1\0\0\0\0pingpong"
        b"\0\0\1\x7f\xff\0\0\0\4x"
        b"\0\0\0\x09\4\x7f\xff\xff\xff"
    )
    assert list(parse_heads(frames)) == [
        FrameHead("DATA", 1, 3, ("END_STREAM", "PADDED")),
        FrameHead("HEADERS", 2, 0, ("END_HEADERS", "END_STREAM", "PADDED", "PRIORITY")),
        FrameHead("SETTINGS", 0, 0, ("ACK",)),
        FrameHead("PING", 0, 8, ("ACK",)),
        FrameHead("type 127", 4, 1, ()),
        FrameHead("CONTINUATION", 2**31 - 1, 0, ("END_HEADERS",)),
    ]
    assert list(parse_heads(b"")) == []


def test_heads_behind_a_preface() -> None:
    """What a client writes first is its preface and its SETTINGS."""
    bare = Bare(ServerConnection())
    assert [head.type for head in parse_heads(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")] == [
        "SETTINGS"
    ]
    first = bare.core.heads[0]
    assert not isinstance(first, float)
    assert FrameHead.of(*first).type == "SETTINGS"


def test_every_frame_of_the_peer_is_noted() -> None:
    """All that arrives is noted as it came: DATA too, and each piece of a header block by itself."""
    bare = Bare(ServerConnection())
    bare.core.heads.clear()
    bare.peer.max_outbound_frame_size = 16_384
    bare.request((b"long", b"x" * 40_000))
    bare.peer.send_data(1, bytes(10), pad_length=3)
    bare.peer.end_stream(1)
    bare.peer.ping(bytes(8))
    bare.run()
    heads = [FrameHead.of(*note) for note in bare.core.heads if not isinstance(note, float)]
    assert [head.type for head in heads][:5] == ["HEADERS", "CONTINUATION", "CONTINUATION", "DATA", "DATA"]
    assert heads[3:5] == [FrameHead("DATA", 1, 14, ("PADDED",)), FrameHead("DATA", 1, 0, ("END_STREAM",))]
    assert "PING" in [head.type for head in heads]


def test_notes_are_bounded() -> None:
    """Only the latest frames are remembered."""
    bare = Bare(ServerConnection())
    for _ in range(3 * limits.RECENT_FRAMES):
        bare.peer.ping(bytes(8))
    bare.run()
    assert len(bare.core.heads) == limits.RECENT_FRAMES


def test_windows_both_ways() -> None:
    """The windows of a call and of the connection, and what waits for them, can be asked for."""
    bare = Bare(ServerConnection(), settings={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    bare.request()
    bare.run()
    bare.core.send_messages(1, [bytes(5000)])
    bare.peer.send_data(1, bytes(100))
    bare.run()
    assert bare.core.windows(1) == (0, limits.STREAM_WINDOW - 100)
    assert bare.core.waiting() == {1: (4005, 1000)}
    assert bare.core.send_window == 65_535 - 1000
    assert bare.core.receive_window == limits.CONNECTION_WINDOW - 100
    bare.core.reset(1)
    assert bare.core.waiting() == {}
    assert bare.core.windows(99) == (0, 0)

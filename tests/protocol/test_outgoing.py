"""What is put together around h2 is what h2 would have said, and h2 is asked before: the same bytes and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobysession.protocol.frame_heads import FrameHead, parse_heads
from mobysession.protocol.http2 import Http2
from mobysession.protocol.outgoing import OK_TRAILERS, RESPONSE
from tests.protocol.peers import REQUEST

if TYPE_CHECKING:
    from h2.stream import H2Stream

_FRAME = 16_384


def opened(*, window: int = 65_535, max_frame: int = _FRAME) -> tuple[Http2, h2.connection.H2Connection]:
    """Return a server of ours, and a client of h2's that has opened stream 1 on it."""
    ours = Http2(client_side=False, max_header_list=65_536)
    ours.initiate_connection()
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
    codes = h2.settings.SettingCodes
    peer.local_settings = h2.settings.Settings(
        client=True, initial_values={codes.INITIAL_WINDOW_SIZE: window, codes.MAX_FRAME_SIZE: max_frame}
    )
    peer.max_inbound_frame_size = max_frame
    peer.initiate_connection()
    if window > 65_535:
        peer.increment_flow_control_window(window - 65_535)
    peer.send_headers(1, REQUEST)
    ours.receive(peer.data_to_send())
    peer.receive_data(b"".join(ours.take()))
    # The acknowledgement of our SETTINGS.
    ours.receive(peer.data_to_send())
    return ours, peer


def send(ours: Http2, pieces: list[bytes]) -> H2Stream:
    """Send ``pieces`` as one slice on stream 1."""
    stream = ours.streams[1]
    ours.send_slice(stream, [memoryview(piece) for piece in pieces], sum(map(len, pieces)))
    return stream


@given(
    st.lists(st.sampled_from([1, 5, 100, _FRAME - 5, _FRAME - 1, _FRAME, _FRAME + 1, 40_000]), min_size=1, max_size=8),
    st.sampled_from([_FRAME, _FRAME + 1, 50_000]),
)
def test_a_slice_is_cut_into_full_frames(sizes: list[int], max_frame: int) -> None:
    """However it was queued, a slice goes in as few frames as can be; bytes and windows are as the peer counts."""
    ours, peer = opened(window=2**20, max_frame=max_frame)
    ours.send_fields(1, RESPONSE)
    pieces = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    stream = send(ours, pieces)
    said = b"".join(ours.take())
    lengths = [head.length for head in parse_heads(said) if head.type == "DATA"]
    total = sum(sizes)
    assert lengths == [max_frame] * (total // max_frame) + ([total % max_frame] if total % max_frame else [])
    heard = [event for event in peer.receive_data(said) if isinstance(event, h2.events.DataReceived)]
    assert b"".join(event.data or b"" for event in heard) == b"".join(pieces)
    assert stream.outbound_flow_control_window == peer.remote_flow_control_window(1) == 2**20 - total
    assert ours.outbound_flow_control_window == 2**20 - total


def test_nothing_is_copied() -> None:
    """The pieces that are to be sent are our frames' heads, as bytes, and views of what was given."""
    ours, _ = opened(window=2**20)
    ours.send_fields(1, RESPONSE)
    ours.take()
    message = bytes(100_000)
    send(ours, [message])
    pieces = ours.take()
    assert {type(piece) for piece in pieces} == {bytes, memoryview}
    assert all(piece.obj is message for piece in pieces if isinstance(piece, memoryview))
    assert all(len(piece) == 9 for piece in pieces if isinstance(piece, bytes))


@pytest.mark.parametrize("reserve", [0, 100])
def test_what_windows_let_through(reserve: int) -> None:
    """What is sendable is sent, one byte more is refused, and the reserve concerns the connection's window only."""
    ours, _ = opened()
    ours.send_fields(1, RESPONSE)
    stream = ours.streams[1]
    assert ours.sendable(stream, reserve) == 65_535 - reserve
    stream.outbound_flow_control_window = 50
    assert ours.sendable(stream, reserve) == 50
    with pytest.raises(h2.exceptions.FlowControlError):
        send(ours, [bytes(51)])
    assert ours.outbound_flow_control_window == 65_535
    send(ours, [bytes(50)])
    assert ours.sendable(stream, reserve) == 0
    stream.outbound_flow_control_window = -7
    assert ours.sendable(stream, reserve) == -7


def test_a_stream_that_has_ended_sends_nothing() -> None:
    """Behind END_STREAM h2 refuses DATA, and so it does here, before anything is queued or counted."""
    ours, _ = opened()
    ours.send_fields(1, [*RESPONSE, *OK_TRAILERS], end_stream=True)
    ours.take()
    with pytest.raises(h2.exceptions.ProtocolError):
        send(ours, [b"x"])
    assert not ours.has_pieces
    assert ours.outbound_flow_control_window == 65_535


@pytest.mark.parametrize(
    "fields", [RESPONSE, OK_TRAILERS, (*RESPONSE, *OK_TRAILERS), (*RESPONSE, (b"grpc-encoding", b"gzip"))]
)
@pytest.mark.parametrize("end_stream", [False, True])
def test_constant_blocks_mean_what_they_say(fields: tuple[tuple[bytes, bytes], ...], end_stream: bool) -> None:
    """Whatever fields are sent, from a constant block or compressed, the peer hears them, and h2 knows the state."""
    ours, peer = opened()
    if fields[0] not in RESPONSE:
        ours.send_fields(1, RESPONSE)
        end_stream = True
    ours.send_fields(1, list(fields), end_stream=end_stream)
    heard = peer.receive_data(b"".join(ours.take()))
    events = (h2.events.ResponseReceived, h2.events.TrailersReceived)
    last = [event for event in heard if isinstance(event, events)][-1]
    assert [(bytes(name), bytes(value)) for name, value in last.headers or ()] == list(fields)
    assert any(isinstance(event, h2.events.StreamEnded) for event in heard) == end_stream
    assert (
        ours.streams[1].state_machine.state.name
        == ("HALF_CLOSED_REMOTE", "OPEN", "HALF_CLOSED_LOCAL")[2 if end_stream else 1]
    )


def test_trailers_must_end_the_stream() -> None:
    """The second block of a response that does not end it is refused, as h2 does."""
    ours, _ = opened()
    ours.send_fields(1, RESPONSE)
    with pytest.raises(h2.exceptions.ProtocolError):
        ours.send_fields(1, OK_TRAILERS)


def test_a_new_table_size_is_told_first() -> None:
    """After the peer has changed its table, the next block is the encoder's, for only that can say so."""
    ours, peer = opened()
    peer.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 100})
    ours.receive(peer.data_to_send())
    ours.send_fields(1, RESPONSE)
    pieces = ours.take()
    assert b"\x88\x0f\x10\x10application/grpc" not in b"".join(pieces)
    heard = peer.receive_data(b"".join(pieces))
    assert any(isinstance(event, h2.events.ResponseReceived) for event in heard)


def test_pieces_begin_with_frames() -> None:
    """Each piece that is bytes begins with the head of a frame; the first of a client with its preface."""
    ours = Http2(client_side=True, max_header_list=65_536)
    ours.initiate_connection()
    ours.send_headers(1, REQUEST)
    ours.ping(b"12345678")
    pieces = ours.take()
    assert [next(parse_heads(bytes(piece[:33]))).type for piece in pieces] == ["SETTINGS", "HEADERS", "PING"]
    assert not ours.has_pieces
    assert FrameHead("PING", 0, 8, ()) in parse_heads(b"".join(pieces))

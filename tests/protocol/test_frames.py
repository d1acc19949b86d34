"""Frames out of bytes: however these are cut, the same frames; DATA in a row is taken at once, as if it were not."""

from __future__ import annotations

import itertools
from typing import Any

import h2.exceptions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobysession import limits
from mobysession.errors import RemoteProtocolError
from mobysession.protocol.client import ClientConnection
from mobysession.protocol.frame_types import PlainData
from mobysession.protocol.frames import FrameReader
from mobysession.protocol.server import ServerConnection
from tests.fuzz.seeds import PREFACE
from tests.protocol.test_abuse import SETTINGS, frame, opening

DATA, PING = 0, 6
END = 1

#: Frames of two streams, and others between them.
FRAMES = st.lists(
    st.one_of(
        st.builds(lambda number, size: frame(DATA, 0, number, bytes(size)), st.sampled_from([1, 3]), st.integers(0, 9)),
        st.just(frame(DATA, END, 1, b"end")),
        st.just(frame(DATA, 8, 1, b"\1ab\0")),
        st.just(frame(PING, 0, 0, bytes(8))),
        st.just(frame(0x42, 0, 1, b"unknown")),
    ),
    max_size=12,
)


def reader() -> FrameReader:
    """Return a reader behind the preface."""
    made = FrameReader(server=False, max_block=1000)
    made.max_frame_size = limits.MAX_FRAME
    return made


def read(pieces: list[bytes]) -> list[tuple[str, int, bytes, bool]]:
    """Return what a reader makes of ``pieces``: DATA frame by frame."""
    made, found = reader(), []
    for piece in pieces:
        made.feed(piece)
        for one in made:
            for single in one.singly() if isinstance(one, PlainData) and one.parts else [one]:
                body = getattr(single, "data", b"")
                found.append((type(one).__name__, single.stream_id, bytes(body), "END_STREAM" in single.flags))
    return found


@given(FRAMES, st.lists(st.integers(0, 250)))
def test_cuts_make_no_difference(frames: list[bytes], cuts: list[int]) -> None:
    """However a row of frames is cut, it gives the same frames."""
    whole = b"".join(frames)
    edges = [0, *sorted(cut for cut in cuts if cut <= len(whole)), len(whole)]
    assert read([whole[start:end] for start, end in itertools.pairwise(edges)]) == read([whole])
    assert read([whole[at : at + 1] for at in range(len(whole))]) == read(frames)


def test_data_in_a_row_is_one() -> None:
    """DATA of one stream comes as one, up to its end, and up to anything else."""
    made = reader()
    row = [frame(DATA, 0, 1, b"a"), frame(DATA, 0, 1, b""), frame(DATA, 0, 0x80000001, bytes(3000))]
    row += [frame(DATA, END, 1, b"c"), frame(DATA, 0, 1, b"behind"), frame(DATA, 0, 3, b"d"), frame(DATA, 8, 3, b"\0e")]
    made.feed(b"".join(row))
    taken: list[Any] = list(made)
    first, *others = taken
    assert (first.data, first.flags, first.flow_controlled_length) == (b"a" + bytes(3000) + b"c", {"END_STREAM"}, 3002)
    assert [len(one.data) for one in first.singly()] == [1, 0, 3000, 1]
    assert [one.flags for one in first.singly()] == [set(), set(), set(), {"END_STREAM"}]
    assert [(one.stream_id, bytes(one.data)) for one in others] == [(1, b"behind"), (3, b"d"), (3, b"e")]
    assert len(made.heads) == len(row)


def test_a_frame_that_is_too_long() -> None:
    """Its head is enough to refuse it, also behind others, and where the head came in two pieces."""
    head = (limits.MAX_FRAME + 1).to_bytes(3, "big") + b"\0\0\0\0\0\1"
    made = reader()
    made.feed(frame(DATA, 0, 1, b"a") + head)
    assert bytes(next(made).data) == b"a"
    with pytest.raises(h2.exceptions.FrameTooLargeError):
        next(made)
    made = reader()
    made.feed(head[:4])
    assert list(made) == []
    made.feed(head[4:])
    with pytest.raises(h2.exceptions.FrameTooLargeError):
        next(made)


# -- what a connection makes of a row ----------------------------------------------------------------------------------


def server(*, stream_window: int | None = None, connection_window: int | None = None) -> ServerConnection:
    """Return a server on which the peer has opened calls 1 and 3, with windows of ours as small as is said."""
    core = ServerConnection()
    core.receive_data(PREFACE + SETTINGS + opening(1) + opening(3))
    http2: Any = core._h2
    if stream_window is not None:
        http2.streams[1]._inbound_window_manager.current_window_size = stream_window
    if connection_window is not None:
        http2._inbound_flow_control_window_manager.current_window_size = connection_window
    core.data_to_send()
    return core


def heard(core: ServerConnection | ClientConnection, pieces: list[bytes]) -> tuple[str, bytes, str]:
    """Return the events, with messages one by one, the answers, and the error that ``pieces`` lead to."""
    happened: list[Any] = []
    error = ""
    try:
        for piece in pieces:
            happened += core.receive_data(piece)
    except RemoteProtocolError as broken:
        error = str(broken)
    singly: list[Any] = []
    for event in happened:
        messages = getattr(event, "messages", None)
        singly += [event] if messages is None else [(event.stream_id, message) for message in messages]
    return repr(singly), core.data_to_send(), error


def message(size: int) -> bytes:
    """Return a message with its prefix."""
    return b"\0" + size.to_bytes(4, "big") + bytes(size)


ROWS: dict[str, tuple[list[bytes], dict[str, int]]] = {
    "messages": ([frame(DATA, 0, 1, message(size)) for size in (0, 1, 5)], {}),
    "a message in parts": ([frame(DATA, 0, 1, part) for part in (b"\0\0", b"\0\0\3a", b"b", b"c")], {}),
    "to the end": ([frame(DATA, 0, 1, message(1)), frame(DATA, END, 1, message(2))], {}),
    "behind the end": ([frame(DATA, END, 1, message(1)), frame(DATA, 0, 1, message(2))], {}),
    "over the stream's window": ([frame(DATA, 0, 1, message(95)) for _ in range(5)], {"stream_window": 350}),
    "as much as the stream's window": ([frame(DATA, 0, 1, message(95)) for _ in range(5)], {"stream_window": 500}),
    "over the connection's": ([frame(DATA, 0, 1, message(95)) for _ in range(5)], {"connection_window": 350}),
    "a bad message behind a good one": ([frame(DATA, 0, 1, part) for part in (message(1), b"\7\0\0\0\0", b"x")], {}),
    "on an idle stream": ([frame(DATA, 0, 9, b"a"), frame(DATA, 0, 9, b"b")], {}),
}


@pytest.mark.parametrize("row", sorted(ROWS))
def test_a_row_is_taken_as_its_frames_are(row: str) -> None:
    """At once or one by one: the same messages, the same ends, and the same errors at the same frame."""
    frames, windows = ROWS[row]
    at_once = heard(server(**windows), [b"".join(frames)])
    singly = heard(server(**windows), frames)
    if not at_once[2]:
        assert at_once == singly
    else:
        # What was heard before the connection broke is not told where it broke in the same bytes.
        assert at_once[1:] == singly[1:]


@pytest.mark.parametrize("reset_by", ["us", "the peer"])
def test_a_row_on_a_closed_stream(reset_by: str) -> None:
    """Each frame is answered as it is by itself, and its window given back."""
    frames = [frame(DATA, 0, 1, message(9)) for _ in range(3)]
    results = []
    for pieces in ([b"".join(frames)], frames):
        core = server()
        if reset_by == "us":
            core.reset(1)
        else:
            core.receive_data(frame(3, 0, 1, b"\0\0\0\x08"))
        core.data_to_send()
        results.append((*heard(core, pieces), core._windows.owed, core.receive_window))
    assert results[0] == results[1]
    assert results[0][3] == 3 * 14
    assert len(results[0][1]) == (0 if reset_by == "us" else 3 * 13)


def test_a_row_before_the_headers_of_an_answer() -> None:
    """A server that begins with DATA has its call reset at the first frame, and the others are dropped."""
    frames = [frame(DATA, 0, 1, message(9)) for _ in range(3)]
    results = []
    for pieces in ([b"".join(frames)], frames):
        core = ClientConnection()
        core.receive_data(SETTINGS)
        core.start_call("/a.B/C")
        core.data_to_send()
        results.append((*heard(core, pieces), core._windows.owed))
    assert results[0] == results[1]
    assert "CallReset(stream_id=1, error_code=1" in results[0][0]
    assert results[0][1].count(b"\0\0\4\3") == 1

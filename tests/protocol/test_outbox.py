"""The order in which streams get the socket."""

from __future__ import annotations

from mobysession.limits import SMALL_ANSWER
from mobysession.protocol.outbox import Outbox, StreamQueue

BIG = bytes(SMALL_ANSWER + 1)


def line_up(outbox: Outbox, stream_id: int, data: bytes) -> StreamQueue:
    """Queue ``data`` on a stream and let it stand in line."""
    queue = outbox.queue(stream_id)
    queue.append(data)
    outbox.line_up(queue)
    return queue


def order(outbox: Outbox) -> list[tuple[int, bool]]:
    """Take everybody out of line."""
    turns = []
    while (turn := outbox.next()) is not None:
        turns.append((turn[0].stream_id, turn[1]))
    return turns


def test_pieces_are_cut() -> None:
    """What was queued is cut at the limit; nothing is lost and empty chunks do not count."""
    queue = StreamQueue(1)
    for chunk in (b"ab", b"", b"c", b"defgh"):
        queue.append(chunk)
    assert queue.size == 8
    taken = [[bytes(piece) for piece in queue.take_pieces(n)] for n in (1, 3, 2, 9)]
    assert taken == [[b"a"], [b"b", b"c", b"d"], [b"ef"], [b"gh"]]
    assert queue.size == 0
    assert not queue.chunks


def test_pieces_are_not_copied() -> None:
    """A piece is a view of what was queued."""
    queue = StreamQueue(1)
    queue.append(BIG)
    (piece,) = queue.take_pieces(10)
    assert piece.obj is BIG


def test_small_before_bulk_in_turns() -> None:
    """Small answers go first; each line is served in the order of arrival, and nobody stands twice."""
    outbox = Outbox()
    line_up(outbox, 1, BIG)
    line_up(outbox, 3, b"x")
    line_up(outbox, 5, BIG)
    line_up(outbox, 7, bytes(SMALL_ANSWER))
    line_up(outbox, 1, b"more")
    assert order(outbox) == [(3, False), (7, False), (1, True), (5, True)]
    assert outbox.next() is None


def test_stream_that_grows_in_line() -> None:
    """A stream that was small when it lined up and is bulk when its turn comes goes to the end of the other line."""
    outbox = Outbox()
    line_up(outbox, 1, BIG)
    line_up(outbox, 3, b"x")
    line_up(outbox, 3, BIG)
    line_up(outbox, 5, b"x")
    assert order(outbox) == [(5, False), (1, True), (3, True)]


def test_rest_of_a_bulk_stream_is_bulk() -> None:
    """The last bytes of a bulk stream overtake nobody and take nothing from the reserve; its bare end may."""
    outbox = Outbox()
    queue = line_up(outbox, 1, BIG)
    order(outbox)
    queue.take_pieces(SMALL_ANSWER)
    outbox.line_up(queue)
    assert order(outbox) == [(1, True)]
    queue.take_pieces(1)
    outbox.line_up(queue)
    assert order(outbox) == [(1, False)]


def test_drop() -> None:
    """A dropped stream leaves its line, from either, and dropping a stranger does nothing."""
    outbox = Outbox()
    line_up(outbox, 1, BIG)
    line_up(outbox, 3, b"x")
    line_up(outbox, 5, BIG)
    for stream_id in (1, 3, 9):
        outbox.drop(stream_id)
    assert sorted(outbox.streams) == [5]
    assert order(outbox) == [(5, True)]
    outbox.drop(5)
    assert outbox.streams == {}


def test_bulk_can_wait() -> None:
    """Without bulk only the small line is served; whoever has grown in it waits with the others."""
    outbox = Outbox()
    line_up(outbox, 1, b"x")
    line_up(outbox, 3, b"x")
    line_up(outbox, 3, BIG)
    assert not outbox.bulk_waits
    turn = outbox.next(bulk=False)
    assert turn is not None
    assert turn[0].stream_id == 1
    assert outbox.next(bulk=False) is None
    assert outbox.bulk_waits
    assert order(outbox) == [(3, True)]

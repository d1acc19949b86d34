"""Two outputs on one connection, told apart."""

from __future__ import annotations

import itertools

import pytest

from mobysession.errors import RemoteProtocolError
from mobysession.protocol.stdcopy import STDERR, STDOUT, SYSTEM, StdcopyDecoder


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


WHOLE = frame(STDOUT, b"out") + frame(STDERR, b"error") + frame(STDOUT, b"") + frame(SYSTEM, b"bye") + frame(0, b"zero")
PIECES = [(STDOUT, b"out"), (STDERR, b"error"), (SYSTEM, b"bye"), (STDOUT, b"zero")]


def joined(pieces: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return [
        (stream, b"".join(piece for _, piece in group))
        for stream, group in itertools.groupby(pieces, key=lambda piece: piece[0])
    ]


@pytest.mark.parametrize("size", range(1, len(WHOLE) + 1))
def test_frames_may_be_cut_anywhere(size: int) -> None:
    """Each stream's bytes come in order, whatever the sizes of reads, and an empty frame is nothing."""
    decoder = StdcopyDecoder()
    pieces = [
        piece for start in range(0, len(WHOLE), size) for piece in decoder.receive_data(WHOLE[start : start + size])
    ]
    assert joined(pieces) == PIECES
    assert all(piece for _, piece in pieces)
    assert decoder.is_between_frames


def test_a_frame_that_claims_to_be_huge_holds_nothing_up() -> None:
    """What is there is passed on; nobody waits for four gigabytes, nor makes room for them."""
    decoder = StdcopyDecoder()
    assert decoder.receive_data(b"\1\0\0\0\xff\xff\xff\xffabc") == [(STDOUT, b"abc")]
    assert not decoder.is_between_frames


@pytest.mark.parametrize("data", [b"\4", b"H", b"\1\1", b"\1\0\0\1", b"PRI * HTTP/2.0"])
def test_what_is_no_frame_is_refused_at_once(data: bytes) -> None:
    """The first byte that cannot be of a head is enough."""
    with pytest.raises(RemoteProtocolError, match="frames"):
        StdcopyDecoder().receive_data(data)

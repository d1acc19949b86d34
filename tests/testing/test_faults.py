"""Faults as values, and what they do to a connection."""

from __future__ import annotations

import pytest
import trio

from mobysession.testing import FakeDaemon, Faults, Refusal
from mobysession.testing.faults import FaultyStream
from mobysession.testing.memory import memory_connection


def _pair(**faults):
    theirs, ours = memory_connection()
    return FaultyStream(ours, Faults(**faults)), theirs


async def _read_all(stream):
    received = []
    with trio.move_on_after(1):
        while data := await stream.receive_some():
            received.append(bytes(data))
    return received


def test_faults_add_up():
    """Two faults together are both; where both speak, the second wins."""
    both = Faults(cut_after=10, pieces=1) | Faults(cut_after=20, mute=True)
    assert both == Faults(cut_after=20, pieces=1, mute=True)
    assert Faults() | Faults() == Faults()


def test_a_refusal_is_json_or_what_it_is_told():
    """The usual body is dockerd's; any other can be given."""
    assert Refusal(500, "no").content() == b'{"message":"no"}\n'
    assert Refusal(502, body=b"<html>").content() == b"<html>"


@pytest.mark.parametrize("size", [0, 1, 5, 9, 10])
async def test_a_cut_delivers_exactly_so_many_bytes(size, autojump_clock):
    """Of ten bytes those before the cut arrive, then the connection ends."""
    stream, peer = _pair(cut_after=size)
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"0123456789")
    assert b"".join(await _read_all(peer)) == b"0123456789"[:size]
    assert await peer.receive_some() == b""


async def test_a_stall_is_no_end(autojump_clock):
    """Behind a stall nothing arrives, and the sender waits forever."""
    stream, peer = _pair(stall_after=4)
    with trio.move_on_after(1) as scope:
        await stream.send_all(b"0123456789")
    assert scope.cancelled_caught
    assert await _read_all(peer) == [b"0123"]


async def test_pieces_arrive_one_by_one(autojump_clock):
    """A reader sees each piece as a read of its own."""
    stream, peer = _pair(pieces=4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, b"0123456789")
        assert await _read_all(peer) == [b"0123", b"4567", b"89"]


async def test_a_cut_may_count_what_was_read():
    """A daemon that dies while it reads has read so many bytes before."""
    stream, peer = _pair(cut_after_received=5)
    await peer.send_all(b"012345")
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()


async def test_a_reset_is_no_orderly_end():
    """With ``reset`` the other side's read fails, where it would otherwise see the end."""
    stream, peer = _pair(cut_after=2, reset=True)
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"0123")
    assert await peer.receive_some() == b"01"
    with pytest.raises(trio.BrokenResourceError):
        await peer.receive_some()


async def test_faults_can_change_between_connections():
    """A daemon takes its faults as they are when a connection asks."""
    async with FakeDaemon(faults=Faults(refusal=Refusal(500, "first"))) as daemon:
        for expected in (b"500", b"101"):
            stream = await daemon.dial()
            await stream.send_all(b"POST /session HTTP/1.1\r\nHost: d\r\nUpgrade: h2c\r\n\r\n")
            assert (await stream.receive_some()).split()[1] == expected
            daemon.faults = Faults()

"""What holds a connection up is seen, told once, and can be asked for."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession.errors import SessionError
from mobysession.rpc.client import open_channel
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from mobysession.session import Session
from mobysession.testing import FakeDaemon
from tests.rpc.raw_peer import RawPeer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mobysession.rpc.server import ServerCall

MIB = limits.MIB


def hosting(**handlers: Callable[[ServerCall], Awaitable[None]]) -> Registrar:
    """Return a registrar with streaming methods of ``t.S``."""
    registrar = Registrar()
    for name, handler in handlers.items():
        registrar.stream(f"/t.S/{name}", handler)
    return registrar


async def bulk(call: ServerCall) -> None:
    """Send 1 MiB."""
    await call.send(bytes(MIB))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Give a function that returns what was warned of so far."""
    caplog.set_level(logging.INFO, "mobysession.rpc")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


# -- the event loop ----------------------------------------------------------------------------------------------------


async def test_a_blocked_loop_is_told_once(told: Any, autojump_clock: Any) -> None:
    """A standstill is warned of once in a while, by one of all connections, and remembered by each."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_server(ours, Registrar()) as server, open_channel(theirs) as channel:
        # Between two looks of the watchdog, so that no look falls together with the jump.
        await trio.sleep(10.5)
        autojump_clock.jump(3)
        await trio.sleep(5.25)
        assert len(told()) == 1
        assert told()[0].startswith("the event loop stood still for 2.5 s")
        assert "windows" in told()[0]
        for connection in (server, channel):
            assert connection.inspect().loop_lag == 2.5
        autojump_clock.jump(8)
        await trio.sleep(5)
        assert len(told()) == 1
        assert server.inspect().loop_lag == 7.25
        await trio.sleep(limits.LOOP_LAG_QUIET)
        autojump_clock.jump(3 * limits.LOOP_LAG)
        await trio.sleep(5)
        assert len(told()) == 2


async def test_a_loop_that_runs_is_not_told_of(told: Any, autojump_clock: Any) -> None:
    """Nothing is told, and no lag is seen, where nothing stands still."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_server(ours, Registrar()) as server, open_channel(theirs):
        await trio.sleep(300)
        assert server.inspect().loop_lag == 0
    assert told() == []


# -- windows -----------------------------------------------------------------------------------------------------------


async def test_a_window_that_stays_shut_is_told_once(told: Any, caplog: Any, autojump_clock: Any) -> None:
    """After 30 s, once, with method, queue and last frames; then that it goes on; a second time is told again."""
    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs, connection_window=2**31 - 1)
    async with trio.open_nursery() as nursery, open_server(ours, hosting(M=bulk)) as server:
        nursery.start_soon(peer.run)
        peer.open_call(1)
        await trio.sleep(limits.STALL - 1)
        assert told() == []
        await trio.sleep(500)
        (text,) = told()
        assert text.startswith("the other side keeps the window of a call that has ended (stream 1) shut: 983046 bytes")
        assert "> DATA stream 1, " in text
        assert "< HEADERS stream 1, " in text
        (call,) = server.inspect().calls
        assert call.queued == 983_046
        assert call.send_window == 0
        assert call.stalled > 500
        peer.h2.increment_flow_control_window(limits.SMALL_ANSWER, 1)
        await peer.flush()
        await trio.sleep(2)
        assert any("stream 1: it goes on after" in record.getMessage() for record in caplog.records)
        assert server.inspect().calls[0].stalled < 3
        await trio.sleep(100)
        assert len(told()) == 2
        nursery.cancel_scope.cancel()


async def test_the_window_of_a_connection_is_told_once_for_all(told: Any, autojump_clock: Any) -> None:
    """Where the connection's window is shut, all its calls wait for one reason, and that is told once."""

    async def more(call: ServerCall) -> None:
        await call.send(bytes(3 * MIB))

    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs, stream_window=2**31 - 1)
    async with trio.open_nursery() as nursery, open_server(ours, hosting(M=more)) as server:
        nursery.start_soon(peer.run)
        for number in range(5):
            peer.open_call(2 * number + 1)
            await peer.flush()
            await trio.sleep(7)
        await trio.sleep(300)
        (text,) = told()
        assert text.startswith("the other side keeps the window of the connection shut: ")
        assert "/t.S/M" in text
        assert server.inspect().send_window == limits.WINDOW_RESERVE
        nursery.cancel_scope.cancel()


async def test_a_peer_that_does_not_read_is_told_once(told: Any, autojump_clock: Any) -> None:
    """Where the socket takes nothing it is neither window's fault, and that is told, with the bytes that wait."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    peer = RawPeer(theirs, stream_window=2**31 - 1, connection_window=2**31 - 1)
    async with open_server(ours, hosting(M=bulk)) as server:
        peer.open_call(1)
        await peer.flush()
        await trio.sleep(300)
        (text,) = told()
        assert text.startswith("the other side reads nothing: the socket took none of ")
        found = server.inspect()
        assert found.unsent > 0
        assert found.blocked > 299
    await theirs.aclose()


async def test_many_stalls_are_one_warning(told: Any, autojump_clock: Any) -> None:
    """Fifty shut windows are told in one warning; single bytes neither end a stall nor bring another warning."""
    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs, stream_window=0, connection_window=2**31 - 1)
    streams = range(1, 101, 2)
    async with trio.open_nursery() as nursery, open_server(ours, hosting(M=bulk)):
        nursery.start_soon(peer.run)
        for number in streams:
            peer.open_call(number)
        await peer.flush()
        for _ in range(20):
            await trio.sleep(limits.STALL + 3)
            for number in streams:
                peer.h2.increment_flow_control_window(1, number)
            await peer.flush()
        (text,) = told()
        assert "(stream 1)" in text
        assert f"; and {len(streams) - limits.STALLS_NAMED} more\n" in text
        nursery.cancel_scope.cancel()


async def test_stalls_are_told_with_quiet_between(told: Any, autojump_clock: Any) -> None:
    """Stalls that begin one after the other are told together, once the quiet time is over."""
    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs, stream_window=0, connection_window=2**31 - 1)
    async with trio.open_nursery() as nursery, open_server(ours, hosting(M=bulk)):
        nursery.start_soon(peer.run)
        for number in range(1, 41, 2):
            peer.open_call(number)
            await peer.flush()
            await trio.sleep(2)
        await trio.sleep(limits.STALL + limits.STALL_QUIET)
        assert len(told()) == 2
        assert "and 16 more" in told()[1]
        nursery.cancel_scope.cancel()


async def test_a_slow_reader_is_not_told_of(told: Any, autojump_clock: Any) -> None:
    """Who opens its window by a little every now and then is slow, not stuck."""
    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs, connection_window=2**31 - 1)
    async with trio.open_nursery() as nursery, open_server(ours, hosting(M=bulk)):
        nursery.start_soon(peer.run)
        peer.open_call(1)
        for _ in range(20):
            await trio.sleep(limits.STALL - 2)
            peer.h2.increment_flow_control_window(1, 1)
            await peer.flush()
        nursery.cancel_scope.cancel()
    assert told() == []


# -- inspect -----------------------------------------------------------------------------------------------------------


async def test_inspect(autojump_clock: Any) -> None:
    """Calls with their methods, ages and queues, windows both ways, frames of both directions: all at one moment."""

    async def idle(call: ServerCall) -> None:
        await call.send(b"x" * 100)
        await trio.sleep_forever()

    ours, theirs = trio.testing.memory_stream_pair()
    async with (
        open_server(ours, hosting(M=idle)) as server,
        open_channel(theirs) as channel,
        channel.open_call("/t.S/M", metadata=[("token", "s3cret-value")]) as call,
    ):
        await call.send(b"s3cret-value")
        assert await call.receive() == b"x" * 100
        await trio.sleep(5)
        await server.ping()
        found = server.inspect()
    (one,) = found.calls
    assert (one.stream_id, one.method, one.received, one.sent) == (1, "/t.S/M", 0, 100)
    assert (one.unread, one.queued, one.stalled) == (12, 0, 0)
    assert (one.send_window, one.receive_window) == (limits.STREAM_WINDOW - 105, limits.STREAM_WINDOW - 17)
    assert one.age is not None
    assert (found.client_side, found.failure, found.round_trip, found.asked) == (False, None, 0.0, None)
    assert found.unread == 17
    assert (found.send_window, found.receive_window) == (
        limits.CONNECTION_WINDOW - 105,
        limits.CONNECTION_WINDOW - 17,
    )
    assert found.settings["INITIAL_WINDOW_SIZE"] == limits.STREAM_WINDOW
    assert (found.open_for, found.silence, found.unsent) == (5, 0, 0)
    assert found.bytes_received > 0
    assert found.bytes_sent > 0
    kinds = [(frame.sent, frame.type, frame.age) for frame in found.frames]
    assert kinds[-2:] == [(True, "PING", 0), (False, "PING", 0)] or kinds[-2:] == [
        (False, "PING", 0),
        (True, "PING", 0),
    ]
    assert {(False, "DATA", 5), (True, "DATA", 5), (False, "HEADERS", 5), (True, "HEADERS", 5)} <= set(kinds)
    assert "s3cret" not in repr(found) + str(found)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.silence = 1  # type: ignore[misc]  # that it cannot be is what is tested


async def test_inspect_of_what_is_over() -> None:
    """A connection that has ended can still be asked; it says why it ended."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_server(ours, Registrar()) as server:
        await theirs.aclose()
        await server.closed.wait()
        found = server.inspect()
    assert found.failure == "the other side closed the connection"
    assert "over: the other side closed" in str(found)


async def test_the_text_of_an_inspection_is_bounded(autojump_clock: Any) -> None:
    """However many calls there are, the text shows a few of them, those with the most to send."""

    async def some(call: ServerCall) -> None:
        await call.send(bytes(1000 * call.number))
        await trio.sleep_forever()

    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs, stream_window=0)
    async with trio.open_nursery() as nursery, open_server(ours, hosting(M=some)) as server:
        nursery.start_soon(peer.run)
        for number in range(40):
            peer.open_call(2 * number + 1)
        await peer.flush()
        await trio.sleep(1)
        found = server.inspect()
        nursery.cancel_scope.cancel()
    assert len(found.calls) == 40
    text = str(found)
    assert "and 24 calls more" in text
    assert "(stream 79)" in text
    assert "(stream 1)" not in text
    assert len(text.splitlines()) < 50


async def test_nothing_large_is_kept(autojump_clock: Any) -> None:
    """Of the bytes that were sent, only the beginnings of frames are kept, of some of the latest writes."""
    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs, stream_window=2**31 - 1, connection_window=2**31 - 1)
    async with trio.open_nursery() as nursery, open_server(ours, hosting(M=bulk)) as server:
        nursery.start_soon(peer.run)
        peer.open_call(1)
        await peer.flush()
        while not peer.ended(1):
            await trio.testing.wait_all_tasks_blocked()
            kept = [piece for written in server.traffic._writes for piece in written]
            assert sum(map(len, kept)) < limits.KIB
            assert all(type(piece) is bytes for piece in kept)
        found = server.inspect().frames
        assert found[-1].flags == ("END_HEADERS", "END_STREAM")
        assert sum(frame.length for frame in found if frame.type == "DATA" and frame.sent) == MIB + 5
        nursery.cancel_scope.cancel()


async def test_no_more_frames_are_kept_than_are_remembered() -> None:
    """A write of a thousand small frames leaves as many beginnings as the connection remembers frames of the peer."""
    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs)
    async with open_server(ours, Registrar()) as server:
        await peer.flush()
        for number in range(1000):
            peer.h2.ping(number.to_bytes(8, "big"))
        await peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert max(map(len, server.traffic._writes)) == limits.RECENT_FRAMES
        assert server.inspect().frames[-1].flags == ("ACK",)
        await trio.aclose_forcefully(theirs)


async def test_inspect_of_a_session() -> None:
    """A session that is attached can be asked; its round trip is the one that `ping` measured."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        with pytest.raises(SessionError, match="not attached"):
            session.inspect()
        async with session.attach():
            assert session.inspect().round_trip is None
            took = await session.ping()
            found = session.inspect()
            assert found.round_trip == took
            assert found.settings == session.settings
            assert not found.client_side
        with pytest.raises(SessionError, match="not attached"):
            session.inspect()

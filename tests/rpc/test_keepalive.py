"""Silence: who is asked, when, and what becomes of a connection on which nothing answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession.errors import ConnectionLost, RpcError, SessionLost, StatusCode, UsageError
from mobysession.rpc.client import open_channel
from mobysession.rpc.keepalive import CHANNEL_KEEPALIVE, Keepalive
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from mobysession.session import Session
from mobysession.testing import FakeDaemon, Faults, HealthSchedule
from tests.rpc.raw_peer import RawPeer, count_pings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mobysession.rpc.server import ServerCall

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW_UPDATE = b"\0\0\4\x08\0\0\0\0\0\0\0\0\1"
KEEPALIVE = Keepalive(interval=30, timeout=20)


def hosting(handler: Callable[[ServerCall], Awaitable[None]]) -> Registrar:
    """Return a registrar with the one method ``/t.S/M``."""
    registrar = Registrar()
    registrar.stream("/t.S/M", handler)
    return registrar


async def read_all(stream: trio.abc.Stream) -> None:
    """Read and say nothing."""
    async for _ in stream:
        pass


@pytest.mark.parametrize("pair", [trio.testing.memory_stream_pair, trio.testing.lockstep_stream_pair])
@pytest.mark.parametrize("reads", [True, False])
async def test_a_silent_peer_ends_the_connection(pair: Any, reads: bool, autojump_clock: Any) -> None:
    """Who says nothing for interval and timeout is given up then, whether it reads or not; the error says so."""
    ours, theirs = pair()
    async with trio.open_nursery() as nursery, open_server(ours, Registrar(), keepalive=KEEPALIVE) as server:
        if reads:
            nursery.start_soon(read_all, theirs)
        with trio.fail_after(50.5):
            await server.closed.wait()
        assert trio.current_time() - server.traffic.opened_at == pytest.approx(50, abs=0.01)
        assert isinstance(server.failure, ConnectionLost)
        assert server.failure.message == "no answer to a PING in 20 s, after 30 s of silence"
        assert "firewall" in (server.failure.hint or "")
        nursery.cancel_scope.cancel()


async def test_running_handlers_are_stopped(autojump_clock: Any) -> None:
    """A half-dead connection does not leave its handlers behind; a writer in the middle of a frame goes with it."""
    stopped = trio.Event()

    async def bulk(call: ServerCall) -> None:
        try:
            while True:
                await call.send(bytes(limits.MIB))
        finally:
            stopped.set()

    ours, theirs = trio.testing.lockstep_stream_pair()
    peer = RawPeer(theirs, stream_window=2**31 - 1, connection_window=2**31 - 1)
    async with open_server(ours, hosting(bulk), keepalive=KEEPALIVE) as server:
        peer.open_call(1)
        await peer.flush()
        await peer.receive()
        with trio.fail_after(51):
            await server.closed.wait()
            await stopped.wait()
        assert server.inspect().unsent > 0


async def test_a_living_peer_is_kept(autojump_clock: Any) -> None:
    """An idle connection whose peer answers goes on, asked once an interval, and its round trip is measured."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with (
        open_server(ours, Registrar(), keepalive=KEEPALIVE) as server,
        open_channel(theirs, keepalive=None) as channel,
    ):
        assert server.round_trip is None
        await trio.sleep(600)
        assert not server.closed.is_set()
        assert server.round_trip == 0.0
        asked = [frame for frame in channel.inspect().frames if frame.type == "PING" and not frame.sent]
        assert len(asked) == 600 // 30 - 1
        await channel.ping()


async def test_any_byte_is_a_sign_of_life(autojump_clock: Any) -> None:
    """Who does not get to the answer, but says something else after the PING, is not given up."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery, open_server(ours, Registrar(), keepalive=KEEPALIVE) as server:
        nursery.start_soon(read_all, theirs)
        await theirs.send_all(PREFACE + b"\0\0\0\4\0\0\0\0\0")
        for _ in range(20):
            await trio.sleep(49)
            await theirs.send_all(WINDOW_UPDATE)
        assert not server.closed.is_set()
        with trio.fail_after(51):
            await server.closed.wait()
        nursery.cancel_scope.cancel()


async def test_a_healthy_session_is_never_asked(autojump_clock: Any) -> None:
    """A daemon that checks a session's health gives sign enough: not one PING but answers is sent in 20 minutes."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        async with session.attach():
            seen = set()
            for _ in range(200):
                await trio.sleep(6)
                seen |= {(frame.type, "ACK" in frame.flags) for frame in session.inspect().frames if frame.sent}
    assert ("HEADERS", False) in seen
    assert ("PING", False) not in seen


async def test_a_half_dead_session_is_lost(autojump_clock: Any) -> None:
    """A daemon that was ready and vanishes without a goodbye ends the session, with the reason and a hint."""
    async with FakeDaemon(health=HealthSchedule(interval=1e6), faults=Faults(stall_after=300)) as daemon:
        with pytest.raises(SessionLost, match="no answer to a PING in 20 s") as caught:
            async with Session(daemon.dialer).attach():
                await trio.sleep_forever()
    assert isinstance(caught.value.__cause__, ConnectionLost)
    assert "firewall" in (caught.value.hint or "")


async def test_a_session_without_keepalive_waits(autojump_clock: Any) -> None:
    """With None nobody is asked, and silence means nothing."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_server(ours, Registrar(), keepalive=None) as server:
        await trio.sleep(5_000)
        assert not server.closed.is_set()
        assert not server.inspect().asked
    await theirs.aclose()


async def test_a_channel_is_asked_only_during_calls(autojump_clock: Any) -> None:
    """By default a client leaves an idle server alone; with a call open, silence ends the call, typed."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery, open_channel(ours) as channel:
        nursery.start_soon(read_all, theirs)
        await trio.sleep(2_000)
        assert not channel.closed.is_set()
        with pytest.raises(RpcError, match="no answer to a PING") as caught:
            async with channel.open_call("/t.S/M") as call:
                await call.receive()
        assert caught.value.code is StatusCode.UNAVAILABLE
        assert isinstance(caught.value.__cause__, ConnectionLost)
        assert caught.value.hint == caught.value.__cause__.hint
        assert CHANNEL_KEEPALIVE.interval == limits.CHANNEL_KEEPALIVE
        nursery.cancel_scope.cancel()


class Enforcer:
    """How grpc-go's server counts PINGs, at its defaults (internal/transport/http2_server.go, handlePing)."""

    def __init__(self) -> None:
        self.strikes = 0
        self.last = float("-inf")

    def ping(self, now: float, calls: int) -> None:
        """Count one more."""
        self.strikes += now < self.last + (300 if calls else 7200)
        self.last = now


@pytest.mark.parametrize("calls", [0, 1])
async def test_grpc_go_puts_up_with_a_channel(calls: int, autojump_clock: Any) -> None:
    """In hours of silence no PING of the default keepalive earns a strike; three would end the connection."""
    ours, theirs = trio.testing.memory_stream_pair()
    enforcer = Enforcer()

    async def answer() -> None:
        await theirs.send_all(b"\0\0\0\4\0\0\0\0\0")
        preface = len(PREFACE)
        async for data in theirs:
            if count_pings(bytes(data[preface:])):
                enforcer.ping(trio.current_time(), calls)
                await theirs.send_all(b"\0\0\x08\6\1\0\0\0\0" + bytes(data[-8:]))
            preface = 0

    async with trio.open_nursery() as nursery, open_channel(ours) as channel:
        nursery.start_soon(answer)
        async with channel.open_call("/t.S/M"):
            await trio.sleep(10_000 if calls else 0)
        await trio.sleep(0 if calls else 10_000)
        assert not channel.closed.is_set()
        nursery.cancel_scope.cancel()
    assert enforcer.strikes == 0
    assert (enforcer.last > 9_000) == bool(calls)


async def test_a_loop_that_stands_still_blames_nobody(autojump_clock: Any) -> None:
    """Answers that came while this program was blocked are read before the peer is judged."""
    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs)

    async def answer_slowly() -> None:
        await peer.flush()
        while True:
            await peer.receive()
            await trio.sleep(10)
            await peer.flush()

    for blocked_at in (31, 35, 45):
        async with trio.open_nursery() as nursery:
            ours, theirs = trio.testing.memory_stream_pair()
            peer = RawPeer(theirs)
            async with open_server(ours, Registrar(), keepalive=KEEPALIVE) as server:
                nursery.start_soon(answer_slowly)
                await trio.sleep(15)
                heard = server.traffic.heard_at
                await trio.sleep_until(heard + blocked_at)
                autojump_clock.jump(100)
                await trio.sleep(60)
                assert not server.closed.is_set()
            nursery.cancel_scope.cancel()


async def test_a_dead_peer_is_judged_after_a_standstill(autojump_clock: Any) -> None:
    """A standstill defers the judgement by a moment, not for ever."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_server(ours, Registrar(), keepalive=KEEPALIVE) as server:
        await trio.sleep(35)
        autojump_clock.jump(100)
        with trio.fail_after(5):
            await server.closed.wait()
        assert isinstance(server.failure, ConnectionLost)
    await theirs.aclose()


async def test_an_ending_connection_is_not_asked(autojump_clock: Any) -> None:
    """The other side's own end comes first: it is what the failure says."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_server(ours, Registrar(), keepalive=KEEPALIVE) as server:
        await trio.sleep(40)
        assert server.inspect().asked == pytest.approx(10)
        await theirs.aclose()
        await server.closed.wait()
        assert server.failure is not None
        assert server.failure.message == "the other side closed the connection"
        server.give_up(ConnectionLost("too late"))
        assert server.failure.message != "too late"


@pytest.mark.parametrize("times", [(0, 1), (1, 0), (-1, 1), (float("nan"), 1), (1, float("nan"))])
def test_times_that_mean_nothing(times: tuple[float, float]) -> None:
    """An interval and a timeout are above 0; the error says how keepalive is turned off."""
    with pytest.raises(UsageError, match="above 0") as caught:
        Keepalive(interval=times[0], timeout=times[1])
    assert "None" in (caught.value.hint or "")

"""Throughput over a long way: what the windows allow is reached, in both directions, on a clock of its own.

The way is a relay in memory. It delays every byte by half a round trip and, where a test wants it, lets only so many
bytes a second through; the time is virtual, so that nothing depends on the machine.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import h2.events
import h2.settings
import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession.rpc.client import open_channel
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from tests.rpc.raw_peer import RawPeer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobysession.rpc.client import Channel
    from mobysession.rpc.server import ServerCall

MIB = limits.MIB
ROUND_TRIP = 0.1
WIDE = 2**31 - 1


@asynccontextmanager
async def long_way(rate: float = math.inf) -> AsyncIterator[tuple[trio.abc.Stream, trio.abc.Stream]]:
    """Give the two ends of a way with `ROUND_TRIP` seconds and ``rate`` bytes a second in each direction."""
    ours, near = trio.testing.memory_stream_pair()
    theirs, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_carry, near, far, rate)
        nursery.start_soon(_carry, far, near, rate)
        yield ours, theirs
        nursery.cancel_scope.cancel()


async def _carry(source: Any, target: Any, rate: float) -> None:
    on_the_way, arriving = trio.open_memory_channel[tuple[float, bytes]](math.inf)

    async def arrive() -> None:
        async for at, data in arriving:
            await trio.sleep_until(at)
            await target.send_all(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(arrive)
        free_at = 0.0
        while data := await source.receive_some(16 * limits.KIB if rate < math.inf else None):
            free_at = max(free_at, trio.current_time()) + len(data) / rate
            on_the_way.send_nowait((free_at + ROUND_TRIP / 2, bytes(data)))
        nursery.cancel_scope.cancel()


async def read_all(call: ServerCall) -> None:
    """Take everything at once."""
    while await call.receive_batch():
        pass


def hosting(**handlers: Any) -> Registrar:
    """Return a registrar with streaming methods of ``t.S``."""
    registrar = Registrar()
    for name, handler in handlers.items():
        registrar.stream(f"/t.S/{name}", handler)
    return registrar


async def upload(channel: Channel, size: int) -> None:
    """Send ``size`` bytes in messages of 1 MiB, and wait for the status."""
    async with channel.open_call("/t.S/up") as call:
        for _ in range(size // MIB):
            await call.send(bytes(MIB - 5))
        await call.end()
        assert await call.receive() is None


# -- what we receive ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("streams", "speed"), [(1, 35 * MIB), (8, 140 * MIB)])
async def test_a_window_for_each_round_trip(streams: int, speed: int, autojump_clock: Any) -> None:
    """At 100 ms one call receives 35 MiB/s, all calls of a connection 140 MiB/s.

    That is seven eighths of a window each round trip: the peer may stop short of a window by less than a part.
    """
    size = 24 * MIB if streams == 1 else 96 * MIB
    async with (
        long_way() as (ours, theirs),
        open_server(ours, hosting(up=read_all)) as server,
        open_channel(theirs) as channel,
    ):
        await channel.ready.wait()
        await channel.ping()
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(streams):
                nursery.start_soon(upload, channel, size // streams)
        took = trio.current_time() - started
        # The status of the last window needs a round trip too.
        assert took <= (math.ceil(size / speed / ROUND_TRIP) + 1) * ROUND_TRIP + 0.001
        assert server.traffic.bytes_received > size


@pytest.mark.parametrize("share", [0.25, 0.5, 0.85])
async def test_updates_come_early_enough(share: float, autojump_clock: Any) -> None:
    """A link on which a round trip is up to 0.85 of a window is never idle: parts come back before the rest is used."""
    rate = share * limits.STREAM_WINDOW / ROUND_TRIP
    size = 6 * limits.STREAM_WINDOW
    async with (
        long_way(rate) as (ours, theirs),
        open_server(ours, hosting(up=read_all)),
        open_channel(theirs) as channel,
    ):
        await channel.ready.wait()
        started = trio.current_time()
        await upload(channel, size)
        # Frames have heads; the status is one way more.
        assert trio.current_time() - started <= size * 1.001 / rate + 1.1 * ROUND_TRIP


async def test_a_window_waits_for_its_reader(autojump_clock: Any) -> None:
    """Speed never comes from memory: who does not read gets one window and no more, however long it takes."""

    async def late(call: ServerCall) -> None:
        await trio.sleep(100)
        await read_all(call)

    async with (
        long_way() as (ours, theirs),
        open_server(ours, hosting(up=late)) as server,
        open_channel(theirs) as channel,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(upload, channel, 12 * MIB)
        await trio.sleep(50)
        (call,) = server.inspect().calls
        assert limits.STREAM_WINDOW - MIB < call.unread <= limits.STREAM_WINDOW
        assert call.receive_window < MIB


# -- what we send ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("windows", "usable"),
    [
        ({"connection_window": WIDE}, 65_535),
        ({"stream_window": WIDE}, 65_535 - limits.WINDOW_RESERVE),
        ({"stream_window": MIB, "connection_window": WIDE}, MIB),
        ({"stream_window": WIDE, "connection_window": 2 * MIB}, 2 * MIB - limits.WINDOW_RESERVE),
    ],
)
async def test_we_send_all_that_is_allowed(windows: dict[str, int], usable: int, autojump_clock: Any) -> None:
    """Each round trip the other side gets what its windows let us send, but for the reserve of its connection's."""
    size = 8 * usable

    async def down(call: ServerCall) -> None:
        await call.send(bytes(size - 5))

    async with long_way() as (ours, theirs), open_server(ours, hosting(down=down)) as server:
        peer = RawPeer(theirs, **windows)
        peer.open_call(1, "/t.S/down")
        await peer.flush()
        started = trio.current_time()
        while not peer.ended(1):
            for event in await peer.receive(WIDE):
                if isinstance(event, h2.events.DataReceived):
                    peer.h2.increment_flow_control_window(event.flow_controlled_length)
                    if not peer.ended(1):
                        peer.h2.increment_flow_control_window(event.flow_controlled_length, 1)
            await peer.flush()
        rounds = (trio.current_time() - started) / ROUND_TRIP
        assert peer.data(1) == size
        # One for the request, and the status may come a moment behind the last window.
        assert rounds <= 8 + 1.001
        assert server.failure is None


class Estimator:
    """A peer whose windows grow as grpc-go's do: a PING measures how much comes in a round trip.

    Source: grpc/grpc-go internal/transport/bdp_estimator.go and http2_client.go, handleData, updateFlowControl.
    """

    def __init__(self, peer: RawPeer) -> None:
        self._peer = peer
        self.window = 65_535
        self._unacknowledged = {0: 0, 1: 0}
        self._sample = 0
        self._asked_at: float | None = None
        self._trip = 0.0
        self._samples = 0
        self._best = 0.0

    def take(self, event: h2.events.Event) -> None:
        """Take what was heard, and answer."""
        if isinstance(event, h2.events.DataReceived):
            self._sample += event.flow_controlled_length
            if self._asked_at is None:
                self._sample = event.flow_controlled_length
                self._asked_at = trio.current_time()
                self._peer.h2.ping(b"estimate")
            self._give_back(event.flow_controlled_length)
        elif isinstance(event, h2.events.PingAckReceived):
            self._calculate()

    def _give_back(self, size: int) -> None:
        for stream_id in self._unacknowledged:
            self._unacknowledged[stream_id] += size
            if self._unacknowledged[stream_id] >= self.window // 4:
                self._peer.h2.increment_flow_control_window(self._unacknowledged[stream_id], stream_id or None)
                self._unacknowledged[stream_id] = 0

    def _calculate(self) -> None:
        assert self._asked_at is not None
        self._samples += 1
        trip = trio.current_time() - self._asked_at
        self._trip += (trip - self._trip) / self._samples if self._samples < 10 else (trip - self._trip) * 0.9
        self._asked_at = None
        speed = self._sample / (self._trip * 1.5)
        self._best = max(self._best, speed)
        if self._sample >= 0.66 * self.window and speed == self._best and self.window < 16 * MIB:
            grown = min(2 * self._sample, 16 * MIB)
            if grown > self.window:
                self._peer.h2.increment_flow_control_window(grown - self.window)
            self._peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: grown})
            self.window = grown


async def test_a_daemons_windows_grow(autojump_clock: Any) -> None:
    """What we keep back as a reserve does not keep grpc-go from seeing that its windows are too small.

    It begins with 64 KiB, widens them when two thirds of one came in a round trip, and learns of 100 ms that way. From
    64 KiB a round trip, 48 MiB would take 77 s and more.
    """
    size = 48 * MIB

    async def down(call: ServerCall) -> None:
        for _ in range(48):
            await call.send(bytes(MIB - 5))

    async with long_way() as (ours, theirs), open_server(ours, hosting(down=down)) as server:
        peer = RawPeer(theirs)
        peer.open_call(1, "/t.S/down")
        await peer.flush()
        estimator = Estimator(peer)
        started = trio.current_time()
        got = 0
        while got < size:
            for event in await peer.receive(WIDE):
                estimator.take(event)
                got += len(event.data) if isinstance(event, h2.events.DataReceived) else 0
            peer.heard.clear()
            await peer.flush()
        assert server.failure is None
        assert estimator.window > 4 * MIB
        assert trio.current_time() - started < 3

"""A health check is answered in the middle of anything, and whoever stands still stops only itself.

What is asserted is bytes, not time: between the arrival of a request and its answer at most 256 KiB of other calls'
bytes are given to the stream. On a socket, what the kernel held at the arrival comes on top, and is counted.
"""

from __future__ import annotations

import array
import fcntl
import socket
import termios
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession._pb import health_pb2
from mobysession.filesync.directory import Directory
from mobysession.protocol.frame_heads import parse_heads
from mobysession.rpc.client import open_channel
from mobysession.rpc.courtesy import Courtesy
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from mobysession.services.filesync import FileSync
from mobysession.services.health import Health
from mobysession.session import open_session
from mobysession.testing import FakeDaemon
from tests.rpc.raw_peer import RawPeer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from mobysession.filesync.source import Content
    from mobysession.rpc.client import Channel
    from mobysession.rpc.server import ServerCall

MIB = limits.MIB
BOUND = 256 * limits.KIB
CHECK = "/grpc.health.v1.Health/Check"
#: A window that never holds anything up.
WIDE = 2**31 - 1
BULK = [2 * number + 1 for number in range(8)]


async def bulk(call: ServerCall) -> None:
    """Send for ever."""
    while True:
        await call.send(bytes(MIB))


def hosting(**handlers: Callable[[ServerCall], Awaitable[None]]) -> Registrar:
    """Return a registrar with health and streaming methods of ``t.S``."""
    registrar = Registrar()
    Health().register(registrar)
    for name, handler in handlers.items():
        registrar.stream(f"/t.S/{name}", handler)
    return registrar


def ask(peer: RawPeer, stream_id: int) -> None:
    """Let ``peer`` ask for the health; `RawPeer.flush` sends it."""
    peer.open_call(stream_id, CHECK, end=False)
    peer.h2.send_data(stream_id, bytes(5), end_stream=True)


# -- in memory, as fast and as slow as the other side may be -----------------------------------------------------------


class Counting(trio.abc.Stream):
    """A stream that takes every write after some turns of the loop, and counts what was written since the last read."""

    def __init__(self, stream: trio.abc.Stream, turns: int) -> None:
        self._stream = stream
        self._turns = turns
        self.written: list[bytes] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, and only then count: what is on its way when a request arrives counts as written after it."""
        for _ in range(self._turns):
            await trio.lowlevel.checkpoint()
        await self._stream.send_all(data)
        self.written.append(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Wait, which is never long."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read, and forget what was written before."""
        data = bytes(await self._stream.receive_some(max_bytes))
        self.written.clear()
        return data

    async def aclose(self) -> None:
        """Close."""
        await self._stream.aclose()

    def written_before(self, stream_id: int) -> int:
        """Return the bytes of other streams' DATA written since the last read and before the end of ``stream_id``."""
        before = 0
        for head in (head for data in self.written for head in parse_heads(data)):
            if head.stream_id == stream_id and "END_STREAM" in head.flags:
                return before
            if head.stream_id != stream_id and head.type == "DATA":
                before += head.length
        raise AssertionError("there is no answer")


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 7])
async def test_health_overtakes_eight_saturating_streams(turns: int) -> None:
    """However fast the other side reads, at most 256 KiB are written between a health check and its answer."""
    ours, theirs = trio.testing.memory_stream_pair()
    counting = Counting(ours, turns)
    peer = RawPeer(theirs, stream_window=WIDE, connection_window=WIDE)
    async with open_server(counting, hosting(M=bulk)):
        for stream_id in BULK:
            peer.open_call(stream_id)
        await peer.flush()
        while sum(map(peer.data, BULK)) < 8 * MIB:
            await peer.receive(MIB)
        worst = 0
        for stream_id in range(101, 161, 2):
            peer.heard.clear()
            ask(peer, stream_id)
            await peer.flush()
            while not peer.ended(stream_id):
                await peer.receive(MIB)
            worst = max(worst, counting.written_before(stream_id))
        assert worst <= BOUND
        await trio.aclose_forcefully(theirs)


async def test_bulk_leaves_a_handler_its_turns() -> None:
    """An answer that takes as many turns of the loop as bulk leaves to it still comes within the bound."""

    async def thinking(call: ServerCall) -> None:
        for _ in range(limits.ANSWER_TURNS - 1):
            await trio.lowlevel.checkpoint()

    ours, theirs = trio.testing.memory_stream_pair()
    counting = Counting(ours, 0)
    peer = RawPeer(theirs, stream_window=WIDE, connection_window=WIDE)
    async with open_server(counting, hosting(M=bulk, small=thinking)):
        for stream_id in BULK:
            peer.open_call(stream_id)
        await peer.flush()
        while sum(map(peer.data, BULK)) < 8 * MIB:
            await peer.receive(MIB)
        for stream_id in range(101, 121, 2):
            peer.heard.clear()
            peer.open_call(stream_id, "/t.S/small")
            await peer.flush()
            while not peer.ended(stream_id):
                await peer.receive(MIB)
            assert counting.written_before(stream_id) <= BOUND
        await trio.aclose_forcefully(theirs)


async def test_health_overtakes_before_a_slow_reader() -> None:
    """The same where the other side takes 16 KiB at a time: it reads no more than that before the answer."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    peer = RawPeer(theirs, stream_window=WIDE, connection_window=WIDE)
    async with open_server(ours, hosting(M=bulk)):
        for stream_id in BULK:
            peer.open_call(stream_id)
        await peer.flush()
        while sum(map(peer.data, BULK)) < MIB:
            await peer.receive(16 * limits.KIB)
        for stream_id in range(101, 121, 2):
            before = sum(map(peer.data, BULK))
            ask(peer, stream_id)
            await peer.flush()
            while not peer.ended(stream_id):
                await peer.receive(16 * limits.KIB)
            assert sum(map(peer.data, BULK)) - before <= BOUND
        await trio.aclose_forcefully(theirs)


async def test_health_is_answered_from_the_reserve() -> None:
    """Where eight streams have used the connection's window up, a check is answered before it opens again."""
    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs, stream_window=WIDE)
    async with open_server(ours, hosting(M=bulk)) as server, trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        for stream_id in BULK:
            peer.open_call(stream_id)
        await peer.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert server.core.send_window == limits.WINDOW_RESERVE
        # 400 checks fit in the reserve: over half an hour of an engine that asks every 5 s.
        for stream_id in range(101, 901, 2):
            ask(peer, stream_id)
            await peer.flush()
            while not peer.ended(stream_id):
                await trio.testing.wait_all_tasks_blocked()
        assert sum(map(peer.data, BULK)) == 65_535 - limits.WINDOW_RESERVE
        nursery.cancel_scope.cancel()


async def test_small_requests_do_not_stop_bulk() -> None:
    """A flood of checks slows bulk down; each of its blocks waits for a few turns, not for the end of the flood."""
    ours, theirs = trio.testing.memory_stream_pair()
    peer = RawPeer(theirs, stream_window=WIDE, connection_window=WIDE)
    async with open_server(ours, hosting(M=bulk)):
        for stream_id in BULK:
            peer.open_call(stream_id)
        await peer.flush()
        await peer.receive(MIB)
        peer.heard.clear()
        stream_id = 101
        for _ in range(200):
            ask(peer, stream_id)
            await peer.flush()
            await peer.receive(MIB)
            stream_id += 2
        assert sum(map(peer.data, BULK)) > 200 // (limits.ANSWER_TURNS + 2) * limits.WRITE_SIZE
        await trio.aclose_forcefully(theirs)


def test_courtesy_is_bounded() -> None:
    """Bulk waits some turns behind a request, goes once in any case, and waits for nobody where nobody asked."""
    courtesy = Courtesy()
    assert courtesy.bulk_may_go(True)
    for _ in range(3):
        for _ in range(limits.ANSWER_TURNS):
            courtesy.request_arrived()
            assert courtesy.bulk_may_go(False)
            assert not courtesy.bulk_may_go(True)
        assert courtesy.bulk_may_go(True)
    courtesy.request_arrived()
    assert courtesy.bulk_may_go(False)


def test_courtesy_begins_anew_where_bulk_has_vanished() -> None:
    """Bulk that waited and then went away does not spare the next bulk, much later, its wait behind a request."""
    courtesy = Courtesy()
    courtesy.request_arrived()
    for _ in range(limits.ANSWER_TURNS):
        assert not courtesy.bulk_may_go(True)
    # It was cancelled before its turn came.
    for _ in range(limits.ANSWER_TURNS + 1):
        courtesy.nothing_waits()
    courtesy.request_arrived()
    assert courtesy.owed
    assert not courtesy.bulk_may_go(True)


# -- over a socket -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["unix", "tcp"])
def socket_pair(tmp_path: Any, request: Any) -> Iterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Give the two ends of a connection over a unix socket that has a path, and over TCP."""
    family = socket.AF_UNIX if request.param == "unix" else socket.AF_INET
    with socket.socket(family) as listening, socket.socket(family) as dialling:
        listening.bind(str(tmp_path / "s") if family == socket.AF_UNIX else ("127.0.0.1", 0))
        listening.listen()
        dialling.connect(listening.getsockname())
        accepted, _ = listening.accept()
        with trio.socket.from_stdlib_socket(dialling) as dialled, trio.socket.from_stdlib_socket(accepted) as other:
            yield trio.SocketStream(dialled), trio.SocketStream(other)


def held_between(writer: trio.SocketStream, reader: trio.SocketStream) -> int:
    """Return the bytes that the kernel holds for ``reader``; on TCP some of them are on the writer's side."""
    unsent, arrived = array.array("i", [0]), array.array("i", [0])
    # First of all the writer's: what goes over in between must not be missed.
    if writer.socket.family == socket.AF_INET:
        fcntl.ioctl(writer.socket.fileno(), termios.TIOCOUTQ, unsent)
    fcntl.ioctl(reader.socket.fileno(), termios.FIONREAD, arrived)
    return unsent[0] + arrived[0]


@pytest.mark.parametrize("size", [4 * limits.KIB, 64 * limits.KIB, MIB])
async def test_health_overtakes_on_a_socket(socket_pair: Any, size: int) -> None:
    """Besides what the kernel held when the check arrived, at most 256 KiB are read before its answer.

    The other side is slow at first: it lets the kernel's buffer fill, asks, and reads on only after that arrived.
    """
    ours, theirs = socket_pair
    arrived = trio.Event()
    peer = RawPeer(theirs, stream_window=WIDE, connection_window=WIDE)
    held = 0

    def note(call: ServerCall) -> None:
        nonlocal held, arrived
        if call.method == CHECK:
            held = held_between(ours, theirs)
            arrived.set()

    async with open_server(ours, hosting(M=bulk), on_call_started=note):
        for stream_id in BULK:
            peer.open_call(stream_id)
        await peer.flush()
        while sum(map(peer.data, BULK)) < MIB:
            await peer.receive(size)
        for stream_id in range(101, 121, 2):
            peer.heard.clear()
            arrived = trio.Event()
            ask(peer, stream_id)
            await peer.flush()
            await arrived.wait()
            while not peer.ended(stream_id):
                await peer.receive(size)
            # A frame that was read in part before counts whole.
            between = _data_before(peer, stream_id)
            assert between <= held + BOUND, f"{held} bytes were in the kernel"
        await trio.aclose_forcefully(theirs)


def _data_before(peer: RawPeer, stream_id: int) -> int:
    before = 0
    for event in peer.heard:
        if getattr(event, "stream_id", None) == stream_id and type(event).__name__ == "StreamEnded":
            break
        before += len(getattr(event, "data", b"") or b"")
    return before


# -- who stands still stops only itself --------------------------------------------------------------------------------


async def check_health(channel: Channel) -> None:
    """Ask for the health as an engine does, with its time limit."""
    await channel.unary(CHECK, health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse, timeout=15)


async def test_slow_handlers_stop_only_themselves(autojump_clock: Any) -> None:
    """A hundred calls whose handlers take their time cost a health check none."""

    async def slow(call: ServerCall) -> None:
        await trio.sleep(1000)

    ours, theirs = trio.testing.memory_stream_pair()
    async with (
        open_server(ours, hosting(M=slow)) as server,
        open_channel(theirs) as channel,
        trio.open_nursery() as nursery,
    ):

        async def call() -> None:
            async with channel.open_call("/t.S/M") as one:
                await one.receive()

        for _ in range(100):
            nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.calls) == 100
        started = trio.current_time()
        await check_health(channel)
        assert trio.current_time() == started
        nursery.cancel_scope.cancel()


async def test_handlers_that_never_read_stop_only_themselves(autojump_clock: Any) -> None:
    """Fifteen callers that fill their windows, with handlers that do not read, cost a health check no time."""

    async def deaf(call: ServerCall) -> None:
        await trio.sleep_forever()

    ours, theirs = trio.testing.memory_stream_pair()
    async with (
        open_server(ours, hosting(M=deaf)) as server,
        open_channel(theirs) as channel,
        trio.open_nursery() as nursery,
    ):

        async def flood() -> None:
            async with channel.open_call("/t.S/M") as one:
                while True:
                    await one.send(bytes(MIB))

        for _ in range(15):
            nursery.start_soon(flood)
        with trio.move_on_after(1):
            await trio.sleep_forever()
        assert all(call.receive_window < MIB for call in server.inspect().calls)
        assert server.inspect().unread > 15 * 2 * MIB
        started = trio.current_time()
        await check_health(channel)
        assert trio.current_time() == started
        nursery.cancel_scope.cancel()


class BlockedDisk(Directory):
    """A tree whose files cannot be read for now."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def fetch(self, path: bytes, offered: int) -> bytes | Content:
        """Wait, then read."""
        self.reached.set()
        assert self.go_on.wait(60)
        return super().fetch(path, offered)


async def test_a_blocked_disk_stops_only_itself(tmp_path: Path) -> None:
    """While a transfer waits for its disk the session's health is good, and the transfer goes on when the disk does."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * 100)
    disk = BlockedDisk(folder)
    async with FakeDaemon() as daemon, open_session(daemon.dialer, FileSync({"context": disk})) as session:
        caller = await daemon.wait_session(session.id)
        received = []
        async with trio.open_nursery() as nursery:

            async def transfer() -> None:
                received.append(await caller.diffcopy("context", tmp_path / "received"))

            nursery.start_soon(transfer)
            try:
                await trio.to_thread.run_sync(disk.reached.wait, 60)
                for _ in range(20):
                    await caller.health(timeout=15)
                assert not received
            finally:
                disk.go_on.set()
    assert len(received) == 1
    assert (tmp_path / "received" / "file").read_bytes() == b"x" * 100

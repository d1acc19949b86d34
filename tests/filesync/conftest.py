"""Both ends of a DiffCopy conversation in memory, without any buffer between them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio

from mobysession._pb.fsutil_pb2 import Packet, Stat
from mobysession.filesync import Directory, send_tree

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from mobysession.filesync import PacketStream, TransferReport

    Tree = Mapping[str, "bytes | str | Tree"]


class LockstepStream:
    """One end: what is sent waits until the other end takes it."""

    def __init__(
        self,
        incoming: trio.MemoryReceiveChannel[list[bytes]],
        outgoing: trio.MemorySendChannel[list[bytes]],
    ) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    async def receive_batch(self) -> list[bytes]:
        try:
            return await self._incoming.receive()
        except trio.EndOfChannel:
            return []

    async def send_batch(self, messages: Sequence[bytes | bytearray | memoryview]) -> None:
        await self._outgoing.send([bytes(message) for message in messages])

    def end(self) -> None:
        """Send no more."""
        self._outgoing.close()


class Peer(LockstepStream):
    """The other end, played by a test packet by packet."""

    _arrived: list[bytes]

    async def packet(self) -> Packet:
        """Return the next packet."""
        if not getattr(self, "_arrived", None):
            self._arrived = await self.receive_batch()
        assert self._arrived, "the stream ended"
        return Packet.FromString(self._arrived.pop(0))

    async def listing(self) -> list[Stat]:
        """Return the entries up to the end of the listing."""
        stats = []
        while (packet := await self.packet()).HasField("stat"):
            stats.append(packet.stat)
        assert packet == Packet()
        return stats

    async def content(self, entry_id: int) -> bytes:
        """Return the file that arrives next, which must be this one."""
        parts = []
        while (packet := await self.packet()).data:
            assert (packet.type, packet.ID) == (Packet.PACKET_DATA, entry_id)
            parts.append(packet.data)
        assert packet == Packet(type=Packet.PACKET_DATA, ID=entry_id)
        return b"".join(parts)

    async def say(self, *packets: Packet) -> None:
        await self.send_batch([packet.SerializeToString() for packet in packets])

    async def request(self, *entry_ids: int) -> None:
        await self.say(*(Packet(type=Packet.PACKET_REQ, ID=entry_id) for entry_id in entry_ids))

    async def part(self) -> None:
        """Exchange FIN."""
        await self.say(Packet(type=Packet.PACKET_FIN))
        while (await self.packet()).type != Packet.PACKET_FIN:
            pass


@pytest.fixture
def packet_pair() -> Callable[[], tuple[PacketStream, Peer]]:
    """Give a function that makes two connected ends: one for our code and one for the test."""

    def make() -> tuple[PacketStream, Peer]:
        there, from_here = trio.open_memory_channel[list[bytes]](0)
        here, from_there = trio.open_memory_channel[list[bytes]](0)
        return LockstepStream(from_there, there), Peer(from_here, here)

    return make


@pytest.fixture
def plant() -> Callable[[Path, Tree], None]:
    """Give a function that makes a tree: a mapping is a directory, bytes are a file, text is where a link points."""

    def make(directory: Path, tree: Tree) -> None:
        directory.mkdir(exist_ok=True)
        for name, what in tree.items():
            path = directory / name
            if isinstance(what, bytes):
                path.write_bytes(what)
            elif isinstance(what, str):
                os.symlink(what, path)
            else:
                make(path, what)

    return make


@pytest.fixture
def converse(packet_pair: Callable[[], tuple[PacketStream, Any]]) -> Callable[..., Awaitable[TransferReport]]:
    """Give a function that sends a tree to a peer played by the test, and returns the report."""

    async def converse(source: Any, play: Callable[[Any], Awaitable[None]], **options: Any) -> TransferReport:
        ours, peer = packet_pair()
        if isinstance(source, os.PathLike):
            source = Directory(source)
        reports = []

        async def send() -> None:
            reports.append(await send_tree(ours, source, **options))

        with trio.fail_after(20):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send)
                    nursery.start_soon(play, peer)
            except BaseExceptionGroup as group:
                (error,) = group.exceptions
                raise error from None
        return reports[0]

    return converse

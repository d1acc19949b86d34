"""Who watches a connection hears of each call all that was said, in order, and of every byte; and may look away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession.errors import RpcError, StatusCode
from mobysession.protocol.frame_heads import parse_heads
from mobysession.rpc.client import open_channel
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mobysession.protocol.framing import Buffer
    from mobysession.rpc.call import Call
    from mobysession.rpc.server import ServerCall


class Notes:
    """What was heard of one call, in order."""

    def __init__(self, said: list[Any]) -> None:
        self.said = said

    def initial_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """Note it."""
        self.said.append(("begins", list(metadata)))

    def received(self, messages: Sequence[bytes]) -> None:
        """Note it."""
        self.said.append(("in", *messages))

    def received_all(self) -> None:
        """Note it."""
        self.said.append("in: all")

    def sent(self, messages: Sequence[Buffer]) -> None:
        """Note it."""
        self.said.append(("out", *map(bytes, messages)))

    def ended(
        self, code: StatusCode, message: str, details: bytes, trailers: Sequence[tuple[str, str | bytes]]
    ) -> None:
        """Note it."""
        self.said.append((code.name, message, details, list(trailers)))


class Watcher:
    """Hears of all calls but those whose method ends in ``deaf_to``."""

    def __init__(self, deaf_to: str = "-") -> None:
        self.calls: list[list[Any]] = []
        self.heard = b""
        self.said = b""
        self._deaf_to = deaf_to

    def call_started(self, call: Call, metadata: Sequence[tuple[str, str | bytes]]) -> Notes | None:
        """Begin a list for the call."""
        if call.method.endswith(self._deaf_to):
            return None
        self.calls.append([(call.method, list(metadata))])
        return Notes(self.calls[-1])

    def bytes_received(self, data: bytes) -> None:
        """Keep them."""
        self.heard += data

    def bytes_sent(self, pieces: Sequence[Buffer]) -> None:
        """Keep them."""
        self.said += b"".join(pieces)


def hosting(handler: Callable[[ServerCall], Awaitable[None]]) -> Registrar:
    """Return a registrar with ``/t.S/M``, and the same method as ``/t.S/N``."""
    registrar = Registrar()
    for name in "MN":
        registrar.stream(f"/t.S/{name}", handler)
    return registrar


async def answer(call: ServerCall) -> None:
    """Do a little of everything."""
    await call.send_initial_metadata([("early", "1")])
    assert await call.receive() == b"ping"
    await call.send_batch([b"pong", b"and more"])
    assert await call.receive() is None
    raise RpcError(StatusCode.ABORTED, "no more", details=b"\x08\x0a", trailers=[("late", "2")])


async def test_both_sides_of_a_call() -> None:
    """Method, metadata, messages, ends and status are heard on either side, in the order of the wire."""
    ours, theirs = trio.testing.memory_stream_pair()
    served, called = Watcher(), Watcher()
    async with (
        open_server(ours, hosting(answer), observer=served),
        open_channel(theirs, observer=called) as channel,
        channel.open_call("/t.S/M", metadata=[("k", "v")]) as call,
    ):
        await call.send(b"ping")
        await call.end()
        assert await call.receive_batch() == [b"pong", b"and more"]
        with pytest.raises(RpcError, match="no more"):
            await call.receive()
    opening = ("/t.S/M", [("k", "v")])
    begins, pong = ("begins", [("early", "1")]), (b"pong", b"and more")
    (at_server,), (at_client,) = served.calls, called.calls
    assert at_server[0] == opening
    # What comes and what goes are in order, each for itself.
    assert [one for one in at_server if one[0] == "in" or one == "in: all"] == [("in", b"ping"), "in: all"]
    assert [one for one in at_server if one[0] in ("begins", "out")] == [begins, ("out", *pong)]
    assert at_server[-1][:2] == at_client[-1][:2] == ("ABORTED", "no more")
    assert ("late", "2") in at_server[-1][3]
    assert at_client[:-1] == [opening, ("out", b"ping"), begins, ("in", *pong)]


async def test_every_byte() -> None:
    """What one side says is what the other hears: whole frames, from the preface on."""
    ours, theirs = trio.testing.memory_stream_pair()
    served, called = Watcher(), Watcher()
    async with (
        open_server(ours, hosting(answer), observer=served),
        open_channel(theirs, observer=called) as channel,
        channel.open_call("/t.S/M") as call,
    ):
        await call.end(bytes(100_000))
        with pytest.raises(RpcError):
            await call.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert served.said == called.heard
        assert called.said == served.heard
    sizes = [head.length for head in parse_heads(called.said) if head.type == "DATA"]
    assert sum(sizes) == 100_005
    assert max(sizes) == limits.MAX_FRAME


async def test_ends_without_a_status() -> None:
    """A call that is left, cancelled, unknown, or lost with its connection has an end too, and only one."""

    async def hang(call: ServerCall) -> None:
        await trio.sleep_forever()

    ours, theirs = trio.testing.memory_stream_pair()
    served, called = Watcher(), Watcher()
    async with open_server(ours, hosting(hang), observer=served), open_channel(theirs, observer=called) as channel:
        async with channel.open_call("/t.S/M"):
            await trio.testing.wait_all_tasks_blocked()
        async with channel.open_call("/t.S/M") as call:
            await trio.testing.wait_all_tasks_blocked()
            call.cancel()
        async with channel.open_call("/t.S/Unknown") as call:
            with pytest.raises(RpcError):
                await call.receive()
        async with channel.open_call("/t.S/M"):
            await trio.testing.wait_all_tasks_blocked()
            await ours.aclose()
            await channel.closed.wait()
    ends = [[entry[0] for entry in call[1:] if isinstance(entry, tuple)] for call in called.calls]
    assert ends == [["CANCELLED"], ["CANCELLED"], ["UNIMPLEMENTED"], ["UNAVAILABLE"]]
    ends = [[entry[0] for entry in call[1:] if isinstance(entry, tuple)] for call in served.calls]
    assert ends == [["CANCELLED"], ["CANCELLED"], ["UNIMPLEMENTED"], ["CANCELLED"]]


async def test_one_may_look_away_and_come_later() -> None:
    """A call whose observer is None is not heard of; an observer that comes later hears of what begins then."""
    ours, theirs = trio.testing.memory_stream_pair()
    watcher = Watcher(deaf_to="/N")
    async with open_server(ours, hosting(answer)) as server, open_channel(theirs) as channel:
        for number, method in enumerate(("/t.S/M", "/t.S/M", "/t.S/N", "/t.S/M")):
            server.observer = watcher if number in (1, 2) else None
            async with channel.open_call(method) as call:
                await call.end(b"ping")
                assert len(await call.receive_batch()) == 2
                with pytest.raises(RpcError):
                    await call.receive()
    assert [said[0][0] for said in watcher.calls] == ["/t.S/M"]
    assert watcher.calls[0][-1][0] == "ABORTED"

"""Two cores of ours that talk by any schedule: whatever they did, in the end nothing is left of it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobysession import limits
from mobysession.errors import RpcError, StatusCode
from mobysession.protocol import events
from mobysession.protocol.client import ClientConnection
from mobysession.protocol.server import ServerConnection

if TYPE_CHECKING:
    from mobysession.protocol.events import Event

Core = ClientConnection | ServerConnection


class Side:
    """One core, who uses it, and the bytes that are on their way from it."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.wire = bytearray()
        #: Open calls, each with its messages that were not consumed.
        self.calls: dict[int, list[bytes]] = {}
        #: Calls on which nothing more may be said.
        self.ended: set[int] = set()

    def hear(self, data: bytes) -> None:
        """Take what the other side said."""
        for event in self.core.receive_data(data):
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case events.CallReceived(stream_id):
                self.calls[stream_id] = []
            case events.MessagesReceived(stream_id, messages):
                self.calls[stream_id] += messages
            case events.CallReset(stream_id) | events.CallEnded(stream_id):
                self.calls.pop(stream_id, None)
            case _:
                pass

    def call(self, number: int) -> int | None:
        """Return one of the open calls."""
        return sorted(self.calls)[number % len(self.calls)] if self.calls else None

    def say(self, number: int, size: int) -> None:
        """Queue a message on a call."""
        stream_id = self.call(number)
        if stream_id is not None and stream_id not in self.ended:
            self.core.send_messages(stream_id, [bytes(size)])

    def end(self, number: int) -> None:
        """Say the last word on a call."""
        stream_id = self.call(number)
        if stream_id is None or stream_id in self.ended:
            return
        self.ended.add(stream_id)
        if isinstance(self.core, ServerConnection):
            self.core.send_trailers(stream_id, StatusCode.OK)
        else:
            self.core.end_request(stream_id)

    def reset(self, number: int) -> None:
        """Give a call up."""
        stream_id = self.call(number)
        if stream_id is not None:
            self.core.reset(stream_id)
            del self.calls[stream_id]

    def consume(self, number: int) -> None:
        """Take what has arrived on a call."""
        stream_id = self.call(number)
        if stream_id is not None:
            self.core.consumed(stream_id, self.calls[stream_id])
            self.calls[stream_id] = []


class World:
    """The two sides, and the wires between them."""

    def __init__(self) -> None:
        self.client = Side(ClientConnection())
        self.server = Side(ServerConnection())

    def flush(self, side: Side) -> None:
        """Put the next bytes of one side on its wire."""
        side.wire += side.core.data_to_send()

    def deliver(self, side: Side, size: int) -> None:
        """Let the other side hear so many bytes of ``side``'s wire."""
        data = bytes(side.wire[:size])
        del side.wire[:size]
        if data:
            (self.server if side is self.client else self.client).hear(data)

    def settle(self) -> None:
        """Deliver all and take all, until nothing more is said."""
        said = True
        while said:
            said = False
            for side in (self.client, self.server):
                self.flush(side)
                said = said or bool(side.wire)
                self.deliver(side, len(side.wire))
                for number in range(len(side.calls)):
                    side.consume(number)

    def step(self, what: str, by_client: bool, number: int, size: int) -> None:
        """Let one thing happen."""
        side = self.client if by_client else self.server
        match what:
            case "call":
                with suppress(RpcError):
                    stream_id = self.client.core.start_call("/a.B/C", metadata=[("size", str(size))])  # type: ignore[union-attr]  # it is the client
                    self.client.calls[stream_id] = []
            case "say":
                side.say(number, size)
            case "end":
                side.end(number)
            case "reset":
                side.reset(number)
            case "consume":
                side.consume(number)
            case "ping":
                side.core.ping(b"12345678")
            case "flush":
                self.flush(side)
            case _:
                self.flush(side)
                self.deliver(side, size)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["call", "call", "say", "say", "end", "reset", "consume", "ping", "flush", "deliver", "deliver"]
        ),
        st.booleans(),
        st.integers(0, 5),
        st.one_of(st.sampled_from([0, 1, 9, 100, 5000, 70_000, 300_000]), st.integers(0, 100_000)),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(STEPS)
def test_two_cores_always_end_quiet(steps: list[tuple[str, bool, int, int]]) -> None:
    """Behind any schedule, when all has ended, nothing is queued, no call is open, and the windows are as they were."""
    world = World()
    world.settle()
    for step in steps:
        world.step(*step)
    world.settle()
    for side in (world.server, world.client):
        for number in range(len(side.calls)):
            side.end(number)
        world.settle()
    assert_quiet(world)


def assert_quiet(world: World) -> None:
    """Check both sides, and what each thinks of the other."""
    for side, other in ((world.client, world.server), (world.server, world.client)):
        core = side.core
        assert not core.terminated
        assert (core.open_calls, core.has_queued, core.unread, core.data_to_send()) == (0, False, 0, b"")
        # A server is not told of an end that it has said itself.
        assert side.calls.keys() <= side.ended
        # What is missing in the window is what the other side has taken, and gives back with the next bytes.
        assert core.send_window + other.core._windows.owed == limits.CONNECTION_WINDOW


@pytest.mark.parametrize("size", [1, 70_000, 9 * limits.MIB])
def test_a_stream_of_any_size_ends_quiet(size: int) -> None:
    """The same where a message is larger than the window of its stream."""
    world = World()
    world.settle()
    for what, by_client in (("call", True), ("say", True), ("end", True), ("deliver", True)):
        world.step(what, by_client, 0, size)
    world.settle()
    for what in ("say", "end"):
        world.step(what, False, 0, size)
    world.settle()
    assert_quiet(world)

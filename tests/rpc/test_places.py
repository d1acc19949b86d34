"""Calls beyond those that a peer takes at once wait for a place, with bare HTTP/2 as that peer."""

# ruff: noqa: SIM117 - a call within a channel

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import h2.events
import h2.settings
import pytest
import trio
import trio.testing

from mobysession.errors import LocalProtocolError, RpcError, StatusCode
from mobysession.rpc.client import open_channel
from tests.rpc.bare import OK, RESPONSE, open_bare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobysession.rpc.client import Channel
    from tests.rpc.bare import Bare

M = "/t.S/M"
MOST = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS


@asynccontextmanager
async def calling(most: int) -> AsyncIterator[tuple[Channel, Bare, Caller]]:
    """Yield a channel, the bare server at its other end, which takes so many calls at once, and who calls."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_channel(ours) as channel:
        async with open_bare(theirs, client_side=False) as bare:
            bare.h2.update_settings({MOST: most})
            await bare.settle()
            async with trio.open_nursery() as nursery:
                yield channel, bare, Caller(channel, nursery)
                nursery.cancel_scope.cancel()


class Caller:
    """Makes calls in tasks of their own, and notes which have begun and how they ended."""

    def __init__(self, channel: Channel, nursery: trio.Nursery) -> None:
        self.begun: list[str] = []
        self.ended: dict[str, Any] = {}
        self._channel = channel
        self._nursery = nursery

    async def call(self, *names: str, timeout: float | None = None) -> None:
        """Begin calls, one after the other, and let everybody act."""
        for name in names:
            self._nursery.start_soon(self._call, name, timeout)
            await trio.testing.wait_all_tasks_blocked()

    async def _call(self, name: str, timeout: float | None) -> None:
        try:
            async with self._channel.open_call(f"{M}{name}", timeout=timeout) as call:
                self.begun.append(name)
                await call.end()
                self.ended[name] = await call.receive()
        except RpcError as error:
            self.ended[name] = error


async def finish(bare: Bare, *streams: int) -> None:
    """Answer calls, and let everybody act on it."""
    for stream_id in streams:
        bare.h2.send_headers(stream_id, [*RESPONSE, *OK], end_stream=True)
    await bare.settle()
    await bare.settle()


async def test_first_come_first_served() -> None:
    """The calls beyond the limit begin in their order, one for each that ends, and none passes those that wait."""
    async with calling(2) as (_, bare, caller):
        await caller.call(*"abcde")
        assert caller.begun == ["a", "b"]
        await finish(bare, 3)
        assert caller.begun == ["a", "b", "c"]
        await caller.call("f")
        await finish(bare, 1, 5)
        assert caller.begun == ["a", "b", "c", "d", "e"]
        await finish(bare, 7, 9)
        await finish(bare, 11)
        assert caller.begun == ["a", "b", "c", "d", "e", "f"]
        assert list(caller.ended.values()) == [None] * 6


async def test_a_call_that_is_left_leaves_its_place() -> None:
    """A call of ours that is cancelled, or reset by the peer, makes room too, also while its block goes on."""
    async with calling(1) as (channel, bare, caller):
        async with channel.open_call(M) as call:
            await caller.call("a")
            call.cancel()
            await bare.settle()
            assert caller.begun == ["a"]
            await caller.call("b")
            bare.h2.reset_stream(3, 8)
            await bare.settle()
            assert caller.begun == ["a", "b"]
            assert caller.ended["a"].code is StatusCode.CANCELLED


async def test_the_timeout_counts_while_a_call_waits(autojump_clock: trio.testing.MockClock) -> None:
    """A call that gets no place in time ends then; one that gets it late has what is left, and tells the peer that."""
    async with calling(1) as (_, bare, caller):
        await caller.call("a")
        await caller.call("b", timeout=5)
        await caller.call("c", timeout=60)
        await trio.sleep(6)  # on the virtual clock: past b's deadline
        assert caller.begun == ["a"]
        assert caller.ended["b"].code is StatusCode.DEADLINE_EXCEEDED
        assert "takes no more calls at once" in caller.ended["b"].message
        await trio.sleep(34)  # so that of c's 60 s there are 20 left
        await finish(bare, 1)
        assert (b"grpc-timeout", b"20000000u") in bare.fields(3, h2.events.RequestReceived)
        await trio.sleep(21)  # past those
        assert caller.ended["c"].code is StatusCode.DEADLINE_EXCEEDED
        assert "no answer within 60 s" in caller.ended["c"].message


async def test_whoever_stops_waiting_holds_nobody_up() -> None:
    """The first in line may be cancelled; the next gets the place."""
    async with calling(1) as (channel, bare, caller):
        await caller.call("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Caller(channel, nursery).call, "b")
            await trio.testing.wait_all_tasks_blocked()
            await caller.call("c")
            nursery.cancel_scope.cancel()
        await finish(bare, 1)
        assert caller.begun == ["a", "c"]


@pytest.mark.parametrize("goodbye", [False, True])
async def test_nobody_waits_for_a_peer_that_takes_none_any_more(goodbye: bool) -> None:
    """A goodbye, or the end of the connection, makes the calls that wait UNAVAILABLE."""
    async with calling(1) as (_, bare, caller):
        await caller.call(*"abc")
        assert isinstance(bare.stream, trio.StapledStream)
        if goodbye:
            # GOAWAY without an error, after stream 1, which goes on.
            await bare.stream.send_all(b"\0\0\x08\7\0\0\0\0\0" + bytes((0, 0, 0, 1)) + bytes(4))
        else:
            await bare.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        assert caller.begun == ["a"]
        assert [caller.ended[name].code for name in "bc"] == [StatusCode.UNAVAILABLE] * 2
        assert ("a" in caller.ended) is not goodbye


async def test_a_peer_may_take_more_later() -> None:
    """A limit of none is waited for, and a higher one lets as many in."""
    async with calling(0) as (_, bare, caller):
        await caller.call(*"abc")
        assert caller.begun == []
        bare.h2.update_settings({MOST: 2})
        await bare.settle()
        assert caller.begun == ["a", "b"]


async def test_what_cannot_be_said_is_refused_without_a_place() -> None:
    """A call that no header field can carry leaves the place to the next."""
    async with calling(1) as (channel, _, caller):
        with pytest.raises(LocalProtocolError):
            async with channel.open_call("x"):
                pass
        await caller.call("a")
        assert caller.begun == ["a"]

"""Conversations recorded from real engines: understood however they are cut, and survived however they are damaged."""

from __future__ import annotations

import itertools
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobysession.protocol import events
from mobysession.protocol.client import ClientConnection
from mobysession.protocol.server import ServerConnection
from tests.fuzz.connections import hear_as_client, hear_as_server
from tests.fuzz.seeds import conversations, frames_of
from tests.protocol.test_connection_properties import merged

if TYPE_CHECKING:
    from mobysession.protocol.connection import GrpcConnection

NAMES = sorted(conversations())
SESSIONS = [name for name in NAMES if name.startswith("session-")]


def core_for(name: str) -> GrpcConnection:
    """Return a core in the role that heard the recording, with the calls open that it answers."""
    if name in SESSIONS:
        return ServerConnection()
    core = ClientConnection()
    for _ in range(conversations()[name].calls):
        core.start_call("/a.B/C")
    return core


def hear(name: str, pieces: list[bytes]) -> list[object]:
    """Return what our side makes of a conversation in ``pieces``; messages are taken at once."""
    core = core_for(name)
    heard: list[object] = []
    for piece in pieces:
        happened = core.receive_data(piece)
        heard += happened
        for event in happened:
            if isinstance(event, events.MessagesReceived):
                core.consumed(event.stream_id, event.messages)
        core.data_to_send()
    return merged(heard)


@pytest.mark.parametrize("name", NAMES)
def test_engines_are_understood(name: str) -> None:
    """What engines say breaks no rule of ours, all of it at once, a frame at a time, and in pieces of a few bytes."""
    said = conversations()[name].said
    whole = hear(name, [said])
    assert hear(name, frames_of(said)) == whole
    assert hear(name, [said[start : start + 7] for start in range(0, len(said), 7)]) == whole
    kinds = {type(event) for event in whole}
    assert events.SettingsReceived in {*kinds, *[event for event in whole if isinstance(event, type)]}
    assert (events.CallReceived if name in SESSIONS else events.CallEnded) in kinds


@settings(max_examples=60)
@given(st.sampled_from(NAMES), st.lists(st.integers(0, 20_000), max_size=10))
def test_any_cut_gives_equal_events(name: str, cuts: list[int]) -> None:
    """A recorded conversation means the same however the network cuts it."""
    said = conversations()[name].said
    edges = [0, *sorted(cut for cut in cuts if cut < len(said)), len(said)]
    assert hear(name, [said[start:end] for start, end in itertools.pairwise(edges)]) == hear(name, [said])


@settings(max_examples=100)
@given(st.sampled_from(NAMES), st.data())
def test_any_order_of_frames(name: str, data: st.DataObject) -> None:
    """Frames left out, doubled or exchanged give events or a RemoteProtocolError, and bounded queues."""
    frames = frames_of(conversations()[name].said)
    first = 1 if name in SESSIONS else 0
    for _ in range(data.draw(st.integers(1, 4))):
        here = data.draw(st.integers(first, len(frames) - 1))
        there = data.draw(st.integers(first, len(frames) - 1))
        match data.draw(st.sampled_from(["drop", "double", "exchange"])):
            case "drop":
                frames[here] = b""
            case "double":
                frames[here] *= 2
            case _:
                frames[here], frames[there] = frames[there], frames[here]
    listen = hear_as_server if name in SESSIONS else hear_as_client
    listen(b"".join(frames), Random(data.draw(st.integers(0, 2**32))))


@settings(max_examples=100)
@given(st.sampled_from(NAMES), st.data())
def test_any_flipped_bits(name: str, data: st.DataObject) -> None:
    """The same for bits that were flipped anywhere."""
    said = bytearray(conversations()[name].said)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(said) - 1))
        said[place] ^= 1 << data.draw(st.integers(0, 7))
    listen = hear_as_server if name in SESSIONS else hear_as_client
    listen(bytes(said), Random(data.draw(st.integers(0, 2**32))))

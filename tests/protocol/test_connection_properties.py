"""What holds for every way to cut a conversation, and for every garbage."""

from __future__ import annotations

import itertools
from contextlib import suppress
from functools import cache

import hyperframe.frame
from hypothesis import given, settings
from hypothesis import strategies as st

from mobysession.errors import RemoteProtocolError, RpcError, StatusCode
from mobysession.protocol.client import ClientConnection
from mobysession.protocol.events import CallReceived, MessagesReceived, SettingsReceived
from mobysession.protocol.framing import encode_messages
from mobysession.protocol.server import ServerConnection
from tests.protocol.peers import Bare

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


@cache
def conversation() -> bytes:
    """Return what a daemon says in a conversation with most of what can happen in one."""
    bare = Bare(ServerConnection())
    bare.request((b"a", b"b"), (b"x-bin", b"AA"))
    bare.peer.send_data(1, encode_messages([b"one", b"two" * 1000]), end_stream=True)
    bare.request((b"a", b"b"), stream_id=3)
    bare.peer.send_data(3, b"\0\0\0\0\x05ab")
    bare.peer.ping(b"12345678")
    bare.peer.increment_flow_control_window(10, 3)
    bare.peer.update_settings({4: 100})
    bare.peer.reset_stream(3, 8)
    bare.request((b":unknown", b"x"), stream_id=5)
    bare.peer.close_connection(0, additional_data=b"bye")
    return PREFACE + SETTINGS + bare.peer.data_to_send()


def hear(pieces: list[bytes]) -> list[object]:
    """Return what a server of ours makes of ``pieces``, a broken connection as its last event."""
    core = ServerConnection()
    core.data_to_send()
    heard: list[object] = []
    for piece in pieces:
        try:
            heard += core.receive_data(piece)
        except RemoteProtocolError as error:
            heard.append(error.error_code)
            break
        finally:
            core.data_to_send()
    return heard


def merged(heard: list[object]) -> list[object]:
    """Leave out what depends on the cut: how many messages come at once, and how new the settings are."""
    result: list[object] = []
    for event in heard:
        last = result[-1] if result else None
        if isinstance(event, SettingsReceived):
            result.append(SettingsReceived)
        elif (
            isinstance(event, MessagesReceived)
            and isinstance(last, MessagesReceived)
            and last.stream_id == event.stream_id
        ):
            result[-1] = last._replace(messages=last.messages + event.messages)
        else:
            result.append(event)
    return result


@given(st.lists(st.integers(0, 4000), max_size=12))
def test_any_cut_gives_equal_events(cuts: list[int]) -> None:
    """A conversation means the same however the network cuts it."""
    said = conversation()
    edges = [0, *sorted(cut for cut in cuts if cut < len(said)), len(said)]
    pieces = [said[start:end] for start, end in itertools.pairwise(edges)]
    assert merged(hear(pieces)) == merged(hear([said]))


def test_byte_by_byte() -> None:
    """Also when it comes in single bytes."""
    said = conversation()
    whole = hear([said])
    assert [type(event).__name__ for event in whole] == [
        "SettingsReceived",
        "CallReceived",
        "MessagesReceived",
        "RequestEnded",
        "CallReceived",
        "SettingsReceived",
        "CallReset",
        "GoAwayReceived",
    ]
    assert merged(hear([said[i : i + 1] for i in range(len(said))])) == merged(whole)


FRAMES = st.one_of(
    st.builds(
        lambda kind, flags, stream_id, body: (
            len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + body
        ),
        st.integers(0, 12),
        st.sampled_from([0, 1, 4, 5, 8, 9, 0x20, 0x25, 0xFF]),
        st.sampled_from([0, 1, 1, 1, 2, 3, 5, 2**31 - 1]),
        st.binary(max_size=40),
    ),
    st.sampled_from(
        [
            hyperframe.frame.HeadersFrame(stream_id, data, flags=flags).serialize()
            for stream_id in (1, 3)
            for flags in (["END_HEADERS"], ["END_HEADERS", "END_STREAM"])
            for data in (
                b"\x83\x86\x44\x06/a.B/C\x5f\x10application/grpc",
                b"\x82\x86\x84",
                b"\x88\x5f\x10application/grpc",
                b"\x00\x0bgrpc-status\x010",
                b"\x8d",
                b"\x00\x0ccontent-length\x03abc",
            )
        ]
    ),
    st.sampled_from([b"\0\0\x05\0\0\0\0\0\1\0\0\0\0\0", b"\0\0\x05\0\1\0\0\0\1\1\0\0\0\1"]),
)


@settings(max_examples=300)
@given(st.booleans(), st.one_of(st.binary(max_size=200), st.lists(FRAMES, max_size=12).map(b"".join)), st.booleans())
def test_any_garbage(client_side: bool, garbage: bytes, polite: bool) -> None:
    """Garbage gives events or a RemoteProtocolError, and whatever we then want to say is no error either."""
    core = ClientConnection() if client_side else ServerConnection()
    if isinstance(core, ClientConnection):
        core.start_call("/a.B/C")
        core.start_call("/a.B/C")
    beginning = (SETTINGS if client_side else PREFACE + SETTINGS) if polite else b""
    try:
        heard = core.receive_data(beginning + garbage)
    except RemoteProtocolError:
        heard = []
    core.data_to_send()
    calls = {event.stream_id for event in heard if isinstance(event, CallReceived)}
    for stream_id in {1, 3} if client_side else calls:
        for event in heard:
            if isinstance(event, MessagesReceived) and event.stream_id == stream_id:
                core.consumed(stream_id, event.messages)
        core.send_messages(stream_id, [b"x"])
        if isinstance(core, ClientConnection):
            core.end_request(stream_id)
        else:
            core.send_trailers(stream_id, StatusCode.OK)
        core.data_to_send()
        core.reset(stream_id)
    if isinstance(core, ClientConnection):
        with suppress(RpcError):
            core.start_call("/a.B/C")
    core.close()
    core.data_to_send()


@given(st.data())
def test_damaged_conversation(data: st.DataObject) -> None:
    """A valid conversation with single bytes changed gives events or a RemoteProtocolError and nothing else."""
    said = bytearray(conversation())
    for _ in range(data.draw(st.integers(1, 4))):
        said[data.draw(st.integers(len(PREFACE), len(said) - 1))] = data.draw(st.integers(0, 255))
    hear([bytes(said)])

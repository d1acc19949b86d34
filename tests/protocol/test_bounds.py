"""Bounds that no other file of this room names."""

from __future__ import annotations

import h2.events
import pytest

from mobysession import limits
from mobysession.errors import RemoteProtocolError
from mobysession.protocol import events
from mobysession.protocol.http2 import Http2
from mobysession.protocol.server import ServerConnection
from tests.protocol.peers import Bare, Pair
from tests.protocol.wire import Code, Talk, Type, data, request


@pytest.mark.parametrize("size", [limits.MAX_DEBUG_DATA, limits.MAX_DEBUG_DATA + 1])
@pytest.mark.parametrize("how", ["close", "drain"])
def test_debug_data_of_a_goodbye(how: str, size: int) -> None:
    """What a GOAWAY explains is told up to `MAX_DEBUG_DATA` bytes, and cut behind them."""
    pair = Pair()
    if how == "close":
        pair.server.close(2, b"x" * size)
    else:
        pair.server.drain(b"x" * size)
    pair.run()
    said = [event.debug_data for event in pair.to_client if isinstance(event, events.GoAwayReceived)]
    assert said == [b"x" * limits.MAX_DEBUG_DATA] * (1 if how == "close" else 2)


def test_debug_data_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words about a breach of HTTP/2 are cut in the same place."""
    monkeypatch.setattr(limits, "MAX_DEBUG_DATA", 5)
    bare = Bare(ServerConnection())
    with pytest.raises(RemoteProtocolError, match="which is idle"):
        bare.core.receive_data(b"\0\0\4\3\0\0\0\0\1\0\0\0\0")
    bare.run()
    (said,) = bare.heard_of(h2.events.ConnectionTerminated)
    assert said.additional_data == b"a fra"


@pytest.mark.parametrize("over", [0, 1])
def test_how_streams_were_closed_is_forgotten(monkeypatch: pytest.MonkeyPatch, over: int) -> None:
    """DATA behind a reset of ours is dropped for `MAX_CLOSED_STREAMS` streams; on an older one it is an error."""
    assert Http2.MAX_CLOSED_STREAMS == limits.MAX_CLOSED_STREAMS
    monkeypatch.setattr(Http2, "MAX_CLOSED_STREAMS", 3)
    talk = Talk.with_server()
    for stream_id in range(1, 2 * (3 + over), 2):
        talk.hear(request(stream_id))
        talk.core.reset(stream_id)
    talk.flush()
    said = talk.hear(data(1))
    assert [seen.type for seen in said] == [Type.GOAWAY] * over
    assert talk.error is None or talk.error.error_code == Code.PROTOCOL_ERROR

"""Bounds that no other file of this room names."""

from __future__ import annotations

import h2.events
import pytest

from mobysession import limits
from mobysession.errors import RemoteProtocolError
from mobysession.protocol import events
from mobysession.protocol.server import ServerConnection
from tests.protocol.peers import Bare, Pair


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

"""Writing to a socket without waiting, where it takes only a part: no frame is cut into or overtaken."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession import limits
from mobysession.rpc.client import open_channel
from mobysession.rpc.courtesy import Courtesy
from mobysession.rpc.port import nowait_sender
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from tests.rpc.conftest import socket_stream_pair

if TYPE_CHECKING:
    from mobysession.rpc.server import ServerCall

BIG = bytes(range(256)) * 400


@pytest.mark.parametrize("size", [0, 1, 8, 9, 10, 100, limits.KIB, 64 * limits.KIB, len(BIG) + 5])
@pytest.mark.parametrize("writes", [1, 3])
async def test_a_part_is_finished_before_anything_else(size: int, writes: int) -> None:
    """Whatever part of an answer the socket takes, what is sent in the same turn comes behind the rest of it."""
    ours, theirs = socket_stream_pair()
    descriptor = ours.socket.fileno()

    async def answer(call: ServerCall) -> None:
        # Bulk owes the request nothing, so it goes at once.
        server.courtesy = Courtesy()
        for _ in range(writes):
            server.core.send_messages(call.stream_id, [BIG])
            server.send_now(bulk=True)

    registrar = Registrar()
    registrar.stream("/tests.Big/One", answer)
    async with open_server(ours, registrar) as server, open_channel(theirs) as channel:
        server._send_nowait = lambda data: os.write(descriptor, memoryview(data)[:size]) if size else 0
        for _ in range(3):
            async with channel.open_call("/tests.Big/One") as call:
                await call.end(b"x")
                assert [await call.receive() for _ in range(writes)] == [BIG] * writes
                assert await call.receive() is None


async def test_only_a_plain_socket_can_be_written_to_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other stream, and every stream where sockets are no descriptors, has no such way."""
    ours, theirs = socket_stream_pair()
    stream: Any = trio.StapledStream(ours, ours)
    assert nowait_sender(stream) is None
    assert nowait_sender(ours) is not None
    with monkeypatch.context() as patched:
        patched.setattr(os, "name", "nt")
        assert nowait_sender(ours) is None
    ours.socket.close()
    theirs.socket.close()

"""Writing to a socket without waiting, where it takes only a part: no frame is cut into or overtaken."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession.rpc.client import open_channel
from mobysession.rpc.courtesy import Courtesy
from mobysession.rpc.port import nowait_sender, supply, unsent
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
        server.writer.courtesy = Courtesy()
        for _ in range(writes):
            server.core.send_messages(call.stream_id, [BIG])
            server.writer.send_now(bulk=True)

    registrar = Registrar()
    registrar.stream("/tests.Big/One", answer)
    async with open_server(ours, registrar) as server, open_channel(theirs) as channel:
        server.writer._send_nowait = lambda pieces, _: os.write(descriptor, b"".join(pieces)[:size]) if size else 0
        for _ in range(3):
            async with channel.open_call("/tests.Big/One") as call:
                await call.end(b"x")
                assert [await call.receive() for _ in range(writes)] == [BIG] * writes
                assert await call.receive() is None


async def test_a_tcp_socket_takes_more_than_a_frame_ahead() -> None:
    """Whatever else it has sent; other streams, and one that is closed already, are left as they are."""
    ours, theirs = socket_stream_pair()
    supply(ours)
    supply(trio.StapledStream(ours, ours))
    ours.socket.close()
    theirs.socket.close()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    stream = await trio.testing.open_stream_to_socket_listener(listener)
    async with listener, open_server(stream, Registrar()):
        held = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
    supply(stream)
    assert held == limits.UNSENT


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


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"small"], id="one"),
        pytest.param([b"head", memoryview(BIG), b"head", memoryview(BIG)], id="large"),
        pytest.param([b"abcdefgh" * 8] * 2000, id="more than writev takes"),
    ],
)
async def test_pieces_are_written_in_order(pieces: list[Any]) -> None:
    """However many pieces there are, and of whatever size, they arrive one behind the other, as far as they fit."""
    ours, theirs = socket_stream_pair()
    send_nowait = nowait_sender(ours)
    assert send_nowait is not None
    whole = b"".join(pieces)
    sent = send_nowait(pieces, len(whole))
    assert 0 < sent <= len(whole)
    got = b""
    while len(got) < sent:
        got += await theirs.receive_some()
    assert got + unsent(pieces, sent) == whole
    await theirs.aclose()
    assert send_nowait(pieces, len(whole)) == 0
    await ours.aclose()


def test_what_is_left_of_pieces() -> None:
    """Wherever a write stopped, what is left goes on from there, and nothing is left of a whole one."""
    pieces: list[Any] = [b"ab", memoryview(b"cde"), b"f"]
    assert [unsent(pieces, sent) for sent in range(7)] == [b"abcdef"[sent:] for sent in range(7)]

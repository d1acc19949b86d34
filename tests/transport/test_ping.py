"""The ping on a connection that is to be used again: what is read at once, what is left to h11, what ends it."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from mobysession import errors, limits
from mobysession.concurrency import open_nursery
from mobysession.transport.api import Ping, ping_on
from mobysession.transport.endpoint import Endpoint

ENDPOINT = Endpoint.parse("unix:///a.sock")
HEAD = b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nOstype: linux\r\n"
EXPECTED = Ping(api_version="1.51", os_type="linux")


async def _answer(stream: trio.abc.Stream, parts: tuple[bytes, ...], *, close: bool) -> None:
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += bytes(await stream.receive_some())
    assert heard.startswith(b"HEAD /_ping HTTP/1.1\r\nHost: ")
    for part in parts:
        await stream.send_all(part)
        await trio.testing.wait_all_tasks_blocked()
    if close:
        await stream.aclose()


async def ping(*parts: bytes, close: bool = False) -> tuple[Ping | None, bool]:
    """Ping a daemon that answers in these parts."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_nursery() as nursery:
        nursery.start_soon(partial(_answer, theirs, parts, close=close))
        return await ping_on(ours, ENDPOINT)


async def test_a_plain_answer_leaves_the_connection_for_more() -> None:
    """As every engine gives it: the version is read, and nothing is in flight."""
    assert await ping(HEAD + b"Content-Length: 0\r\n\r\n") == (EXPECTED, True)


@pytest.mark.parametrize("at", [1, 9, len(HEAD), len(HEAD) + 1])
async def test_an_answer_may_come_in_pieces(at: int) -> None:
    """The request is sent once, whoever reads the answer."""
    answer = HEAD + b"\r\n"
    assert await ping(answer[:at], answer[at:]) == (EXPECTED, True)


@pytest.mark.parametrize(
    "lines",
    [b"Connection: close\r\n\r\n", b"Connection:\r\nConnection: close\r\n\r\n", b"\r\nand more"],
    ids=["it-will-close", "it-says-so-later", "it-goes-on"],
)
async def test_a_connection_that_ends_or_goes_on_is_not_used_again(lines: bytes) -> None:
    """What is said in the answer counts all the same."""
    assert await ping(HEAD + lines) == (EXPECTED, False)


@pytest.mark.parametrize("lines", [b"Transfer-Encoding: 1\r\n", b"Content-Length: 1\r\nContent-Length: 2\r\n"])
async def test_an_answer_of_no_certain_length_is_none(lines: bytes) -> None:
    """Where two readers could come to differ about its end, nothing is sent behind it."""
    with pytest.raises(errors.HandshakeError, match="not valid HTTP"):
        await ping(HEAD + lines + b"\r\n")


async def test_who_does_not_say_a_version_is_not_known() -> None:
    """It may still be asked more."""
    assert await ping(b"HTTP/1.1 200 OK\r\n\r\n") == (None, True)


@pytest.mark.parametrize(
    ("parts", "kind"),
    [((), errors.ConnectionLost), ((HEAD,), errors.ConnectionLost), ((b"-ERR what\r\n",), errors.HandshakeError)],
)
async def test_who_closes_or_speaks_otherwise_is_told(parts: tuple[bytes, ...], kind: type[Exception]) -> None:
    """At once, and by what was seen."""
    with pytest.raises(kind, match="unix:///a"):
        await ping(*parts, close=True)


@pytest.mark.parametrize("parts", [(), (HEAD,)])
async def test_who_stalls_is_given_up(autojump_clock: trio.testing.MockClock, parts: tuple[bytes, ...]) -> None:
    """In one patience, not in one for each reader."""
    before = trio.current_time()
    with pytest.raises(errors.HandshakeTimeout):
        await ping(*parts)
    assert trio.current_time() - before == pytest.approx(limits.HANDSHAKE_TIMEOUT)

"""Daemons that say no, say something else, or say nothing: each is a typed error with what is known of it."""

from __future__ import annotations

import pytest
import trio

from mobysession.errors import (
    ConnectError,
    ConnectionLost,
    HandshakeError,
    HandshakeTimeout,
    SessionIdInUse,
    SessionNotReady,
    UpgradeRefused,
)
from mobysession.session import Session
from mobysession.testing import FakeDaemon, Faults, Refusal
from mobysession.transport.endpoint import Endpoint


async def _attach(daemon):
    session = Session(daemon.dialer)
    try:
        async with session.attach():
            pytest.fail("attached")
    finally:
        assert session.attachment is None


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "protocol h2c not supported"),
        (403, "authorization denied by plugin opa: no sessions for you"),
        (404, "page not found"),
        (500, "dockerd is shutting down"),
    ],
)
async def test_a_refusal_keeps_the_daemons_own_words(status, words):
    """Status and words of a refusal are attributes, and the message has both."""
    async with FakeDaemon(faults=Faults(refusal=Refusal(status, words))) as daemon:
        with pytest.raises(UpgradeRefused) as caught:
            await _attach(daemon)
    assert (caught.value.status, caught.value.reason) == (status, words)
    assert words in caught.value.message
    assert str(status) in caught.value.message


@pytest.mark.parametrize("status", [403, 404])
async def test_a_refusal_with_a_known_fix_has_a_hint(status):
    """Where it is known what helps, the error says it."""
    async with FakeDaemon(faults=Faults(refusal=Refusal(status, "no"))) as daemon:
        with pytest.raises(UpgradeRefused) as caught:
            await _attach(daemon)
    assert caught.value.hint


async def test_a_page_of_a_proxy_is_not_repeated():
    """Of HTML only the status is told."""
    page = Refusal(502, body=b"<html><body>Bad Gateway</body></html>", content_type="text/html")
    async with FakeDaemon(faults=Faults(refusal=page)) as daemon:
        with pytest.raises(UpgradeRefused, match="502") as caught:
            await _attach(daemon)
    assert "<" not in caught.value.message


async def test_a_taken_id_has_a_type_of_its_own():
    """What a daemon says of an ID that it has already is SessionIdInUse."""
    async with FakeDaemon(faults=Faults(id_taken=True)) as daemon:
        with pytest.raises(SessionIdInUse) as caught:
            await _attach(daemon)
    assert caught.value.status == 400


async def test_an_upgrade_to_something_else_is_refused():
    """A 101 that does not say h2c is not ours."""
    async with FakeDaemon(faults=Faults(upgraded_to="websocket")) as daemon:
        with pytest.raises(UpgradeRefused, match="websocket"):
            await _attach(daemon)


async def test_no_answer_is_a_timeout(autojump_clock):
    """A daemon that reads the request and never answers is given up after twenty seconds."""
    async with FakeDaemon(faults=Faults(never_answer=True)) as daemon:
        started = trio.current_time()
        with pytest.raises(HandshakeTimeout):
            await _attach(daemon)
        assert trio.current_time() - started == pytest.approx(20, abs=1)


async def test_silence_after_the_101_is_not_ready(autojump_clock):
    """A daemon that accepts and then never speaks HTTP/2 is given up after twenty seconds, with what to look at."""
    async with FakeDaemon(faults=Faults(mute=True)) as daemon:
        started = trio.current_time()
        with pytest.raises(SessionNotReady, match="said nothing for 20 s") as caught:
            await _attach(daemon)
        assert trio.current_time() - started == pytest.approx(20, abs=2)
    assert "proxy" in (caught.value.hint or "")


async def test_the_patience_can_be_chosen(autojump_clock):
    """``ready_timeout`` is obeyed."""
    async with FakeDaemon(faults=Faults(mute=True)) as daemon:
        started = trio.current_time()
        with pytest.raises(SessionNotReady, match=r"1\.5 s"):
            async with Session(daemon.dialer).attach(ready_timeout=1.5):
                pytest.fail("attached")
        assert trio.current_time() - started < 3


async def test_a_daemon_that_closes_after_the_101_is_not_ready():
    """Accepting and hanging up is told at once, with the loss as its cause."""
    async with FakeDaemon(faults=Faults(close_after_101=True)) as daemon:
        with pytest.raises(SessionNotReady, match="did not open HTTP/2") as caught:
            await _attach(daemon)
    assert isinstance(caught.value.__cause__, ConnectionLost)


async def test_garbage_after_the_101_is_not_ready():
    """What is no HTTP/2 is named so at once, with no timeout to wait for."""
    async with FakeDaemon(faults=Faults(garbage=b"HTTP/1.1 400 Bad Request\r\n\r\n")) as daemon:
        with trio.fail_after(5), pytest.raises(SessionNotReady, match="broke HTTP/2"):
            await _attach(daemon)


@pytest.mark.parametrize("sent", range(0, 104, 13))
async def test_a_cut_anywhere_in_the_opening_is_typed(sent):
    """Wherever the connection ends between the status line and the SETTINGS, the error is one of the known ones."""
    async with FakeDaemon(faults=Faults(cut_after=sent)) as daemon:
        with pytest.raises((ConnectionLost, HandshakeError, SessionNotReady)):
            await _attach(daemon)


async def test_a_stall_within_the_head_is_a_timeout(autojump_clock):
    """Half of a status line and then nothing is a timeout that says so."""
    async with FakeDaemon(faults=Faults(stall_after=20)) as daemon:
        with pytest.raises(HandshakeTimeout, match="did not end its answer"):
            await _attach(daemon)


async def test_no_daemon_at_all(tmp_path):
    """Where nobody listens, the endpoint is named and nothing is left behind."""
    session = Session(Endpoint.parse(f"unix://{tmp_path}/none.sock"))
    with pytest.raises(ConnectError, match=r"none\.sock"):
        async with session.attach():
            pytest.fail("attached")
    assert session.attachment is None


async def test_a_session_that_was_refused_can_try_again():
    """Nothing of a refused attempt stays: the same session attaches once the daemon lets it."""
    async with FakeDaemon(faults=Faults(refusal=Refusal(500, "not yet"))) as daemon:
        session = Session(daemon.dialer)
        with pytest.raises(UpgradeRefused):
            async with session.attach():
                pytest.fail("attached")
        daemon.faults = Faults()
        async with session.attach():
            await (await daemon.wait_session(session.id)).health()

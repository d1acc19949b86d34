"""Sessions that were ready and then went away."""

from __future__ import annotations

import pytest
import trio

from mobysession.errors import ConnectionLost, RpcError, SessionError, SessionLost, StatusCode
from mobysession.events import SessionEnded, SessionReady
from mobysession.session import Session, open_session
from mobysession.session.attach import Attachment
from mobysession.testing import FakeDaemon, Faults


async def _attach_and_lose(session, daemon, body=trio.sleep_forever):
    """Attach, let the daemon die, and run ``body`` then."""
    async with session.attach():
        await daemon.wait_session(session.id)
        daemon.kill()
        await body()


async def _attach_and_wait(session):
    async with session.attach():
        await trio.sleep_forever()


async def test_the_daemons_death_ends_the_body_with_one_error(heard):
    """A waiting body is cancelled and SessionLost raised, alone, the loss as its cause; the events say the same."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        session.listen(heard.append)
        with pytest.raises(SessionLost) as caught:
            await _attach_and_lose(session, daemon)
    assert isinstance(caught.value.__cause__, ConnectionLost)
    assert [type(event) for event in heard] == [SessionReady, SessionEnded]
    assert heard[-1].error is caught.value
    assert session.attachment is None


async def test_the_death_is_seen_on_a_socket_too():
    """The same over a unix socket, where the kernel tells."""
    async with FakeDaemon.listen() as daemon:
        with pytest.raises(SessionLost):
            await _attach_and_lose(Session(daemon.endpoint), daemon)


async def test_a_goodbye_is_quoted(autojump_clock):
    """A daemon that hangs up with a GOAWAY loses the session, not without its reason."""
    async with FakeDaemon(faults=Faults(goaway_after=3)) as daemon:
        with pytest.raises(SessionLost, match="client transport shutdown"):
            await _attach_and_wait(Session(daemon.dialer))


async def test_a_failing_health_check_is_the_end(autojump_clock):
    """The strictest engine gives a session up at the first failed check; the session hears of it as lost."""
    async with FakeDaemon(faults=Faults(fail_health=True)) as daemon:
        started = trio.current_time()
        session = Session(daemon.dialer)
        with pytest.raises(SessionLost):
            await _attach_and_wait(session)
        assert trio.current_time() - started == pytest.approx(5, abs=0.5)
        assert "healthcheck failed" in (await daemon.wait_ended(session.id)).reason


async def test_running_handlers_are_cancelled_with_the_session():
    """A handler that is at work when the session is lost is cancelled, and the loss is raised, not its cancellation."""
    outcome = []

    class Slow:
        def register(self, registrar) -> None:
            registrar.stream("/test.Slow/Wait", self._wait)

        async def _wait(self, call):
            outcome.append("started")
            try:
                await trio.sleep_forever()
            finally:
                outcome.append("ended")

    async def call_and_kill():
        async with open_session(daemon.dialer, Slow()) as session:
            caller = await daemon.wait_session(session.id)
            nursery.start_soon(_call_and_lose, caller)
            while not outcome:
                await trio.lowlevel.checkpoint()
            daemon.kill()
            await trio.sleep_forever()

    async with FakeDaemon() as daemon, trio.open_nursery() as nursery:
        with pytest.raises(SessionLost):
            await call_and_kill()
    assert outcome == ["started", "ended"]


async def _call_and_lose(caller):
    async with caller.channel.open_call("/test.Slow/Wait") as call:
        with pytest.raises(RpcError) as caught:
            await call.receive()
    assert caught.value.code is StatusCode.UNAVAILABLE


async def test_a_body_that_fails_as_the_session_is_lost_says_both():
    """When the loss makes the body fail in its own way, one error comes out and the other is noted on it."""

    async def fail_at_the_end():
        try:
            await trio.sleep_forever()
        finally:
            raise RuntimeError("cleanup failed")

    async with FakeDaemon() as daemon:
        with pytest.raises((SessionLost, RuntimeError)) as caught:
            await _attach_and_lose(Session(daemon.dialer), daemon, fail_at_the_end)
    assert "also failed" in "".join(caught.value.__notes__)


async def test_a_lost_session_can_be_attached_again():
    """A new attachment on the same daemon works after the loss of the first."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        with pytest.raises(SessionError):
            await _attach_and_lose(session, daemon)
        async with session.attach():
            await (await daemon.wait_session(session.id)).health()


async def test_a_body_that_does_not_need_the_daemon_any_more_ends_well():
    """A session that is lost when the body has just ended is no failure: nobody needed it."""
    async with FakeDaemon() as daemon:
        async with open_session(daemon.dialer) as session:
            await daemon.wait_session(session.id)
            daemon.kill()
        assert session.attachment is None


async def test_a_session_that_is_lost_as_it_becomes_ready_was_ready():
    """SETTINGS and GOAWAY in one go: the error does not claim that the daemon spoke no HTTP/2."""
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\x08\7\0\0\0\0\0" + b"\0\0\0\0\0\0\0\2"
    )

    async def dialer(headers):
        return Attachment(ours, "a test")

    with pytest.raises(SessionLost, match="was lost"):
        await _attach_and_wait(Session(dialer))

"""Sessions that were ready and then went away."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from mobysession.buildkit.control import open_control
from mobysession.errors import ConnectionLost, RpcError, SessionError, SessionLost, StatusCode
from mobysession.events import SessionEnded, SessionReady
from mobysession.rpc.client import open_channel
from mobysession.session import Session, open_session
from mobysession.session.attach import Attachment
from mobysession.testing import FakeDaemon, Faults

WAYS = pytest.mark.parametrize("attach", ["hijack", "tunnel", "native", "buildkitd"])


class Ways(FakeDaemon):
    """A daemon on a socket that has the way in, and its connections in the order in which they came."""

    def __init__(self, attach):
        super().__init__(api_version="1.53", buildkitd=attach == "buildkitd")
        self._listens = True
        self.streams = []

    async def serve(self, stream):
        self.streams.append(stream)
        await super().serve(stream)


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

    @asynccontextmanager
    async def dialer(headers):
        yield Attachment(ours, "a test")

    with pytest.raises(SessionLost, match="was lost"):
        await _attach_and_wait(Session(dialer))


async def _lose_in_a_call(daemon, session, prepare):
    """Attach, let the daemon call something that takes long, and run ``prepare`` then."""
    async with session.attach():
        caller = await daemon.wait_session(session.id)
        async with caller.channel.open_call("/test.Slow/Wait") as call:
            await call.wait_initial_metadata()
            await prepare()
            await trio.sleep_forever()


class Waiting:
    def register(self, registrar) -> None:
        registrar.stream("/test.Slow/Wait", self._wait)

    async def _wait(self, call):
        await call.send_initial_metadata()
        await trio.sleep_forever()


@WAYS
async def test_what_was_in_flight_is_told(attach):
    """The error names the calls that were running, and has them as an attribute; finished ones are not among them."""

    async def kill():
        caller = daemon.sessions[session.id]
        await caller.health()
        daemon.kill()

    async with Ways(attach) as daemon:
        session = Session(daemon.endpoint, attach=attach)
        session.allow(Waiting())
        with pytest.raises(SessionLost, match=r"in flight: /test\.Slow/Wait") as caught:
            await _lose_in_a_call(daemon, session, kill)
    assert caught.value.in_flight == ("/test.Slow/Wait",)
    assert caught.value.first is None
    assert isinstance(caught.value.__cause__, ConnectionLost)


@WAYS
@pytest.mark.parametrize(
    ("order", "first", "words"),
    [
        (["control", "session"], "control", "the control connection had been lost before"),
        (["session", "control"], "session", "then the control connection"),
        (["session"], "session", "the control connection still stands"),
    ],
)
async def test_which_connection_was_lost_first_is_told_on_sockets(attach, order, first, words):
    """The same by every way in, on sockets, with what was in flight, and a hint that says whether a daemon is there."""
    async with Ways(attach) as daemon:
        native = attach in ("native", "buildkitd")
        async with open_control(daemon.endpoint, native=native) as control:
            session = Session(daemon.endpoint, attach=attach)
            session.allow(Waiting())
            session.control = control.channel

            async def end_in_order():
                connections = dict(zip(("control", "session"), daemon.streams, strict=True))
                for name in order:
                    await trio.aclose_forcefully(connections[name])
                    # Until it was seen: a tunnel's end is seen some turns of the loop after that of its carrier.
                    await trio.testing.wait_all_tasks_blocked()

            with pytest.raises(SessionLost, match=words) as caught:
                await _lose_in_a_call(daemon, session, end_in_order)
    assert caught.value.first == first
    assert caught.value.in_flight == ("/test.Slow/Wait",)
    assert ("still there" in (caught.value.hint or "")) == (order == ["session"])


async def test_a_tunnel_says_that_its_carrier_went_too():
    """A tunnelled session that dies with the connection around it says so."""
    async with FakeDaemon.listen(api_version="1.53") as daemon:
        with pytest.raises(SessionLost, match="connection that carried the call was lost"):
            await _attach_and_lose(Session(daemon.endpoint, attach="native"), daemon)


async def test_a_tunnel_that_the_daemon_ends_alone_is_told_from_it(autojump_clock):
    """A daemon that gives the session up and stays is said to have done that."""
    async with FakeDaemon.listen(tunnel_faults=Faults(goaway_after=1)) as daemon:
        with pytest.raises(SessionLost, match="client transport shutdown") as caught:
            await _attach_and_wait(Session(daemon.endpoint, attach="tunnel"))
    assert "still there" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("order", "first", "words"),
    [
        (["control", "session"], "control", "the control connection had been lost before"),
        (["session", "control"], "session", "then the control connection"),
        (["session"], "session", "the control connection still stands"),
    ],
)
async def test_which_connection_was_lost_first_is_told(order, first, words, autojump_clock):
    """A build knows two connections, and the error says which of them went first, and whether the other did."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        carriers: dict[str, trio.abc.AsyncResource] = {}

        async def end_in_order():
            for name in order:
                await trio.testing.wait_all_tasks_blocked()
                await trio.aclose_forcefully(carriers[name])
                await trio.sleep(0.01)
            await trio.sleep_forever()

        ours, theirs = trio.testing.memory_stream_pair()
        carriers["control"] = theirs
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.solver.serve, theirs)
            async with open_channel(ours) as control:
                await control.ready.wait()
                session.control = control
                with pytest.raises(SessionLost, match=words) as caught:
                    await _lose_both(daemon, session, carriers, end_in_order)
            nursery.cancel_scope.cancel()
    assert caught.value.first == first


async def _lose_both(daemon, session, carriers, end_in_order):
    async with session.attach():
        caller = await daemon.wait_session(session.id)
        carriers["session"] = caller.channel._stream
        await end_in_order()

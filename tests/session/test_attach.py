"""Attaching a session: ready means seen, and everything there is to know is known then."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from mobysession._pb import health_pb2
from mobysession.errors import RpcError, SessionError, SessionIdInUse, StatusCode, UsageError
from mobysession.services.secrets import Secrets
from mobysession.session import Session, open_session
from mobysession.testing import FakeDaemon, Faults


@pytest.fixture(params=["memory", "unix"])
def daemon(request):
    """Give a daemon that is reached in memory, and one on a socket."""
    return FakeDaemon() if request.param == "memory" else FakeDaemon.listen()


def _target(daemon):
    return daemon.endpoint if daemon._path else daemon.dialer


async def test_the_block_starts_when_the_daemon_was_seen(daemon, heard):
    """In the block the daemon's settings are known, and it has this session under the ID that the session says."""
    async with daemon:
        session = Session(_target(daemon), name="demo", shared_key="key")
        session.listen(heard.append)
        async with session.attach():
            assert session.settings["INITIAL_WINDOW_SIZE"] == 65_535
            assert heard[0].settings == session.settings
            caller = await daemon.wait_session(session.id)
            assert (caller.id, caller.name, caller.shared_key) == (session.id, "demo", "key")
            attachment = session.attachment
            assert attachment is not None
            assert attachment.status_line == "HTTP/1.1 101 Switching Protocols"
        assert session.attachment is None
        assert session.settings == {}


async def test_the_opening_may_come_byte_by_byte():
    """A 101 and a preface that arrive in pieces of one byte open the session as well."""
    async with FakeDaemon(faults=Faults(pieces=1)) as daemon, open_session(daemon.dialer) as session:
        caller = await daemon.wait_session(session.id)
        await caller.health()


async def test_what_is_hosted_is_advertised(daemon):
    """The daemon finds the methods of every allowed service, and health although nobody allowed it."""
    async with daemon, open_session(_target(daemon), Secrets({"token": b"value"})) as session:
        caller = await daemon.wait_session(session.id)
        assert caller.methods == tuple(method.lower() for method in session.methods)
        assert caller.supports("/moby.buildkit.secrets.v1.Secrets/GetSecret")
        assert caller.supports("/grpc.health.v1.Health/Check")
        assert not caller.supports("/moby.filesync.v1.FileSync/DiffCopy")


async def test_what_was_not_allowed_is_unimplemented(daemon):
    """A method that this session was not given is refused as unknown, and the session lives on."""
    async with daemon, open_session(_target(daemon)) as session:
        caller = await daemon.wait_session(session.id)
        with pytest.raises(RpcError) as caught:
            await caller.get_secret("token")
        assert caught.value.code is StatusCode.UNIMPLEMENTED
        await caller.health()


async def test_the_end_of_the_block_is_the_end_of_the_session(daemon):
    """The connection is closed with the block: whatever the daemon asks for afterwards fails."""
    async with daemon:
        async with open_session(_target(daemon), Secrets({"token": b"value"})) as session:
            caller = await daemon.wait_session(session.id)
        await caller.channel.closed.wait()
        with pytest.raises(RpcError) as caught:
            await caller.get_secret("token")
        assert caught.value.code is StatusCode.UNAVAILABLE


async def test_a_session_can_be_attached_again(autojump_clock):
    """After the daemon has noticed the end of the first attachment, the same session attaches under the same ID."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        async with session.attach():
            await daemon.wait_session(session.id)
        await daemon.wait_ended(session.id)
        async with session.attach():
            await (await daemon.wait_session(session.id)).health()


async def test_an_id_is_in_use_until_the_daemon_notices_the_end(autojump_clock):
    """As with real engines, an ID stays taken until the next health check; the refusal says so."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer, session_id="samesamesame")
        async with session.attach():
            await daemon.wait_session(session.id)
        with pytest.raises(SessionIdInUse, match="session samesamesame already exists"):
            async with session.attach():
                pytest.fail("attached twice")
        assert session.attachment is None


async def test_attaching_twice_at_once_is_refused():
    """One session has one attachment; the second attempt fails and leaves the first alone."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        async with session.attach():
            with pytest.raises(SessionError, match="attached already"):
                async with session.attach():
                    pytest.fail("attached twice")
            await (await daemon.wait_session(session.id)).health()


async def test_services_come_before_the_attachment():
    """A service that is allowed while the session is attached is refused: the daemon was told already what there is."""
    async with FakeDaemon() as daemon, open_session(daemon.dialer) as session:
        with pytest.raises(SessionError, match="before a session is attached"):
            session.allow(Secrets({"token": b"value"}))


def test_two_services_with_one_method_are_refused():
    """The second service that would host a method is refused, by the method's name."""
    session = Session(FakeDaemon().dialer)
    session.allow(Secrets({"a": b""}))
    with pytest.raises(UsageError, match="GetSecret is served already"):
        session.allow(Secrets({"b": b""}))


@pytest.mark.parametrize("session_id", ["", "has:colon", "has\nnewline", "nicht-ä"])
async def test_an_id_that_a_daemon_could_not_tell_apart_is_refused(session_id):
    """An empty ID, one with a colon, one that no header can carry: refused before anything is dialled."""
    async with FakeDaemon() as daemon:
        with pytest.raises(UsageError):
            async with Session(daemon.dialer, session_id=session_id).attach():
                pytest.fail("attached")
        assert daemon.requests == []


async def test_ping_measures_the_round_trip():
    """A PING comes back from the daemon."""
    async with FakeDaemon() as daemon, open_session(daemon.dialer) as session:
        assert 0 <= await session.ping() < 5


async def test_ping_needs_an_attachment():
    """Without one there is nobody to ask."""
    with pytest.raises(SessionError, match="not attached"):
        await Session(FakeDaemon().dialer).ping()


async def test_run_is_for_a_nursery():
    """``nursery.start(session.run)`` returns with the session ready, and cancelling ends it."""
    async with FakeDaemon() as daemon, trio.open_nursery() as nursery:
        session = await nursery.start(Session(daemon.dialer).run)
        caller = await daemon.wait_session(session.id)
        await caller.health()
        nursery.cancel_scope.cancel()
    assert session.attachment is None


async def test_what_the_body_raises_comes_out_as_it_is():
    """An error of the user's own is not wrapped in a group and not mistaken for the session's."""
    async with FakeDaemon() as daemon:
        with pytest.raises(ZeroDivisionError):
            async with open_session(daemon.dialer):
                raise ZeroDivisionError


async def test_a_health_service_of_another_name_is_unknown():
    """Only the empty name stands for the session."""
    async with FakeDaemon() as daemon, open_session(daemon.dialer) as session:
        caller = await daemon.wait_session(session.id)
        with pytest.raises(RpcError) as caught:
            await caller.unary(
                "/grpc.health.v1.Health/Check",
                health_pb2.HealthCheckRequest(service="other"),
                health_pb2.HealthCheckResponse,
            )
        assert caught.value.code is StatusCode.NOT_FOUND


async def test_dialling_counts_as_being_attached(autojump_clock):
    """While the daemon takes its time to answer, neither a second attachment nor another service is accepted."""
    async with FakeDaemon(faults=Faults(never_answer=True)) as daemon, trio.open_nursery() as nursery:
        session = Session(daemon.dialer)
        nursery.start_soon(session.run)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(SessionError, match="attached already"):
            async with session.attach():
                pytest.fail("attached twice")
        with pytest.raises(SessionError, match="before a session is attached"):
            session.allow(Secrets({"token": b"value"}))
        nursery.cancel_scope.cancel()
    session.allow(Secrets({"token": b"value"}))

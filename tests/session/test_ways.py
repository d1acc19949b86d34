"""Which way a session is attached by: what was asked for, or the newest that the daemon has."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from mobysession.buildkit.control import open_control
from mobysession.errors import ApiError, ConnectError, HandshakeError, SessionIdInUse, UpgradeRefused, UsageError
from mobysession.services.secrets import Secrets
from mobysession.session import EndpointDialer, Session, open_session
from mobysession.testing import FakeDaemon, Faults, Refusal
from mobysession.transport.api import EngineApi
from mobysession.transport.endpoint import Endpoint

OLD, NEW = "1.51", "1.53"


def _asked(daemon):
    """Return what was asked over HTTP/1.1, apart from who is there."""
    return [path for _, path in daemon.requests if path != "/_ping"]


async def _use(daemon, attach, endpoint=None):
    """Attach, let the daemon call back, and return the way that was used."""
    secrets = Secrets({"token": b"value"})
    async with open_session(endpoint or daemon.endpoint, secrets, attach=attach) as session:
        caller = await daemon.wait_session(session.id)
        assert await caller.get_secret("token") == b"value"
        await caller.health()
        assert session.attachment is not None
        assert caller.tunnelled == (session.attachment.way != "hijack")
        assert (session.attachment.carrier is None) == (session.attachment.way == "hijack")
        return session.attachment.way


@pytest.mark.parametrize(
    ("api_version", "attach", "way", "asked"),
    [
        (OLD, "auto", "hijack", ["/session"]),
        (NEW, "auto", "native", []),
        (OLD, "hijack", "hijack", ["/session"]),
        (NEW, "hijack", "hijack", ["/session"]),
        (OLD, "tunnel", "tunnel", ["/grpc"]),
        (NEW, "tunnel", "tunnel", ["/grpc"]),
        (NEW, "native", "native", []),
        (NEW, "buildkitd", "buildkitd", []),
    ],
)
async def test_the_way_that_is_asked_for_or_the_newest(api_version, attach, way, asked):
    """Above the dialer there is no difference to see; below it, only the doors of the way are knocked at."""
    async with FakeDaemon.listen(api_version=api_version) as daemon:
        assert await _use(daemon, attach) == way
        assert _asked(daemon) == asked


async def test_one_connection_is_asked_and_taken():
    """Asking an engine for its version costs no connection: the session takes the one it was asked on."""
    connections = 0

    class Counting(FakeDaemon):
        async def serve(self, stream):
            nonlocal connections
            connections += 1
            await super().serve(stream)

    async with Counting.listen() as daemon:
        assert await _use(daemon, "auto") == "hijack"
        assert daemon.requests == [("HEAD", "/_ping"), ("POST", "/session")]
        assert connections == 1


@pytest.mark.parametrize(("api_version", "way"), [(OLD, "hijack"), (NEW, "native")])
async def test_what_worked_is_remembered(api_version, way):
    """The second session at an endpoint does not ask again."""
    async with FakeDaemon.listen(api_version=api_version) as daemon:
        assert await _use(daemon, "auto") == way
        daemon.requests.clear()
        assert await _use(daemon, "auto") == way
        assert ("HEAD", "/_ping") not in daemon.requests


async def test_what_worked_and_does_not_any_more_is_forgotten():
    """An engine that was exchanged for an older one is asked again."""
    async with FakeDaemon.listen(api_version=NEW) as daemon:
        assert await _use(daemon, "auto") == "native"
        daemon.api_version = OLD
        assert await _use(daemon, "auto") == "hijack"


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_hidden_session_is_tunnelled(status):
    """Where a proxy hides /session, the tunnel through /grpc is next."""
    async with FakeDaemon.listen(faults=Faults(refusal=Refusal(status, "not for you"))) as daemon:
        assert await _use(daemon, "auto") == "tunnel"


async def test_a_native_way_that_does_not_work_is_gone_around():
    """An engine whose version has it, behind something that does not pass it on, is hijacked."""
    async with FakeDaemon.listen(
        api_version=NEW, tunnel_faults=Faults(refusal=Refusal(404, "unknown method"))
    ) as daemon:
        assert await _use(daemon, "auto") == "hijack"


@pytest.mark.parametrize("status", [403, 500])
async def test_a_refusal_with_reasons_is_final(status):
    """The engine's own trouble, and somebody's decision, are not gone around: what was said is what is raised."""
    async with FakeDaemon.listen(faults=Faults(refusal=Refusal(status, "no more sessions"))) as daemon:
        with pytest.raises(UpgradeRefused, match="no more sessions") as caught:
            await _use(daemon, "auto")
        assert _asked(daemon) == ["/session"]
    # Who is forbidden one door, and may use another, has to say so.
    assert ("--attach tunnel" in (caught.value.hint or "")) == (status == 403)


async def test_what_is_forbidden_in_the_tunnel_is_not_to_be_tunnelled():
    """The hint to go another way stands only where there is one."""
    async with FakeDaemon.listen(grpc_faults=Faults(refusal=Refusal(403, "no"))) as daemon:
        with pytest.raises(UpgradeRefused, match="no") as caught:
            await _use(daemon, "tunnel")
    assert "--attach tunnel" not in (caught.value.hint or "")


async def test_a_pinned_version_is_what_is_spoken():
    """Of an engine that has more, only what that version has is used; the paths of requests have it."""
    async with FakeDaemon.listen(api_version=NEW) as daemon:
        assert await _use(daemon, "auto", replace(daemon.endpoint, api_version="1.41")) == "hijack"
        assert await _use(daemon, "auto", replace(daemon.endpoint, api_version="v1.53")) == "native"


@pytest.mark.parametrize(("version", "words"), [("1.99", "too new"), ("1.1", "too old")])
@pytest.mark.parametrize("attach", ["hijack", "tunnel"])
async def test_a_pinned_version_that_the_engine_does_not_have_is_told(attach, version, words):
    """The engine's words are in the error, and the hint names the variable."""
    async with FakeDaemon.listen(api_version=OLD) as daemon:
        endpoint = replace(daemon.endpoint, api_version=version)
        with pytest.raises(UpgradeRefused, match=words) as caught:
            await _use(daemon, attach, endpoint)
        assert "DOCKER_API_VERSION" in (caught.value.hint or "")
        with pytest.raises(ApiError, match=words) as refused:
            await EngineApi(endpoint).version()
        assert "DOCKER_API_VERSION" in (refused.value.hint or "")
        assert (await EngineApi(endpoint).ping()).api == (1, 51)


async def test_nothing_works_and_the_first_reason_is_told():
    """With every way closed, the error is that of the way which should have worked."""
    hidden = Faults(refusal=Refusal(404, "page not found"))
    async with FakeDaemon.listen(faults=hidden, grpc_faults=Faults(refusal=Refusal(403, "no"))) as daemon:
        with pytest.raises(UpgradeRefused, match="page not found"):
            await _use(daemon, "auto")


async def test_a_taken_id_is_not_tried_otherwise():
    """An ID that is registered already is refused, not put over the other session by a tunnel."""
    async with FakeDaemon.listen(faults=Faults(id_taken=True)) as daemon:
        for _ in range(2):
            with pytest.raises(SessionIdInUse):
                await _use(daemon, "auto")
        assert _asked(daemon) == ["/session"] * 2


@pytest.mark.parametrize("attach", ["native", "buildkitd"])
async def test_an_old_engine_does_not_speak_grpc_at_once(attach):
    """It answers in HTTP/1.1; the error says since when engines understand, and what to do."""
    async with FakeDaemon.listen(api_version=OLD) as daemon:
        with pytest.raises(HandshakeError, match="does not speak gRPC at once") as caught:
            await _use(daemon, attach)
    assert "--attach" in (caught.value.hint or "")


async def test_a_buildkitd_is_attached_to():
    """Its endpoint is enough."""
    async with FakeDaemon.listen(buildkitd=True) as daemon:
        assert daemon.endpoint.is_buildkitd
        assert await _use(daemon, "auto") == "buildkitd"


async def test_a_buildkitd_is_found_out():
    """An address that was taken for an engine's and answers in HTTP/2 is attached to as what it is."""
    async with FakeDaemon.listen(buildkitd=True) as daemon:
        assert await _use(daemon, "auto", Endpoint.parse(daemon.host)) == "buildkitd"


async def test_what_is_neither_is_told_as_such():
    """Where something else listens, the error says what it said."""

    class Other(FakeDaemon):
        async def serve(self, stream):
            await stream.receive_some()
            await stream.send_all(b"220 mail.example.com ESMTP\r\n")
            await stream.aclose()

    async with Other.listen() as daemon:
        with pytest.raises(HandshakeError, match="does not speak HTTP") as caught:
            await _use(daemon, "auto", Endpoint.parse(daemon.host))
    assert "as a buildkitd" in caught.value.__notes__[0]


async def test_buildkit_host_names_a_buildkitd(monkeypatch):
    """Without an endpoint, attaching to a buildkitd asks BUILDKIT_HOST."""
    async with FakeDaemon.listen(buildkitd=True) as daemon:
        monkeypatch.setenv("BUILDKIT_HOST", daemon.host)
        async with Session(attach="buildkitd").attach():
            pass
        assert EndpointDialer(attach="buildkitd").endpoint.source == "BUILDKIT_HOST"
    with pytest.raises(ConnectError, match="BUILDKIT_HOST"):
        async with Session(attach="buildkitd").attach():
            pytest.fail("attached")


def test_a_way_that_does_not_exist_is_refused():
    """The ways are listed; a buildkitd has only one; a dialer is one already."""
    with pytest.raises(UsageError, match="'teleport'") as caught:
        Session(Endpoint.parse("unix:///x"), attach="teleport")
    assert "tunnel" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="a buildkitd cannot be attached to by hijack"):
        EndpointDialer(Endpoint.buildkitd("unix:///x"), "hijack")
    with pytest.raises(UsageError, match="a dialer is a way"):
        Session(FakeDaemon().dialer, attach="tunnel")


async def test_a_tunnel_ends_with_its_call_at_once(autojump_clock):
    """Unlike a hijacked one, a tunnelled session is forgotten when it ends: its ID can be used again."""
    async with FakeDaemon.listen(api_version=NEW) as daemon:
        session = Session(daemon.endpoint)
        for _ in range(2):
            async with session.attach():
                caller = await daemon.wait_session(session.id)
            await caller.closed.wait()
            assert daemon.sessions == {}


async def test_an_id_in_two_tunnels_is_lost_with_the_first_that_ends():
    """As with real daemons, the second replaces the first, and the end of either takes the entry away."""
    async with FakeDaemon.listen() as daemon, open_session(daemon.endpoint, attach="tunnel", session_id="same"):
        first = await daemon.wait_session("same")
        async with open_session(daemon.endpoint, attach="tunnel", session_id="same"):
            second = daemon.sessions["same"]
            assert second is not first
        await second.closed.wait()
        assert daemon.sessions == {}


@pytest.mark.parametrize("native", [None, True, False])
@pytest.mark.parametrize("api_version", [OLD, NEW])
async def test_control_goes_the_newest_way_too(api_version, native):
    """The Control API is reached at once where the engine has it, unless it was asked for otherwise."""
    async with FakeDaemon.listen(api_version=api_version) as daemon:
        if native and api_version == OLD:
            with pytest.raises(HandshakeError):
                async with open_control(daemon.endpoint, native=native):
                    pytest.fail("opened")
            return
        async with open_control(daemon.endpoint, native=native) as control:
            assert await control.list_workers()
        at_once = api_version == NEW if native is None else native
        assert _asked(daemon) == ([] if at_once else ["/grpc"])


async def test_control_on_a_buildkitd():
    """A buildkitd's endpoint is spoken to at once, and one that was taken for an engine's as well."""
    async with FakeDaemon.listen(buildkitd=True) as daemon:
        for endpoint in (daemon.endpoint, Endpoint.parse(daemon.host)):
            async with open_control(endpoint) as control:
                assert await control.info()


async def test_cancelling_while_a_way_is_looked_for_leaves_nothing(autojump_clock):
    """Cancelled anywhere between the question and the session, nothing stays open."""
    async with FakeDaemon.listen(tunnel_faults=Faults(never_answer=True), api_version=NEW) as daemon:
        with trio.move_on_after(1) as scope:
            await _use(daemon, "auto")
        assert scope.cancelled_caught

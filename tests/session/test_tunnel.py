"""A session's stream inside a call: it is a stream as trio has them, and it says how it ended."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession._pb import control_pb2
from mobysession.errors import (
    HandshakeError,
    HandshakeTimeout,
    MobysessionError,
    RpcError,
    StatusCode,
    UpgradeRefused,
)
from mobysession.protocol.session_headers import SessionHeaders
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from mobysession.services.secrets import Secrets
from mobysession.session import open_session
from mobysession.session.tunnel import TunnelBroken, open_tunnel
from mobysession.testing import FakeDaemon, Faults, Refusal

HEADERS = SessionHeaders(session_id="abc", shared_key="key", name="name", methods=("/a.B/C", "/a.B/D"))
METHOD = "/moby.buildkit.v1.Control/Session"


@asynccontextmanager
async def tunnel_to(handler, **options):
    """Give a tunnel to a server whose ``Control.Session`` is ``handler``, and what carries it."""
    registrar = Registrar()
    registrar.stream(METHOD, handler)
    ours, theirs = trio.testing.memory_stream_pair()
    async with (
        open_server(theirs, registrar),
        open_tunnel(ours, HEADERS, accepted="the test accepted", **options) as (tunnel, carrier),
    ):
        yield tunnel, carrier


async def echo(call):
    """Send back what comes, message by message, until the client half-closes."""
    await call.send_initial_metadata()
    while message := await call.receive():
        await call.send(message)


async def test_it_is_a_stream():
    """Bytes come back in order whatever the sizes of reads, an end stays an end, and closed is closed."""
    async with tunnel_to(echo) as (tunnel, _):
        await tunnel.send_all(b"")
        await tunnel.send_all(bytearray(b"hello "))
        await tunnel.send_all(memoryview(b"world"))
        await tunnel.wait_send_all_might_not_block()
        received = b""
        while len(received) < 11:
            received += await tunnel.receive_some(2)
        assert received == b"hello world"
        with pytest.raises(ValueError, match="max_bytes"):
            await tunnel.receive_some(0)
        await tunnel.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await tunnel.send_all(b"x")
        assert [await tunnel.receive_some() for _ in range(3)] == [b""] * 3
        await tunnel.aclose()
        await tunnel.aclose()
        for use in (tunnel.receive_some, tunnel.send_eof, tunnel.wait_send_all_might_not_block):
            with pytest.raises(trio.ClosedResourceError):
                await use()


async def test_it_is_a_stream_by_trios_own_rules(monkeypatch):
    """trio's checks of a half-closeable stream pass, with a server of gRPC at the other end.

    They once hung, at the one that asks for a number of bytes which is none (1.5): it has to be refused before anything
    is waited for. And a server of gRPC cannot close one direction: its end is the end of the call.
    """

    monkeypatch.setattr(limits, "GOODBYE_TIMEOUT", 0.05)

    async def make_pair():
        far, near = trio.testing.memory_stream_pair()

        async def serve(call):
            await call.send_initial_metadata()
            async with near, trio.open_nursery() as inner:
                inner.start_soon(receive, call)
                while data := await near.receive_some():
                    await call.send(control_pb2.BytesMessage(data=bytes(data)).SerializeToString())
                inner.cancel_scope.cancel()

        async def receive(call):
            while (message := await call.receive()) is not None:
                await near.send_all(control_pb2.BytesMessage.FromString(message).data)
            await near.send_eof()

        return await nursery.start(hold, serve), far

    async def hold(serve, *, task_status):
        async with tunnel_to(serve) as (tunnel, _):
            task_status.started(tunnel)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        await trio.testing.check_half_closeable_stream(make_pair, None)
        nursery.cancel_scope.cancel()


async def test_two_at_once_are_refused_and_closing_wakes_them():
    """A second reader is refused; the first one hears of the closing; a cancelled read loses nothing."""
    async with tunnel_to(echo) as (tunnel, _), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            await tunnel.receive_some()
        woken = []

        async def read():
            with pytest.raises(trio.ClosedResourceError):
                await tunnel.receive_some()
            woken.append("reader")

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await tunnel.receive_some()
        await trio.aclose_forcefully(tunnel)
        await trio.testing.wait_all_tasks_blocked()
        assert woken == ["reader"]


async def test_what_is_sent_after_the_daemon_ended_the_call_breaks():
    """A call that the daemon has ended in order is the end for readers, and broken for writers."""

    async def serve(call):
        await call.send_initial_metadata()

    async with tunnel_to(serve) as (tunnel, _):
        assert await tunnel.receive_some() == b""
        with pytest.raises(TunnelBroken, match="has ended the call"):
            await tunnel.send_all(b"x")


async def test_the_headers_are_metadata():
    """What the session says of itself arrives under lower-case keys, each method as a value of its own."""
    seen = []

    async def serve(call):
        seen.extend(call.metadata)
        await call.send_initial_metadata()

    async with tunnel_to(serve):
        pass
    assert seen == [
        ("x-docker-expose-session-uuid", "abc"),
        ("x-docker-expose-session-name", "name"),
        ("x-docker-expose-session-sharedkey", "key"),
        ("x-docker-expose-session-grpc-method", "/a.B/C"),
        ("x-docker-expose-session-grpc-method", "/a.B/D"),
    ]


async def test_messages_have_at_most_32_kib():
    """What is written at once leaves in messages that every daemon takes, with nothing lost or turned around."""
    sizes, data = [], bytearray()

    async def serve(call):
        await call.send_initial_metadata()
        while message := await call.receive():
            received = control_pb2.BytesMessage.FromString(message).data
            sizes.append(len(received))
            data.extend(received)

    sent = bytes(range(256)) * 400
    async with tunnel_to(serve) as (tunnel, _):
        await tunnel.send_all(sent)
        await tunnel.send_eof()
        assert await tunnel.receive_some() == b""
    assert sizes == [32 * 1024] * 3 + [4096]
    assert data == sent


async def test_closing_half_closes_and_reads_to_the_end():
    """The daemon hears the end in order, and what it still says is drained, so that the call ends well."""
    ended = []

    async def serve(call):
        await call.send_initial_metadata()
        while await call.receive():
            pass
        for _ in range(3):
            await call.send(control_pb2.BytesMessage(data=b"last words").SerializeToString())
        ended.append(call.failure)

    async with tunnel_to(serve) as (tunnel, _):
        await tunnel.send_all(b"x")
        await tunnel.aclose()
        assert ended == [None]


async def test_a_daemon_that_does_not_end_is_not_waited_for_long(autojump_clock):
    """Closing takes a second at most; then the call is cancelled."""

    async def serve(call):
        await call.send_initial_metadata()
        await trio.sleep_forever()

    async with tunnel_to(serve) as (tunnel, _):
        started = trio.current_time()
        await tunnel.aclose()
        assert trio.current_time() - started == pytest.approx(limits.GOODBYE_TIMEOUT)


async def test_little_waits_ahead_of_a_small_answer(autojump_clock):
    """A daemon that reads nothing stops the writer long before the queue of the carrying connection is full."""

    async def serve(call):
        await call.send_initial_metadata()
        await trio.sleep_forever()

    async with tunnel_to(serve) as (tunnel, carrier):
        with trio.move_on_after(1):
            while True:
                await tunnel.send_all(bytes(limits.WRITE_SIZE))
        (call,) = carrier.calls.values()
        assert 0 < carrier.core.queued(call.stream_id) <= limits.TUNNEL_AHEAD + 2 * limits.TUNNEL_CHUNK


async def test_the_status_of_the_call_is_the_reason():
    """A daemon that ends the call with an error breaks the stream, with its words."""

    async def serve(call):
        await call.send_initial_metadata()
        raise RpcError(StatusCode.INTERNAL, "the session manager is upset")

    async with tunnel_to(serve) as (tunnel, _):
        with pytest.raises(TunnelBroken, match="INTERNAL: the session manager is upset"):
            await tunnel.receive_some()


@pytest.mark.parametrize("junk", [b"\x0a\x05abc", b"\xff" * 12])
async def test_what_is_no_message_breaks_the_stream(junk):
    """A daemon that sends something else in the call is told from one that hangs up."""

    async def serve(call):
        await call.send(junk)
        await trio.sleep_forever()

    async with tunnel_to(serve) as (tunnel, _):
        with pytest.raises(TunnelBroken, match=r"no BytesMessage|number"):
            await tunnel.receive_some()


async def test_a_refused_call_is_a_refused_session():
    """A daemon without Control.Session says so before anything is attached."""

    async def serve(call):
        raise RpcError(StatusCode.UNIMPLEMENTED, "unknown method Session")

    with pytest.raises(UpgradeRefused, match="unknown method Session") as caught:
        async with tunnel_to(serve):
            pytest.fail("attached")
    assert (caught.value.status, caught.value.reason) == (501, "unknown method Session")


async def test_a_daemon_that_says_nothing_in_the_call_is_given_up(autojump_clock):
    """It has some seconds to begin to speak; a real one does at once."""

    async def serve(call):
        await trio.sleep_forever()

    with pytest.raises(HandshakeTimeout, match="did not answer"):
        async with tunnel_to(serve, timeout=3):
            pytest.fail("attached")


async def test_a_daemon_that_hangs_up_in_the_call_is_told():
    """A connection that ends before the session was taken is a handshake that failed."""

    async def serve(call):
        await trio.aclose_forcefully(theirs)

    registrar = Registrar()
    registrar.stream(METHOD, serve)
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_server(theirs, registrar):
        with pytest.raises(HandshakeError, match="closed it"):
            async with open_tunnel(ours, HEADERS, accepted="the test accepted"):
                pytest.fail("attached")


@pytest.mark.parametrize("api_version", ["1.41", "1.53"])
async def test_an_upload_and_health_share_a_tunnel(api_version):
    """Megabytes through a tunnel arrive whole, and checks are answered meanwhile."""
    secret = bytes(500 * 1024)
    async with FakeDaemon.listen(api_version=api_version) as daemon:
        way = "tunnel" if api_version == "1.41" else "native"
        async with open_session(daemon.endpoint, Secrets({"large": secret}), attach=way) as session:
            caller = await daemon.wait_session(session.id)
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(_fetch, caller, secret)
                for _ in range(20):
                    await caller.health(timeout=5)


async def _fetch(caller, secret):
    assert await caller.get_secret("large") == secret


@pytest.mark.parametrize("sent", range(0, 130, 13))
async def test_a_cut_anywhere_in_the_opening_is_typed(sent):
    """Wherever the connection ends between the 101 of /grpc and the session's SETTINGS, the error is one of ours."""
    async with FakeDaemon.listen(grpc_faults=Faults(cut_after=sent)) as daemon:
        with pytest.raises(MobysessionError):
            async with open_session(daemon.endpoint, attach="tunnel"):
                await trio.sleep_forever()


@pytest.mark.parametrize("sent", range(0, 33, 4))
async def test_a_cut_anywhere_in_the_tunnel_is_typed(sent):
    """The same for the stream inside the call, while the connection around it lives on."""
    async with FakeDaemon.listen(tunnel_faults=Faults(cut_after=sent)) as daemon:
        with pytest.raises(MobysessionError):
            async with open_session(daemon.endpoint, attach="tunnel"):
                await trio.sleep_forever()


async def test_a_tunnel_that_is_refused_is_refused():
    """The fake says no as a daemon without the method does."""
    async with FakeDaemon.listen(tunnel_faults=Faults(refusal=Refusal(404, "unknown method Session"))) as daemon:
        with pytest.raises(UpgradeRefused, match="unknown method"):
            async with open_session(daemon.endpoint, attach="tunnel"):
                pytest.fail("attached")

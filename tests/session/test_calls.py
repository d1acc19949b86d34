"""What the daemon calls on a session, and what the session says of it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing

from mobysession._pb import secrets_pb2
from mobysession.errors import RpcError, SecretError, StatusCode
from mobysession.events import AccessDecided, CallEnded, CallStarted, SessionEnded, SessionReady
from mobysession.rpc.registrar import Cardinality, Registrar
from mobysession.services.auth import Auth
from mobysession.services.filesync import FileSync
from mobysession.services.secrets import Secrets
from mobysession.session import Session, open_session
from mobysession.testing import FakeDaemon, Faults

SECRET = b"correct-horse-battery-staple"
_GET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"


class Echo:
    """A servicer of a user's own, on the raw registrar."""

    def register(self, registrar: Registrar) -> None:
        registrar.unary_unary("/test.Echo/One", self._one, secrets_pb2.GetSecretRequest)
        registrar.stream("/test.Echo/Both", self._both, Cardinality.STREAM_STREAM)

    async def _one(self, request, call):
        return secrets_pb2.GetSecretResponse(data=request.ID.encode() * 2)

    async def _both(self, call):
        await call.send_initial_metadata([("flavour", call.values("flavour")[0])])
        call.trailing_metadata.append(("count", "3"))
        while messages := await call.receive_batch():
            await call.send_batch(messages)


async def test_a_service_of_ones_own_is_called():
    """A user's attachable answers unary and streaming calls, with metadata both ways."""
    async with FakeDaemon() as daemon, open_session(daemon.dialer, Echo()) as session:
        caller = await daemon.wait_session(session.id)
        request = secrets_pb2.GetSecretRequest(ID="ab")
        assert (await caller.unary("/test.Echo/One", request, secrets_pb2.GetSecretResponse)).data == b"abab"
        async with caller.channel.open_call("/test.Echo/Both", metadata=[("flavour", "mint")]) as call:
            await call.send_batch([b"a", b"", b"c" * 100_000])
            await call.end()
            received = []
            while messages := await call.receive_batch():
                received += messages
        assert received == [b"a", b"", b"c" * 100_000]
        assert ("flavour", "mint") in (call.initial_metadata or ())
        assert ("count", "3") in call.trailing_metadata


async def test_every_call_is_an_event(heard):
    """Start and end of each call are told in order, with numbers, statuses and sizes."""
    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        session.allow(Secrets({"token": SECRET}))
        session.listen(heard.append)
        async with session.attach():
            caller = await daemon.wait_session(session.id)
            await caller.get_secret("token")
            with pytest.raises(RpcError):
                await caller.get_secret("other")
    common: dict[str, Any] = {"session_id": session.id, "time": 0}
    assert heard == [
        SessionReady(**common, settings=heard[0].settings),
        CallStarted(**common, call_id=1, method=_GET),
        CallEnded(**common, call_id=1, method=_GET, code=StatusCode.OK, duration=0, received=7, sent=len(SECRET) + 2),
        CallStarted(**common, call_id=2, method=_GET),
        AccessDecided(
            **common,
            call_id=2,
            method=_GET,
            kind="secret",
            subject="other",
            allowed=False,
            by="offer",
            reason="not offered",
        ),
        CallEnded(
            **common,
            call_id=2,
            method=_GET,
            code=StatusCode.NOT_FOUND,
            message=heard[5].message,
            duration=0,
            received=7,
        ),
        SessionEnded(**common),
    ]
    assert heard[-1].error is None


async def test_a_secrets_value_is_in_no_event_log_or_repr(heard, caplog):
    """After a secret was served, and after its function failed quoting it, the value is nowhere to be read."""
    caplog.set_level(logging.DEBUG)

    def leaky():
        raise ValueError(SECRET.decode())

    async with FakeDaemon() as daemon:
        secrets = Secrets({"token": SECRET, "leaky": leaky})
        session = Session(daemon.dialer)
        session.allow(secrets)
        session.listen(heard.append)
        async with session.attach():
            caller = await daemon.wait_session(session.id)
            assert await caller.get_secret("token") == SECRET
            with pytest.raises(RpcError) as caught:
                await caller.get_secret("leaky")
    shown = [str(caught.value), repr(caught.value), repr(secrets), repr(session), caplog.text, repr(caller.calls)]
    assert heard
    for text in shown + [repr(event) for event in heard]:
        assert SECRET.decode() not in text


async def test_a_failed_callback_is_remembered(heard):
    """The failures behind the answers are kept, so that a build that failed for one of them can name it."""

    def broken():
        raise OSError("vault is sealed")

    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        session.allow(Secrets({"token": broken}))
        async with session.attach():
            caller = await daemon.wait_session(session.id)
            with pytest.raises(RpcError):
                await caller.get_secret("token")
    (failure,) = session.failures
    assert failure.method == _GET
    assert isinstance(failure.error, SecretError)
    assert isinstance(failure.error.__cause__, OSError)


async def test_health_is_answered_in_the_middle_of_a_bulk_transfer(tmp_path):
    """While a large context is being sent, checks are answered at once: long before the transfer is over."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "large").write_bytes(bytes(24 * 1024 * 1024))
    files = FileSync({"context": tmp_path / "context"})
    done = trio.Event()
    checks_before_the_end = 0

    async def transfer():
        await caller.diffcopy("context", tmp_path / "received")
        done.set()

    async with FakeDaemon.listen() as daemon, open_session(daemon.endpoint, files) as session:
        caller = await daemon.wait_session(session.id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transfer)
            while not done.is_set():
                await caller.health(timeout=10)
                checks_before_the_end += not done.is_set()
    assert checks_before_the_end >= 3
    assert (tmp_path / "received" / "large").stat().st_size == 24 * 1024 * 1024


async def test_health_is_answered_while_the_daemon_reads_nothing_more(autojump_clock):
    """A transfer that fills the connection's window leaves room for checks: nothing is given back, checks pass."""
    faults = Faults(slow_reader=True)
    async with FakeDaemon(faults=faults) as daemon, open_session(daemon.dialer, Bulk()) as session:
        caller = await daemon.wait_session(session.id)
        async with caller.channel.open_call("/test.Bulk/Fill") as call:
            await call.receive()
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(10):
                await caller.health(timeout=5)


class Bulk:
    """Sends far more than any window holds."""

    def register(self, registrar: Registrar) -> None:
        registrar.stream("/test.Bulk/Fill", self._fill)

    async def _fill(self, call):
        for _ in range(64):
            await call.send(bytes(32 * 1024))


async def test_calls_run_side_by_side():
    """A call that waits does not hold up another one."""
    entered, release = trio.Event(), trio.Event()

    async def slow():
        entered.set()
        await release.wait()
        return b"slow"

    async with FakeDaemon() as daemon, open_session(daemon.dialer, Secrets({"slow": slow, "fast": b"f"})) as session:
        caller = await daemon.wait_session(session.id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.get_secret, "slow")
            await entered.wait()
            assert await caller.get_secret("fast") == b"f"
            release.set()


async def test_a_cancelled_call_is_cancelled_here(heard):
    """When the daemon gives a call up, its handler is cancelled and the event says who did it."""
    entered = trio.Event()

    async def forever():
        entered.set()
        await trio.sleep_forever()

    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        session.allow(Secrets({"token": forever}))
        session.listen(heard.append)
        async with session.attach():
            caller = await daemon.wait_session(session.id)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(caller.get_secret, "token")
                await entered.wait()
                nursery.cancel_scope.cancel()
            while not isinstance(heard[-1], CallEnded):
                await trio.lowlevel.checkpoint()
            assert heard[-1].code is StatusCode.CANCELLED
            await caller.health()


async def test_a_deadline_of_the_daemons_is_kept(autojump_clock, heard):
    """A handler that outlasts the call's deadline is cancelled by it, on this side too."""

    async def forever():
        await trio.sleep_forever()

    async with FakeDaemon() as daemon:
        session = Session(daemon.dialer)
        session.allow(Secrets({"token": forever}))
        session.listen(heard.append)
        async with session.attach():
            caller = await daemon.wait_session(session.id)
            request = secrets_pb2.GetSecretRequest(ID="token")
            with pytest.raises(RpcError) as caught:
                await caller.unary(_GET, request, secrets_pb2.GetSecretResponse, timeout=2)
            assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
            await caller.health()
        assert next(e for e in heard if isinstance(e, CallEnded)).code in (
            StatusCode.DEADLINE_EXCEEDED,
            StatusCode.CANCELLED,
        )


def test_what_is_hosted_for_a_while_is_known_for_that_while():
    """The secrets of a service are known as long as it is hosted, whichever of several is taken away first."""
    session = Session(FakeDaemon().dialer)
    one, two = Auth({}), Auth({})
    first, second = session.hosting(one), session.hosting(two)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert session.redactors == [two.redactor]
    second.__exit__(None, None, None)
    assert session.redactors == []

"""The raw stream of a session: what comes out, by which door, and what is raised."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from mobysession.errors import SessionIdInUse, SessionsError, UsageError
from mobysession.session.sessions import Sessions
from mobysession.testing import FakeDaemon, Faults, Refusal

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


async def test_the_stream_begins_behind_the_101():
    """What comes out first is the first byte of the daemon's HTTP/2, and the daemon knows what it was told."""
    async with FakeDaemon.listen() as daemon:
        sessions = Sessions.from_connection_options(daemon.host)
        async with sessions.session("mine", name="n", shared_key="k", methods=["/a.B/C"]) as stream:
            received = b""
            while len(received) < len(PREFACE):
                received += await stream.receive_some()
            assert received.startswith(PREFACE)
            caller = daemon.sessions["mine"]
            assert (caller.name, caller.shared_key, caller.methods) == ("n", "k", ("/a.b/c",))


async def test_an_agent_dials():
    """A function that returns a stream, and one that yields it for a block, are both taken; the block is left."""
    left = []
    async with FakeDaemon() as daemon:

        @asynccontextmanager
        async def scoped():
            yield await daemon.dial()
            left.append(True)

        for agent in (daemon.dial, scoped):
            async with Sessions.from_agent(agent).session() as stream:
                assert (await stream.receive_some()).startswith(PREFACE[:3])
    assert left == [True]


async def test_default_is_what_the_environment_says(monkeypatch):
    """DOCKER_HOST is where the stream comes from."""
    async with FakeDaemon.listen() as daemon:
        monkeypatch.setenv("DOCKER_HOST", daemon.host)
        async with Sessions.default().session("from-env") as stream:
            await stream.receive_some()
            assert "from-env" in daemon.sessions


async def test_every_failure_is_a_sessions_error():
    """A refusal, an ID in use, a wrong name and a broken agent are told with their words, hint and cause."""
    async with FakeDaemon(faults=Faults(refusal=Refusal(403, "denied by plugin"))) as daemon:
        with pytest.raises(SessionsError, match="denied by plugin"):
            async with Sessions.from_agent(daemon.dial).session():
                pytest.fail("opened")
    async with FakeDaemon() as daemon:
        sessions = Sessions.from_agent(daemon.dial)
        async with sessions.session("taken") as stream:
            await stream.receive_some()
            with pytest.raises(SessionsError) as caught:
                async with sessions.session("taken"):
                    pytest.fail("opened")
        assert isinstance(caught.value.__cause__, SessionIdInUse)
        assert caught.value.hint == caught.value.__cause__.hint
        with pytest.raises(SessionsError) as caught:
            async with sessions.session("new\nline"):
                pytest.fail("opened")
        assert isinstance(caught.value.__cause__, UsageError)
        assert caught.value.exit_status == 2

    async def broken():
        raise OSError("no route")

    with pytest.raises(SessionsError, match="the agent could not dial: no route"):
        async with Sessions.from_agent(broken).session():
            pytest.fail("opened")
    with pytest.raises(SessionsError):
        Sessions.from_connection_options("gopher://x")
    with pytest.raises(SessionsError, match="either names a daemon"):
        Sessions.from_connection_options("unix:///x", context="y")


async def test_cancelling_closes_the_connection():
    """A cancelled block leaves the daemon with a connection that has ended."""
    async with FakeDaemon() as daemon:
        with trio.CancelScope() as scope:
            async with Sessions.from_agent(daemon.dial).session("mine") as stream:
                await stream.receive_some()
                scope.cancel()
                await trio.sleep_forever()
        await daemon.wait_ended("mine")

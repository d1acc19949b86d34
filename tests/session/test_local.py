"""Sessions that other processes of the same user see, watch and end."""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession.errors import SessionError
from mobysession.rpc.client import open_channel
from mobysession.services.secrets import Secrets
from mobysession.session.announced import Watchers, announced
from mobysession.session.local import open_local_server, open_local_session
from mobysession.session.session import Session
from mobysession.state.location import runtime_directory
from mobysession.state.sessions import SessionDirectory
from mobysession.state.store import open_store
from mobysession.testing import FakeDaemon


class Peer:
    """A session that says what it is told to."""

    def __init__(self):
        self.watchers = Watchers()
        self.aborted: list[str] = []

    def inspect(self):
        return {"status": "idle", "path": Path("/x")}

    def events(self):
        return self.watchers.watch()

    async def abort(self, reason):
        self.aborted.append(reason)


async def announce(server, session_id, peer):
    await server.announce(session_id, peer, endpoint="unix:///x", created=time.time())


async def watch(session, heard, task_status=trio.TASK_STATUS_IGNORED):
    task_status.started()
    async for event in session.events():
        heard.append(event)


async def test_a_session_is_found_and_asked():
    """What is announced is listed, and answers what it is like, as JSON."""
    async with open_store() as store, open_local_server(store) as server:
        await announce(server, "one", Peer())
        (found,) = await SessionDirectory(store).list()
        assert (found.session_id, found.endpoint, found.pid) == ("one", "unix:///x", os.getpid())
        async with open_local_session(found) as session:
            assert await session.inspect() == {"status": "idle", "path": "/x"}


async def test_several_sessions_have_one_socket():
    """A process listens once, from its first session on, and each question reaches the session that is meant."""
    async with open_store() as store, open_local_server(store) as server:
        assert not runtime_directory().exists() or os.listdir(runtime_directory()) == []
        one, two = Peer(), Peer()
        await announce(server, "one", one)
        await announce(server, "two", two)
        first, second = await SessionDirectory(store).list()
        assert first.socket == second.socket
        async with open_local_session(second) as session:
            await session.abort("enough")
        assert (one.aborted, two.aborted) == ([], ["enough"])


async def test_the_socket_is_its_users_alone():
    """0600, in a directory of 0700; and it is gone at the end."""
    async with open_store() as store:
        async with open_local_server(store) as server:
            await announce(server, "one", Peer())
            (found,) = await SessionDirectory(store).list()
            assert stat.S_IMODE(os.stat(found.socket).st_mode) == 0o600
            assert stat.S_IMODE(os.stat(os.path.dirname(found.socket)).st_mode) == 0o700
        with pytest.raises(FileNotFoundError):
            os.stat(found.socket)
        assert await SessionDirectory(store).list() == []


@pytest.mark.parametrize("closed", [True, False])
async def test_events_come_until_the_session_ends(autojump_clock, closed):
    """Who watches sees each event from then on, in order, and then the end, also where the session does not tell it."""
    async with open_store() as store, open_local_server(store) as server, trio.open_nursery() as nursery:
        peer = Peer()
        await announce(server, "one", peer)
        (found,) = await SessionDirectory(store).list()
        async with open_local_session(found) as session:
            heard: list[Any] = []
            async with trio.open_nursery() as watching:
                await watching.start(watch, session, heard)
                while not peer.watchers._subscriptions:
                    await trio.lowlevel.checkpoint()
                peer.watchers.tell({"n": 1})
                peer.watchers.tell({"n": 2})
                while len(heard) < 2:
                    await trio.lowlevel.checkpoint()
                if closed:
                    peer.watchers.tell({"n": 3})
                    peer.watchers.close()
                server.withdraw("one")
                server.withdraw("one")
            assert heard == [{"n": 1}, {"n": 2}, *([{"n": 3}] if closed else [])]
            peer.watchers.tell({"n": 4})
        assert peer.watchers._subscriptions == []
        nursery.cancel_scope.cancel()


async def test_a_session_that_is_over_has_no_events():
    """Watching what has been closed ends at once."""
    watchers = Watchers()
    watchers.close()
    assert [event async for event in watchers.watch()] == []


async def test_who_stops_watching_is_forgotten():
    """Leaving the iterator ends the stream on the other side too."""
    async with open_store() as store, open_local_server(store) as server:
        peer = Peer()
        await announce(server, "one", peer)
        (found,) = await SessionDirectory(store).list()
        async with open_local_session(found) as session, trio.open_nursery() as watching:
            await watching.start(watch, session, [])
            while not peer.watchers._subscriptions:
                await trio.lowlevel.checkpoint()
            watching.cancel_scope.cancel()
        while peer.watchers._subscriptions:
            await trio.lowlevel.checkpoint()


async def test_a_slow_watcher_is_told_what_it_missed():
    """Events over the bound are counted, and the count comes before the next one that fits."""
    watchers = Watchers()
    events = watchers.watch()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(anext, events)
        await trio.testing.wait_all_tasks_blocked()
        watchers.tell({"n": -1})
    for number in range(limits.WATCHED_EVENTS + 3):
        watchers.tell({"n": number})
    heard = [await anext(events) for _ in range(limits.WATCHED_EVENTS)]
    watchers.tell({"n": "last"})
    heard += [await anext(events), await anext(events)]
    await events.aclose()
    assert heard[-3:] == [{"n": limits.WATCHED_EVENTS - 1}, {"event": "EventsMissed", "count": 3}, {"n": "last"}]


async def test_a_session_that_has_ended_says_so():
    """Asking for a withdrawn session, or a process that has gone, is a SessionError that names both."""
    async with open_store() as store:
        async with open_local_server(store) as server:
            await announce(server, "one", Peer())
            await announce(server, "two", Peer())
            (found, _) = await SessionDirectory(store).list()
            server.withdraw("one")
            async with open_local_session(found) as session:
                with pytest.raises(
                    SessionError, match=rf"session one of process {os.getpid()} .*: session one has ended"
                ):
                    await session.inspect()
        with pytest.raises(SessionError, match="session one of process"):
            async with open_local_session(found):
                pass


async def test_a_process_that_hangs_is_not_waited_for(autojump_clock, tmp_path):
    """One that accepts and never answers is given up on in time."""
    async with open_store() as store, open_local_server(store) as server:
        await announce(server, "one", Peer())
        (found,) = await SessionDirectory(store).list()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(found.socket)
        listening.listen()
        async with open_local_session(found) as session:
            with pytest.raises(SessionError, match="no answer within 5 s"):
                await session.inspect()
    os.unlink(found.socket)


async def test_a_plain_session_can_be_seen():
    """`announced` shows a session with its endpoint, its methods and its connection, and what happens on it."""
    async with FakeDaemon.listen() as daemon, open_store() as store:
        session = Session(daemon.endpoint, name="n")
        session.allow(Secrets({"token": b"opensesame"}))
        async with announced(session, store=store):
            (found,) = await SessionDirectory(store).list()
            assert (found.session_id, found.endpoint) == (session.id, daemon.endpoint.url)
            async with open_local_session(found) as seen:
                assert (await seen.inspect())["status"] == "closed"
                heard: list[Any] = []
                async with trio.open_nursery() as watching:
                    await watching.start(watch, seen, heard)
                    # Answered behind the other question, which has begun then.
                    await seen.inspect()
                    async with session.attach():
                        inspected = await seen.inspect()
                    while len(heard) < 2:
                        await trio.lowlevel.checkpoint()
                    watching.cancel_scope.cancel()
        assert await SessionDirectory(store).list() == []
    assert (inspected["session_id"], inspected["status"], inspected["way"]) == (session.id, "ready", "hijack")
    assert "/moby.buildkit.secrets.v1.Secrets/GetSecret" in inspected["methods"]
    assert inspected["connection"]["client_side"] is False
    assert [event["event"] for event in heard if event["event"].startswith("Session")] == [
        *("SessionReady", "SessionEnded"),
    ]
    assert "opensesame" not in str((inspected, heard))


async def test_a_plain_session_can_be_ended_from_outside():
    """`abort` cancels the block, which ends with the reason; whoever asked is answered."""
    async with open_store() as store, trio.open_nursery() as nursery:
        session = Session(_never)
        attached = trio.Event()

        async def hold():
            async with announced(session):
                attached.set()
                await trio.sleep_forever()

        async def be_ended():
            with pytest.raises(SessionError, match=f"session {session.id} was ended by another process: enough"):
                await hold()

        nursery.start_soon(be_ended)
        await attached.wait()
        (found,) = await SessionDirectory(store).list()
        assert found.endpoint == "a dialer"
        async with open_local_session(found) as seen:
            await seen.abort("enough")


def _never(headers):
    raise AssertionError("nobody attaches it")


async def test_what_is_asked_for_in_vain_is_answered():
    """A call of a method that there is none of ends with UNIMPLEMENTED, and harms nobody."""
    from mobysession._pb.local_pb2 import AbortRequest, AbortResponse
    from mobysession.errors import RpcError, StatusCode

    async with open_store() as store, open_local_server(store) as server:
        await announce(server, "one", Peer())
        (found,) = await SessionDirectory(store).list()
        async with open_channel(await trio.open_unix_socket(found.socket)) as channel:
            with pytest.raises(RpcError) as caught:
                await channel.unary("/mobysession.local.v1.LocalSessions/Nothing", AbortRequest(), AbortResponse)
            assert caught.value.code is StatusCode.UNIMPLEMENTED
        async with open_local_session(found) as session:
            assert (await session.inspect())["status"] == "idle"

"""What an entered manager shares with other processes: sessions that live, and how to go on with lost ones."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from mobysession.errors import RunInterrupted, SessionAlive, SessionLost, UsageError
from mobysession.session.local import open_local_session
from mobysession.session.managed import SessionConfig, SessionManager
from mobysession.state.inbox import InboxStorage
from mobysession.state.sessions import SessionDirectory
from mobysession.state.store import open_store

if TYPE_CHECKING:
    from mobysession.session.managed.memory import Memory


@pytest.fixture
def database(tmp_path):
    return tmp_path / "memory.db"


def memory_of(manager: SessionManager) -> Memory:
    """Return what the manager shares, which it does: it is entered."""
    assert manager._memory is not None
    return manager._memory


async def nothing(session):
    return None


async def endless(session):
    await trio.sleep_forever()


async def test_live_sessions_answer_others(managed, database):
    """They are found by ID, tell what they are like and what happens on them, and can be ended."""
    async with managed() as (plain, _), open_store(database) as store:
        directory = SessionDirectory(store)
        async with SessionManager(plain.config, store=database) as manager:
            async with manager.session([], metadata={"a": "b"}) as session:
                await memory_of(manager).store.flush()
                announced = await directory.find(session.id)
                assert announced is not None
                assert announced.endpoint == "a dialer"
                async with open_local_session(announced) as seen:
                    told = await seen.inspect()
                    assert (told["info"]["status"], told["scheduler"]["state"]) == ("ready", "idle")
                    handle = await session.send(endless)
                    await trio.testing.wait_all_tasks_blocked()
                    await seen.abort("not now")
                    with pytest.raises(RunInterrupted, match="not now"):
                        await handle.result()
                    await seen.abort("no more")
                    await session.close()
                    assert session.status == "closed"
            await memory_of(manager).store.flush()
            assert await directory.find(session.id) is None


async def test_events_are_told_to_others(managed, database):
    """As JSON: what has no such form is text; they end with the session."""
    async with managed() as (plain, _), SessionManager(plain.config, store=database) as manager:
        async with manager.session([]) as session:
            await memory_of(manager).store.flush()
            announced = await SessionDirectory(memory_of(manager).store).find(session.id)
            assert announced is not None
            async with open_local_session(announced) as seen, trio.open_nursery() as nursery:
                heard = []

                async def listen():
                    heard.extend([event async for event in seen.events()])

                nursery.start_soon(listen)
                while not session.feed.heard:
                    await trio.testing.wait_all_tasks_blocked()
                    await trio.sleep(0.001)
                session.push_event("mine", {"n": 1, "what": OSError("x")})
                await session.close()
        assert heard[0]["kind"] == "mine"
        assert heard[0]["data"] == {"n": 1, "what": "x"}
        assert heard[0]["id"] == f"{session.id}.{heard[0]['sequence']}"


async def test_what_lives_elsewhere_is_not_resumed(managed, database):
    """A manager that is not entered looks too; the error names the process."""
    async with managed() as (plain, _), open_store(database) as store:
        manager = SessionManager(plain.config, store=database)
        async with SessionManager(plain.config, store=database) as other, other.create([], session_id="mine"):
            await memory_of(other).store.flush()
            await store.flush()
            from mobysession.session.managed import manager as module

            kept = module._alive.pop("mine")  # as if it were another process
            try:
                with pytest.raises(SessionAlive, match="lives in process"):
                    async with manager.resume("mine", []):
                        pytest.fail("resumed")
            finally:
                module._alive["mine"] = kept


async def test_what_has_just_ended_elsewhere_is_resumed(managed, database):
    """Its process says so before the store knows; where it says nothing, the session is taken for alive."""
    async with managed() as (plain, daemon), SessionManager(plain.config, store=database) as other:
        async with other.create([], session_id="mine"):
            (announced,) = await SessionDirectory(memory_of(other).store).list()
        directory = SessionDirectory(memory_of(other).store)
        directory.announce(announced)  # as if it were not withdrawn yet
        await memory_of(other).store.flush()
        manager = SessionManager(plain.config, store=database)
        async with manager.resume("mine", []) as session:
            await daemon.wait_session(session.id)
        directory.announce(dataclasses.replace(announced, socket=f"{announced.socket}.gone"))
        await memory_of(other).store.flush()
        with pytest.raises(SessionAlive, match="lives in process"):
            async with manager.resume("mine", []):
                pytest.fail("resumed")


async def test_a_lost_session_is_resumed_by_its_id(managed, database):
    """What an entered manager wrote down after each run is gone on with; of a closed session nothing is kept."""
    async with managed() as (plain, daemon), SessionManager(plain.config, store=database) as manager:
        async with manager.create([], shared_key="key", metadata={"a": "b"}) as session:
            handle = await session.send(endless)
            await daemon.wait_session(session.id)
            daemon.kill()
            with pytest.raises(SessionLost):
                await handle.result()
        await memory_of(manager).store.flush()  # that it is over is written soon
        async with SessionManager(plain.config, store=database).resume(session.id, []) as resumed:
            assert (resumed.current_run, resumed.metadata) == (1, {"a": "b"})
            assert daemon.sessions[session.id].shared_key == "key"
        async with manager.create([], session_id="done") as session:
            await (await session.send(nothing)).result()
        assert await memory_of(manager).look_up("done") is None


async def test_children_notify_their_parents(managed, database):
    """What a child leaves is processed by the parent when it is attached, in order; a failure leaves it there."""
    async with managed() as (manager, _), open_store(database) as store:
        inbox = InboxStorage(store)
        async with manager.create([], session_id="child", parent_session_id="parent") as child:
            child.set_inbox_storage(inbox)
            await child.notify_parent({"n": 1})
            await child.notify_parent({"n": 2})
        assert [entry.sender for entry in await inbox.pending("parent")] == ["child", "child"]
        got = []

        async def take(message):
            got.append(message)

        async with manager.create([], session_id="parent") as parent:
            parent.set_inbox_storage(inbox, take)
            await trio.testing.wait_all_tasks_blocked()
            assert got == []
            events = parent.events()
            await parent.mount()
            kinds = [await anext(events) for _ in range(4)]
            assert "inbox_message" in {event.kind for event in kinds}
            while await inbox.pending("parent"):
                await store.wait_for(store.change)
        assert got == [{"n": 1}, {"n": 2}]


async def test_without_a_parent_or_a_storage_nobody_is_notified(managed):
    """Both are said by name."""
    async with managed() as (manager, _):
        async with manager.create([]) as session:
            with pytest.raises(ValueError, match="has no parent"):
                await session.notify_parent("x")
        async with manager.create([], parent_session_id="p") as session:
            with pytest.raises(ValueError, match="no inbox"):
                await session.notify_parent("x")


async def lose(daemon, session):
    daemon.kill()
    await trio.testing.wait_all_tasks_blocked()
    assert session.status == "failed"


async def hold(making, left, task_status):
    async with making as session:
        task_status.started(session)
        await left.wait()


@pytest.mark.parametrize("apart", [False, True])
async def test_a_lost_session_is_resumed_inside_its_block(managed, database, apart):
    """By its manager, or another one of the process; the end of the old block leaves the new one announced."""
    left = trio.Event()
    async with (
        managed() as (plain, daemon),
        SessionManager(plain.config, store=database) as manager,
        SessionManager(plain.config, store=database) as another,
        trio.open_nursery() as nursery,
    ):
        resuming = another if apart else manager
        async with manager.session([], session_id="mine") as session:
            await memory_of(manager).store.flush()
            await lose(daemon, session)
            resumed = await nursery.start(hold, resuming.resume("mine", []), left)
            assert (resumed.status, resumed.info.resumed_from) == ("ready", "mine")
            await memory_of(resuming).store.flush()
        await memory_of(manager).store.flush()
        announced = await SessionDirectory(memory_of(resuming).store).find("mine")
        assert announced is not None
        async with open_local_session(announced) as seen:
            assert await seen.lives()
        await (await resumed.send(nothing)).result()
        await trio.testing.wait_all_tasks_blocked()
        assert memory_of(resuming)._snapshots.get()["mine"]["runs"] == 1
        left.set()


async def test_a_lost_session_does_not_live(managed, database):
    """Others can look at it up to the end of its block, and go on with it."""
    async with (
        managed() as (plain, daemon),
        SessionManager(plain.config, store=database) as manager,
        manager.session([], session_id="mine") as session,
    ):
        (announced,) = await SessionDirectory(memory_of(manager).store).list()
        async with open_local_session(announced) as seen:
            assert await seen.lives()
            await lose(daemon, session)
            assert not await seen.lives()
            assert (await seen.inspect())["info"]["status"] == "failed"


async def test_a_session_may_outlive_its_manager(managed, database):
    """It is announced no longer, and ends in its own way: with what its block raised, and it can be made again."""
    left = trio.Event()
    ended = []

    async def fail(making, task_status):
        try:
            async with making as session:
                task_status.started(session)
                await left.wait()
                await (await session.send(nothing)).result()
                raise OSError("its own")
        except OSError as error:
            ended.append(str(error))

    async with managed() as (plain, _):
        manager = SessionManager(plain.config, store=database)
        async with trio.open_nursery() as nursery:
            async with manager:
                await nursery.start(fail, manager.create([], session_id="mine"))
            left.set()
        assert ended == ["its own"]
        async with manager.create([], session_id="mine"):
            pass


async def test_an_id_that_no_daemon_can_be_told_is_refused(managed, database):
    """Before anything is written down, where it would end all sessions that are announced."""
    async with (
        managed() as (plain, _),
        SessionManager(plain.config, store=database) as manager,
        manager.create([]) as session,
    ):
        for wrong in ("\udcff", "", "a b\n", "a:b"):
            for making in (manager.create([], session_id=wrong), manager.resume(wrong, [])):
                with pytest.raises(UsageError):
                    async with making:
                        pytest.fail("made")
        await memory_of(manager).store.flush()
        assert session.status == "opening"


async def test_a_daemon_whose_name_is_no_text_is_announced(database):
    """The bytes of a file name may be none; they are shown escaped."""
    config = SessionConfig(dial_command="/bin/\udcff")
    async with SessionManager(config, store=database) as manager, manager.create([]):
        (announced,) = await SessionDirectory(memory_of(manager).store).list()
        assert announced.endpoint == "/bin/\\udcff"

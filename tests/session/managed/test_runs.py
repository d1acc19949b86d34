"""Runs: one at a time, in order, behind one handle."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession.errors import MobysessionError, RunInterrupted, SessionError, SessionOver, UsageError
from mobysession.services.secrets import Secrets
from mobysession.session.managed import SchedulerState, current_session


def answering(value):
    async def request(session):
        await trio.lowlevel.checkpoint()
        return value

    return request


async def endless(session):
    await trio.sleep_forever()


class Gate:
    """A request that waits until it is opened."""

    def __init__(self, value=None):
        self.began, self.opened, self.value = trio.Event(), trio.Event(), value

    async def __call__(self, session):
        self.began.set()
        await self.opened.wait()
        return self.value


async def test_what_is_queued_waits_for_a_run(managed):
    """`queue` begins nothing; `run` works all of it off in order; the last result is the run's."""
    async with managed() as (manager, _), manager.create([]) as session:
        await session.queue(answering(1))
        await session.queue(answering(2))
        assert (len(session.queued), session.current_run, session.status) == (2, 0, "opening")
        assert session.scheduler_state == SchedulerState(pending=("send",), queued=2)
        handle = await session.run()
        assert await handle.result() == 2
        assert (handle.results, handle.number, session.current_run, session.queued) == ([1, 2], 1, 1, ())
        assert session.status == "idle"
        assert session.scheduler_state == SchedulerState(runs=1, done=2)


async def test_during_a_run_everybody_gets_its_handle(managed):
    """Sending joins the run that goes on; its handle settles when the queue is empty; the next one has a new number."""
    async with managed() as (manager, _), manager.create([]) as session:
        gate = Gate("first")
        first = await session.send(gate)
        await gate.began.wait()
        assert session.status == "streaming"
        assert await session.send(answering("second")) is first
        assert await session.run() is first
        await first.queue(answering("third"))
        assert (session.scheduler_state.pending, session.scheduler_state.done) == (("run",), 0)
        gate.opened.set()
        assert await first.result() == "third"
        assert first.results == ["first", "second", "third"]
        second = await session.send(answering("fourth"))
        assert second is not first
        assert (await second.result(), second.number) == ("fourth", 2)


async def test_a_run_of_nothing_is_settled_and_empty(managed):
    """Where nothing is queued, `run` and `send` give an empty handle at once, and attach nothing."""
    async with managed() as (manager, daemon), manager.create([]) as session:
        for handle in (await session.run(), await session.send()):
            assert handle.settled
            assert (await handle.result(), handle.results, handle.number) == (None, [], 0)
            assert [event async for event in handle] == []
        assert (session.current_run, session.status, daemon.sessions) == (0, "opening", {})


async def test_options_reach_what_is_not_begun_yet(managed):
    """A run has the session's options and its own; given during it, they concern what is still queued."""
    seen = []

    async def note(session):
        seen.append(dict(session.options))

    async with managed() as (manager, _), manager.create([], options={"pull": True, "level": 1}) as session:
        gate = Gate()
        handle = await session.send(gate, level=2)
        await gate.began.wait()
        assert session.options == {"pull": True, "level": 2}
        await session.queue(note)
        await session.run(level=3)
        assert session.options["level"] == 2
        gate.opened.set()
        await handle.result()
        await (await session.send(note)).result()
        assert session.options == {"pull": True, "level": 1}
    assert seen == [{"pull": True, "level": 3}, {"pull": True, "level": 1}]


async def test_a_failure_ends_the_run_and_keeps_what_is_queued(managed):
    """The handle raises what the request raised, as itself; the rest waits for the next run; the session lives on."""

    async def failing(session):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            raise OSError("no disk")

    async with managed() as (manager, _), manager.create([]) as session:
        await session.queue(answering(1))
        await session.queue(failing)
        await session.queue(answering(3))
        handle = await session.run()
        with pytest.raises(OSError, match="no disk"):
            await handle.result()
        assert handle.results == [1]
        assert session.scheduler_state == SchedulerState(pending=("send",), queued=1, runs=1, done=2, failed=1)
        assert await (await session.run()).result() == 3


async def test_an_interruption_ends_the_run(managed):
    """The request is cancelled, the handle says so with the reason, the new one waits, and nothing runs till clear."""
    async with managed() as (manager, _), manager.create([]) as session:
        handle = await session.send(endless)
        await session.queue(answering("old"))
        await trio.testing.wait_all_tasks_blocked()
        await session.interrupt(answering("new"), reason="out of time")
        with pytest.raises(RunInterrupted, match="out of time") as caught:
            await handle.result()
        assert caught.value.reason == "out of time"
        assert session.is_aborted
        assert session.scheduler_state.pending == ("abort",)
        with pytest.raises(SessionError, match="was interrupted"):
            await session.run()
        session.clear_abort()
        assert not session.is_aborted
        assert (await (await session.run()).result(), session.status) == ("new", "idle")


async def test_without_a_run_an_interruption_only_queues(managed):
    """Nothing is aborted where nothing goes on."""
    async with managed() as (manager, _), manager.create([]) as session:
        await session.interrupt(answering(1))
        assert not session.is_aborted
        assert await (await session.run()).result() == 1


async def test_a_request_that_defies_its_interruption_is_the_last(managed):
    """What it returns all the same is kept; the next one is not begun, and the run counts as interrupted."""
    began = []

    async def stubborn(session):
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
            await session.interrupt(reason="now")
            return "done"

    async def next_one(session):
        began.append(True)

    async with managed() as (manager, _), manager.create([]) as session:
        await session.queue(stubborn)
        await session.queue(next_one)
        handle = await session.run()
        with pytest.raises(RunInterrupted):
            await handle.result()
        assert (handle.results, began, len(session.queued)) == (["done"], [], 1)


async def test_closing_waits_for_what_is_in_flight(managed):
    """The block ends when the run with all its requests has; what nobody sent is dropped; nothing more is taken."""
    async with managed() as (manager, _):
        async with manager.create([]) as session:
            handle = await session.send(answering(1))
            await session.queue(answering(2))
        assert (handle.results, session.status) == ([1, 2], "closed")
        async with manager.create([]) as session:
            await session.queue(answering(1))
            await session.close()
            await session.close()
            assert session.queued == ()
            for attempt in (session.send, session.run, session.mount, session.interrupt):
                with pytest.raises(SessionOver, match="is closed"):
                    await attempt()
            with pytest.raises(SessionOver):
                await session.queue(answering(1))
        with pytest.raises(SessionOver):
            await session.mount()


@pytest.mark.parametrize("asking", ["daemon", "here"])
async def test_closing_waits_for_answers(managed, autojump_clock, asking):
    """Of calls that get one, the daemon's and dispatched ones: each is given before the session ends."""

    async def slow(identifier):
        await trio.sleep(5)  # on the virtual clock: less than `limits.CLOSE_PATIENCE`
        return b"late"

    async with managed() as (manager, daemon), trio.open_nursery() as nursery:
        got = []
        async with manager.session([Secrets({"a": slow})]) as session:
            caller = await daemon.wait_session(session.id)

            async def ask():
                if asking == "daemon":
                    got.append(await caller.get_secret("a"))
                else:
                    got.append((await session.dispatch("GetSecret", {"ID": "a"})).data)

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(5, abs=0.5)
        assert (session.status, session._dispatched) == ("closed", 0)
    assert got == [b"late"]


async def test_closing_does_not_wait_for_ever(managed, autojump_clock):
    """A call that is never answered is cut after a while; a stream, which may have no end, and a lost one at once."""

    async def never(identifier):
        await trio.sleep_forever()

    async with managed() as (manager, daemon), trio.open_nursery() as nursery:

        async def ask(session, *call):
            with suppress(MobysessionError):
                await session.dispatch(*call)

        async with manager.session([Secrets({"a": never})]) as session:
            nursery.start_soon(ask, session, "GetSecret", {"ID": "a"})
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(limits.CLOSE_PATIENCE, abs=0.5)
        async with manager.session([Secrets({})]) as session:
            nursery.start_soon(ask, session, "Watch", {})
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
        assert trio.current_time() - began < 2
        async with manager.session([Secrets({"a": never})]) as session:
            nursery.start_soon(ask, session, "GetSecret", {"ID": "a"})
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(session.close)
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            daemon.kill()
        assert trio.current_time() - began < 2
        assert session.status == "failed"
        nursery.cancel_scope.cancel()


async def test_a_closing_that_was_given_up_is_gone_on_with(managed, autojump_clock):
    """Cancelled while it waits for a run, it takes no more requests; whoever closes next waits again."""
    async with managed() as (manager, _), manager.create([]) as session:
        gate = Gate("done")
        handle = await session.send(gate)
        with trio.move_on_after(1) as scope:
            await session.close()
        assert (scope.cancelled_caught, session.status) == (True, "closing")
        with pytest.raises(SessionOver, match="is closing"):
            await session.queue(gate)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(session.close)
            gate.opened.set()
        assert (await handle.result(), session.status) == ("done", "closed")


async def test_a_request_cannot_wait_for_itself(managed):
    """Closing the session, or waiting for the run, from inside of a request is refused instead of hanging."""

    async def closing(session):
        await session.close()

    async def waiting(session):
        await (await session.send()).result()

    async def through_a_child(session):
        await (await session.spawn(closing_above)).result()

    async def closing_above(session):
        await session.parent.close()

    async with managed() as (manager, _), manager.create([]) as session:
        for request in (closing, waiting, through_a_child):
            with pytest.raises(UsageError, match="request cannot"):
                await (await session.send(request)).result()


async def test_a_block_that_fails_ends_the_run_at_once(managed):
    """What goes on is cancelled, its handle says that the session was closed, and the failure is raised as itself."""
    handles = []

    async def fail(manager):
        async with manager.create([]) as session:
            handles.append(await session.send(endless))
            await trio.testing.wait_all_tasks_blocked()
            raise OSError("mine")

    async with managed() as (manager, _):
        with pytest.raises(OSError, match="mine"):
            await fail(manager)
        (handle,) = handles
        with pytest.raises(SessionOver, match="was closed meanwhile"):
            await handle.result()
        assert handle.session.status == "closed"


async def test_the_events_of_a_run_have_one_consumer(managed):
    """They begin with the run, end with it, and a second consumer is refused; `events` takes any number."""
    async with managed() as (manager, _), manager.create([]) as session:
        everything = session.events()
        handle = await session.send(answering(1))
        await handle.wait()
        kinds = [event.kind async for event in handle]
        assert (kinds[0], kinds[-1]) == ("run_started", "run_ended")
        with pytest.raises(UsageError, match="one consumer"):
            aiter(handle)
        await session.close()
        assert [event.kind async for event in everything if event.kind.startswith("r")] == [
            "run_started",
            "request_ended",
            "run_ended",
        ]


async def test_a_request_must_be_a_function(managed):
    """What cannot be called is refused when it is queued."""
    async with managed() as (manager, _), manager.create([]) as session:
        with pytest.raises(UsageError, match="not a str"):
            await session.queue("docker build .")
        with pytest.raises(UsageError):
            await session.send(5)


async def test_a_request_knows_its_session(managed):
    """Inside of a request, and of the tasks that it starts, the current session is the one it runs on."""
    seen = []

    async def look(session):
        async def inner():
            seen.append(current_session() is session)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(inner)

    async with managed() as (manager, _), manager.create([]) as one, manager.create([]) as other:
        assert current_session() is other
        await (await one.send(look)).result()
        await (await other.send(look)).result()
    assert seen == [True, True]
    with pytest.raises(UsageError, match="no current session"):
        current_session()

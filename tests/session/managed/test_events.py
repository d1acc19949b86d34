"""Events, channels and subscribers: numbered, bounded, and free where nobody listens."""

from __future__ import annotations

import logging

import pytest
import trio

from mobysession import limits
from mobysession.errors import UsageError
from mobysession.session.managed import QueueChanged
from mobysession.session.managed.channels import Channel, Missed
from mobysession.session.managed.feed import Feed
from mobysession.session.subscription import Subscription


async def nothing(session):
    return None


async def test_an_event_of_ones_own_goes_to_everybody(managed):
    """It has an ID, the run's number, a time, the next number; callbacks, subscribers and the run's handle get it."""
    async with managed() as (manager, _), manager.create([]) as session:
        before = session.push_event("first", 1)
        assert (before.run, before.kind, before.data) == (0, "first", 1)
        called: list[object] = []
        named: list[object] = []
        session.on("mine", called.append)
        leave = session.on("*", named.append)
        subscribed = session.events(until="session")
        pushed = []

        async def push(session):
            pushed.append(session.push_event("mine", {"n": 1}))

        handle = await session.send(push)
        in_run = [event async for event in handle]
        (event,) = pushed
        assert (event.run, event.session_id) == (1, session.id)
        assert event.id == f"{session.id}.{event.sequence}"
        assert called == [event]
        assert event in named
        assert event in in_run
        leave()
        seen = len(named)
        session.push_event("other")
        assert len(named) == seen
        await session.close()
        everything = [one async for one in subscribed]
        assert event in everything
        numbers = [one.sequence for one in everything]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        with pytest.raises(UsageError):
            session.push_event("")


def test_what_nobody_hears_is_only_counted(monkeypatch):
    """No event is made where nobody listens; its number is taken all the same."""
    made = []
    feed = Feed("id")
    make = feed._make

    def count(*event):
        made.append(event)
        return make(*event)

    monkeypatch.setattr(feed, "_make", count)
    feed.publish("a")
    feed.publish("b")
    assert (made, feed.sequence, feed.heard) == ([], 2, False)
    leave = feed.on("b", lambda event: None)
    feed.publish("c")
    assert (made, feed.heard) == ([("c", None)], True)
    leave()
    assert not feed.heard


def test_a_listener_that_fails_harms_nobody(caplog):
    """The others get the event, and the log has what kind of failure it was."""
    feed = Feed("id")
    got: list[object] = []

    def broken(event):
        raise ValueError("a secret")

    feed.on("a", broken)
    feed.on("a", got.append)
    with caplog.at_level(logging.WARNING, "mobysession.session"):
        feed.publish("a")
    assert len(got) == 1
    assert "ValueError" in caplog.text
    assert "a secret" not in caplog.text


async def test_a_subscription_tells_where_the_gap_is():
    """What came before it, how many were missed, what came behind it, the end: in that order."""
    subscription = Subscription(lambda number: f"-{number}", capacity=2)
    for item in ("a", "b", "c", "d"):
        subscription.put(item)
    assert await anext(subscription) == "a"
    subscription.put("e")
    assert [await anext(subscription) for _ in range(2)] == ["b", "-2"]
    assert await anext(subscription) == "e"
    for item in ("f", "g", "h"):
        subscription.put(item)
    subscription.end()
    subscription.put("after the end")
    assert [item async for item in subscription] == ["f", "g", "-1"]


async def test_the_last_item_is_not_missed():
    """Who finishes with an item has it at the end, behind the number of those that are missing."""
    for count, expected in ((1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (5, [1, 2, -2, 5])):
        subscription = Subscription(lambda number: -number, capacity=2)
        for item in range(1, count + 1):
            subscription.put(item)
        subscription.finish(count)
        assert [item async for item in subscription] == expected


async def test_events_end_with_the_run(managed):
    """Asked for before the run, during it or before the next one: its end is the last, also where some are missed."""
    async with managed() as (manager, _), manager.create([]) as session:
        before, closed, whole = session.events(), session.events(), session.events(until="session")
        await closed.aclose()
        during = []

        async def busy(session):
            during.append(session.events())
            for _ in range(2 * limits.EVENTS_BEHIND):
                session.push_event("busy")

        handle = await session.send(busy)
        await handle.wait()
        again = session.events()
        for events in (before, *during, handle):
            (*_, missed, last) = [event async for event in events]
            assert (missed.kind, last.kind, last.run) == ("missed", "run_ended", 1)
        await (await session.send(nothing)).wait()
        runs = [event.run async for event in again if event.kind == "run_ended"]
        assert (runs, session.feed._of_the_run) == ([2], [])
        unused = session.events()
        await session.close()
        assert [event.data async for event in unused][-1] == "closed"
        assert [event.kind async for event in whole][-1] == "missed"


async def test_a_subscription_waits_and_loses_nothing_when_cancelled(autojump_clock):
    """A cancelled wait takes nothing; closing wakes whoever waits."""
    subscription = Subscription(str)
    with trio.move_on_after(1):
        await anext(subscription)
    subscription.put("a")
    assert await anext(subscription) == "a"
    async with trio.open_nursery() as nursery:

        async def wait():
            assert [item async for item in subscription] == []

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await subscription.aclose()


async def test_a_channel_is_for_everybody_who_listens(managed):
    """By name; the same name is the same channel; a slow one is told; the session's end ends it."""
    async with managed() as (manager, _):
        async with manager.create([]) as session:
            channel = session.channel("news")
            assert session.channel("news") is channel
            got: list[object] = []
            leave = channel.on(got.append)
            subscribed = channel.subscribe()
            channel.publish("a")
            leave()
            channel.publish("b")
            assert got == ["a"]
        assert [value async for value in subscribed] == ["a", "b"]
    slow = Channel("x")
    listener = slow.subscribe()
    listener._capacity = 1
    for value in range(3):
        slow.publish(value)
    assert [await anext(listener), await anext(listener)] == [0, Missed(2)]


async def test_a_listener_of_a_channel_that_fails_harms_nobody(managed, caplog):
    """Neither the run whose queue it listens to, nor the others; the log has what kind of failure it was."""

    def broken(value):
        raise ValueError("a secret")

    async with managed() as (manager, _), manager.create([]) as session:
        got: list[object] = []
        session.channel("messages").on(broken)
        session.channel("messages").on(got.append)
        with caplog.at_level(logging.WARNING, "mobysession.session"):
            await (await session.send(nothing)).result()
        assert len(got) == 2
    assert "ValueError" in caplog.text
    assert "a secret" not in caplog.text


async def test_the_queue_is_told_on_messages(managed):
    """What is queued, begun and dropped, and how many wait."""
    async with managed() as (manager, _):
        async with manager.create([]) as session:
            messages = session.channel("messages").subscribe()
            await session.queue(nothing)
            await session.queue(nothing)
            await (await session.run()).result()
            await session.queue(nothing)
            await session.close()
        assert [change async for change in messages] == [
            QueueChanged("queued", nothing, 1),
            QueueChanged("queued", nothing, 2),
            QueueChanged("started", nothing, 1),
            QueueChanged("started", nothing, 0),
            QueueChanged("queued", nothing, 1),
            QueueChanged("dropped", nothing, 0),
        ]

"""The inbox's storage: what was put is pending until it is marked."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession.errors import UsageError
from mobysession.state.inbox import InboxMessage, InboxStorage
from mobysession.state.store import open_store


async def test_messages_are_pending_until_they_are_marked():
    """Oldest first, each for its parent only, with its sender; marking again changes nothing."""
    async with open_store() as store:
        inbox = InboxStorage(store)
        first = await inbox.put("p", {"n": [1, None]}, sender="child")
        second = await inbox.put("p", "two")
        await inbox.put("other", "three")
        pending = await inbox.pending("p")
        assert pending == [
            InboxMessage(
                id=first, parent_session_id="p", message={"n": [1, None]}, created=pending[0].created, sender="child"
            ),
            InboxMessage(id=second, parent_session_id="p", message="two", created=pending[1].created),
        ]
        await inbox.mark(first)
        await inbox.mark(first)
        assert [message.id for message in await inbox.pending("p")] == [second]
        await inbox.mark(first, second)
        await inbox.mark()
        assert await inbox.pending("p") == []


async def test_a_message_is_durable_when_it_is_put():
    """Another store has it at once."""
    async with open_store() as one, open_store() as two:
        await InboxStorage(one).put("p", 1)
        assert [message.message for message in await InboxStorage(two).pending("p")] == [1]


async def test_who_waits_gets_what_comes(autojump_clock):
    """`wait` returns what is pending, or waits for it; messages for others do not wake it for good."""
    async with open_store() as one, open_store() as two, trio.open_nursery() as nursery:
        heard: list[Any] = []
        done = trio.Event()

        async def wait():
            heard.extend(await InboxStorage(one).wait("p"))
            done.set()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await InboxStorage(two).put("other", 1)
        await InboxStorage(two).put("p", 2)
        await done.wait()
        assert [message.message for message in heard] == [2]
        assert [message.message for message in await InboxStorage(one).wait("p")] == [2]


async def test_processed_messages_go_after_a_while(monkeypatch):
    """They are kept for the time that is set, and taken away when something new is put; pending ones stay for ever."""
    async with open_store() as store:
        inbox = InboxStorage(store)
        await inbox.put("p", "kept")
        await inbox.mark(await inbox.put("p", "processed"))
        count = "SELECT count(*) FROM inbox"
        assert await store.run(lambda connection: connection.execute(count).fetchone()) == (2,)
        later = time.time() + limits.INBOX_KEPT + 1
        monkeypatch.setattr(time, "time", lambda: later)
        await inbox.put("p", "new")
        assert [message.message for message in await inbox.pending("p")] == ["kept", "new"]
        assert await store.run(lambda connection: connection.execute(count).fetchone()) == (2,)


@pytest.mark.parametrize("message", [object(), math.nan, "x" * (1024 * 1024 - 1)])
async def test_what_is_no_message_is_refused(message):
    """Only JSON, and only up to the bound."""
    async with open_store() as store:
        with pytest.raises(UsageError, match="a message of an inbox"):
            await InboxStorage(store).put("p", message)
        await InboxStorage(store).put("p", "x" * (1024 * 1024 - 2))


async def test_what_is_no_id_is_refused():
    """Half a character is none: neither whose message it is, nor who sent it, nor whose are asked for."""
    async with open_store() as store:
        inbox = InboxStorage(store)
        for wrong in (inbox.put("\ud800", 1), inbox.put("p", 1, sender="\ud800"), inbox.pending("\ud800")):
            with pytest.raises(UsageError, match="a session ID is a text"):
                await wrong

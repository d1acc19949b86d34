"""`State`: an observable mapping with a name, that is remembered."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import trio
import trio.testing

from mobysession.errors import StateError, UsageError
from mobysession.state.state import REMOVED, State, StateChange
from mobysession.state.store import open_store


async def stored(name, initial=None):
    """Return the values of a state, as somebody sees them who opens it anew."""
    async with State(name, initial) as state:
        return state.get()


async def test_what_was_set_is_there_tomorrow():
    """A state that is opened again has what was set before, and the same ID."""
    async with State("s") as state:
        state.set({"a": 1, "b": [{"c": None}]})
        first = state.id
    async with State("s") as state:
        assert state.get() == {"a": 1, "b": [{"c": None}]}
        assert state.id == first


async def test_states_of_different_names_are_different():
    """What is set in one state does not show in another, and their IDs differ."""
    async with open_store() as store, store.state("one") as one, store.state("two") as two:
        one.set({"a": 1})
        await one.flush()
        assert (two.get(), one.id == two.id) == ({}, False)


async def test_memory_changes_at_once():
    """Values, keys and subscribers know before `set` returns, long before anything is written."""
    async with State("s", {"a": 0}) as state:
        heard: list[Any] = []
        state.on(heard.append)
        state.set({"b": 1})
        assert (state.get(), state.keys) == ({"a": 0, "b": 1}, ("a", "b"))
        assert heard == [StateChange(name="s", values={"b": 1})]


async def test_defaults_are_not_stored():
    """An initial value counts while nothing is stored, for who has it; another process may have another one."""
    async with State("s", {"a": 1}) as state:
        state.set({"b": 2})
    assert await stored("s") == {"b": 2}
    assert await stored("s", {"a": 5, "b": 5}) == {"a": 5, "b": 2}


async def test_ready_inside_of_the_block():
    """A state is not ready before it is opened; what was set before that is written when it is."""
    state = State("s")
    state.set({"early": True})
    assert (state.ready, state.get()) == (False, {"early": True})
    with pytest.raises(UsageError, match="is not open"):
        await state.flush()
    async with state:
        assert state.ready
    assert await stored("s") == {"early": True}


async def test_a_state_is_opened_once():
    """A second `async with` is refused, also after the first has ended."""
    async with State("s") as state:
        with pytest.raises(UsageError, match="was opened already"):
            await state.__aenter__()
    with pytest.raises(UsageError, match="was opened already"):
        await state.__aenter__()


def test_a_state_has_a_name():
    """An empty name is refused, and one that no database can hold."""
    with pytest.raises(UsageError, match="a state has a name"):
        State("")
    with pytest.raises(UsageError, match="the name of a state is a text"):
        State("\ud800")


async def test_values_are_nobody_elses():
    """What was given and what is handed out can be changed without changing the state."""
    async with State("s") as state:
        given = {"list": [1]}
        state.set(given)
        given["list"].append(2)
        state.get()["list"].append(3)
        state.key("list").value.append(4)
        assert state.get() == {"list": [1]}


async def test_a_function_gets_all_values():
    """`set` calls a function with what there is, defaults included, and takes what it returns."""
    async with State("s", {"n": 1}) as state:
        state.set(lambda values: {"n": values["n"] + 1, "seen": sorted(values)})
        state.set(lambda values: {"n": values["n"] + 1})
        assert state.get() == {"n": 3, "seen": ["n"]}
    assert await stored("s") == {"n": 3, "seen": ["n"]}


async def test_functions_of_two_states_add_up():
    """A function is taken over what is stored when it is written, so that no step is lost."""
    async with open_store() as one, open_store() as two, one.state("s") as here, two.state("s") as there:
        for state in (here, there, here):
            state.set(lambda values: {"n": values.get("n", 0) + 1})
        assert (here.get(), there.get()) == ({"n": 2}, {"n": 1})
        await there.flush()
        await here.flush()
        assert here.get() == {"n": 3}


async def test_a_function_that_raises_changes_nothing():
    """What a function raises, `set` raises, and all is as before."""
    async with State("s", {"a": 1}) as state:
        with pytest.raises(KeyError):
            state.set(lambda values: {"a": values["none"]})
        assert state.get() == {"a": 1}


async def test_a_function_that_fails_over_what_another_stored(caplog):
    """Its step is dropped, memory shows what is stored, `flush` says so, and other steps are written."""
    async with open_store() as one, open_store() as two, one.state("s") as here, two.state("s") as there:
        here.set({"a": 1})
        await here.flush()
        await there.flush()
        here.set({"a": REMOVED})
        await here.flush()
        there.set(lambda values: {"a": values["a"] + 1})
        there.set({"b": 1})
        with pytest.raises(StateError, match="over what another process had stored: KeyError"):
            await there.flush()
        assert there.get() == {"b": 1}
        await there.flush()
    assert await stored("s") == {"b": 1}
    assert "failed over what another process" in caplog.text


async def test_removed_keys_are_gone():
    """A key set to `REMOVED` is gone, in memory, in the store, and where it has a default."""
    async with State("s", {"default": 1}) as state:
        state.set({"a": 1, "b": 2})
        await state.flush()
        state.set({"a": REMOVED, "default": REMOVED, "never": REMOVED})
        assert state.get() == {"b": 2}
    assert await stored("s", {"default": 1}) == {"b": 2}


async def test_reset_goes_back_to_the_defaults():
    """`reset` takes away all that was set, here and in the store, also for one object alone."""
    async with State("s", {"a": 0}) as state:
        state.set({"a": 1, "b": 2})
        state.set({"c": 3}, sync=False)
        heard: list[Any] = []
        state.on(heard.append)
        state.reset()
        assert state.get() == {"a": 0}
        assert heard == [StateChange(name="s", values={"a": 0, "b": None, "c": None})]
    assert await stored("s") == {}


async def test_without_sync_it_is_for_this_object_alone():
    """`sync=False` changes memory and tells subscribers, is never written, and hides what is stored until it is set."""
    async with open_store() as store, store.state("s") as here, store.state("s") as there:
        heard: list[Any] = []
        here.on(heard.append)
        here.set({"a": 1}, sync=False)
        await here.flush()
        assert (here.get(), there.get()) == ({"a": 1}, {})
        there.set({"a": 2})
        await there.flush()
        assert (here.get(), there.get()) == ({"a": 1}, {"a": 2})
        here.set({"a": 3})
        await here.flush()
        assert (here.get(), there.get()) == ({"a": 3}, {"a": 3})
        assert [change.values for change in heard] == [{"a": 1}, {"a": 3}]


async def test_a_function_sees_what_is_only_here():
    """A function whose result is stored is called with what was set without sync, then and when it is written."""
    async with State("s") as state:
        state.set({"factor": 3}, sync=False)
        state.set(lambda values: {"n": values["factor"]})
    assert await stored("s") == {"n": 3}


async def test_subscribers_are_told_of_what_changes_only():
    """Setting what is there already tells nobody; JSON decides what is the same."""
    async with State("s", {"a": 1}) as state:
        heard: list[Any] = []
        state.on(heard.append)
        state.set({"a": 1})
        state.set({"a": True})
        state.set({"a": True, "b": (1, 2)})
        assert [change.values for change in heard] == [{"a": True}, {"b": [1, 2]}]


async def test_changes_of_others_are_told():
    """A subscriber hears of what another object of the same state stored, and that it was elsewhere."""
    async with open_store() as one, open_store() as two, one.state("s") as here, two.state("s") as there:
        heard: list[Any] = []
        here.on(heard.append)
        there.set({"a": 1})
        await there.flush()
        await here.flush()
        assert heard == [StateChange(name="s", values={"a": 1}, elsewhere=True)]


async def test_changes_of_others_are_told_without_asking(autojump_clock):
    """The worker looks by itself whether another process has written."""
    async with open_store() as one, open_store() as two, one.state("s") as here, two.state("s") as there:
        told = trio.Event()
        here.on(lambda change: told.set())
        there.set({"a": 1})
        await there.flush()
        await told.wait()
        assert here.get() == {"a": 1}


async def test_two_states_in_one_store_see_each_other(autojump_clock):
    """Two objects of one name in one store are told of each other's changes as soon as these are written."""
    async with open_store() as store, store.state("s") as here, store.state("s") as there:
        told = trio.Event()
        here.on(lambda change: told.set())
        there.set({"a": 1})
        await told.wait()
        assert here.get() == {"a": 1}


async def test_unsubscribing():
    """Who has unsubscribed hears nothing more, not even of the change that is being told; again is harmless."""
    async with State("s") as state:
        heard: list[Any] = []
        ends: list[Any] = []
        state.on(lambda change: ends[0]())
        ends.append(state.on(heard.append))
        state.set({"a": 1})
        ends[0]()
        assert heard == []


async def test_use_runs_them_all_once():
    """`use` gives one function for several; disposing of the state calls what was not called."""
    async with State("s") as state:
        ran = []
        both = state.use(lambda: ran.append(1), lambda: ran.append(2))
        both()
        both()
        assert state._used == []
        state.use(lambda: ran.append(3))
        assert ran == [1, 2]
    assert ran == [1, 2, 3]


async def test_a_signal_is_one_key():
    """A signal has the value of its key, None where there is none, and tells of changes of that key alone."""
    async with State("s", {"a": 1}) as state:
        signal = state.key("a")
        heard: list[Any] = []
        end = signal.on(heard.append)
        state.set({"b": 1})
        state.set({"a": 2})
        state.set({"a": REMOVED})
        end()
        state.set({"a": 3})
        assert (heard, signal.value, state.key("none").value) == ([2, None], 3, None)


async def test_a_subscriber_that_raises_harms_nobody(caplog):
    """It is logged, by its kind alone; the others are told and the value is set."""
    async with State("s") as state:
        heard: list[Any] = []
        state.on(lambda change: 1 / 0)  # type: ignore[arg-type]  # what it returns nobody gets
        state.on(heard.append)
        with caplog.at_level(logging.WARNING):
            state.set({"a": 1})
        assert len(heard) == 1
        assert caplog.messages == ["a subscriber of state s failed with ZeroDivisionError"]


async def test_a_subscriber_may_set():
    """What a subscriber sets is told after everybody has been told what came before."""
    async with State("s") as state:
        heard: list[Any] = []

        def follow(change):
            if "a" in change.values:
                state.set({"b": change.values["a"] * 2})

        state.on(follow)
        state.on(lambda change: heard.append(change.values))
        state.set({"a": 2})
        assert heard == [{"a": 2}, {"b": 4}]


async def test_after_dispose_nothing_is_set():
    """A disposed state tells nobody and takes nothing; what was set before is written all the same."""
    async with open_store() as store:
        async with store.state("s") as state:
            heard: list[Any] = []
            state.on(heard.append)
            state.set({"a": 1})
            state.dispose()
            state.dispose()
            for change in (lambda: state.set({"a": 2}), state.reset):
                with pytest.raises(UsageError, match="disposed"):
                    change()
        assert len(heard) == 1
    assert await stored("s") == {"a": 1}


async def test_disposing_while_it_is_written_counts_once():
    """A step that is being written when the state is disposed of is not taken a second time."""
    async with open_store() as store:
        state = store.state("s")
        async with state, trio.open_nursery() as nursery:
            state.set(lambda values: {"n": values.get("n", 0) + 1})
            nursery.start_soon(state.flush)
            await trio.testing.wait_all_tasks_blocked()
            state.dispose()
    assert await stored("s") == {"n": 1}


async def test_what_is_set_while_another_change_is_written():
    """It stays in memory when the earlier change has been written, and nobody is told that it went."""
    async with State("s") as state:
        heard: list[Any] = []
        state.on(lambda change: heard.append(change.values))
        async with trio.open_nursery() as nursery:
            state.set({"a": 1})
            nursery.start_soon(state.flush)
            await trio.testing.wait_all_tasks_blocked()
            state.set({"b": 1})
        assert heard == [{"a": 1}, {"b": 1}]
    assert await stored("s") == {"a": 1, "b": 1}


async def test_leaving_with_an_error_writes_too():
    """What was set before the block failed is remembered, and the block's own error is raised."""

    async def fail():
        async with State("s") as state:
            state.set({"a": 1})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await stored("s") == {"a": 1}


async def test_leaving_cancelled_writes_too():
    """Cancelling the block loses nothing that was set."""
    with trio.CancelScope() as scope:
        async with State("s") as state:
            state.set({"a": 1})
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert await stored("s") == {"a": 1}


@pytest.mark.parametrize(
    ("update", "reason"),
    [
        ({"a": object()}, "not JSON serializable"),
        ({"a": math.nan}, "not JSON compliant"),
        ({"a": {1, 2}}, "not JSON serializable"),
        ({5: 1}, "a key of a state is a text"),
        ({"\ud800": 1}, "a key of a state is a text"),
        (lambda values: {"\ud800": 1}, "a key of a state is a text"),
        ({"a": "x" * (1024 * 1024 - 1)}, "bytes as JSON"),
        (lambda values: {"a": b""}, "not JSON serializable"),
    ],
)
async def test_only_json_is_taken(update, reason):
    """A value that could not be read back as it was is refused, and nothing changes."""
    async with State("s") as state:
        with pytest.raises(UsageError, match=reason):
            state.set(update)
        assert state.get() == {}


async def test_the_largest_value_is_taken():
    """A value of exactly the bound is remembered."""
    text = "x" * (1024 * 1024 - 2)
    async with State("s") as state:
        state.set({"a": text})
    assert await stored("s") == {"a": text}


async def test_a_cycle_is_refused():
    """A list that holds itself is no JSON."""
    loop: list[object] = []
    loop.append(loop)
    async with State("s") as state:
        with pytest.raises(UsageError, match="cannot be remembered"):
            state.set({"a": loop})

"""Any order of operations on several objects of one state, against a model of plain dictionaries."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobysession.state.state import REMOVED, State
from mobysession.state.store import open_store

KEYS = st.sampled_from(["a", "b", "n"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
WHO = st.integers(0, 1)
OPERATIONS = st.one_of(
    st.tuples(st.just("set"), WHO, st.dictionaries(KEYS, JSON | st.just(REMOVED), max_size=3)),
    st.tuples(st.just("own"), WHO, st.dictionaries(KEYS, JSON, max_size=2)),
    st.tuples(st.just("count"), WHO, st.just(None)),
    st.tuples(st.just("reset"), WHO, st.just(None)),
    st.tuples(st.just("flush"), WHO, st.just(None)),
)
INITIAL = {"a": "default"}


class Model:
    """What one object of the state should show: a list of changes that are not stored yet, over what is."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}
        self.unwritten: list[Any] = []
        self.own: dict[str, Any] = {}

    def values(self) -> dict[str, Any]:
        stored = dict(self.seen)
        for change in self.unwritten:
            change(stored)
        together = {**INITIAL, **stored, **self.own}
        return {key: value for key, value in together.items() if value is not REMOVED}

    def change(self, change: Any) -> None:
        self.unwritten.append(change)


def counted(values: dict[str, Any]) -> dict[str, Any]:
    number = values.get("n", 0)
    return {"n": number + 1 if type(number) is int else 0}


def shown(values: dict[str, Any]) -> str:
    return repr(sorted(values.items()))


def replay(seen: dict[str, Any], changes: list[Any]) -> None:
    """Follow a subscriber's reports."""
    for change in changes:
        seen.update(change.values)
    changes.clear()


async def perform(operations: list[tuple[str, int, Any]]) -> None:
    shared: dict[str, Any] = {}
    models = [Model(), Model()]
    async with open_store(":memory:") as store:
        # The worker would write at moments of its own choice; only a flush does here.
        store.wake = lambda: None  # type: ignore[method-assign]  # of this one alone
        states = [State("s", INITIAL, store=store) for _ in models]
        async with states[0], states[1]:
            followed: list[dict[str, Any]] = [dict(INITIAL), dict(INITIAL)]
            heard: list[list[Any]] = [[], []]
            for state, changes in zip(states, heard, strict=True):
                state.on(changes.append)
            for what, who, argument in operations:
                state, model = states[who], models[who]
                if what == "set":
                    state.set(argument)
                    for key in argument:
                        model.own.pop(key, None)
                    model.change(lambda stored, update=argument: assign(stored, update))
                elif what == "own":
                    state.set(argument, sync=False)
                    model.own.update(argument)
                elif what == "count":
                    own = dict(model.own)
                    state.set(counted)
                    model.own.pop("n", None)
                    model.change(lambda stored, own=own: count_over(stored, own))
                elif what == "reset":
                    state.reset()
                    model.own.clear()
                    model.change(dict.clear)
                else:
                    # One transaction for the whole store: in the order of the states.
                    await state.flush()
                    for one in models:
                        for change in one.unwritten:
                            change(shared)
                        one.unwritten.clear()
                    for one in models:
                        one.seen = dict(shared)
                for each, expected, changes, following in zip(states, models, heard, followed, strict=True):
                    assert shown(each.get()) == shown(expected.values())
                    assert each.keys == tuple(sorted(expected.values()))
                    replay(following, changes)
                    visible = {key: following.get(key) for key in {*following, *each.get()}}
                    assert shown(visible) == shown({key: each.get().get(key) for key in visible})


def assign(stored: dict[str, Any], update: dict[str, Any]) -> None:
    for key, value in update.items():
        if value is REMOVED and key not in INITIAL:
            stored.pop(key, None)
        else:
            stored[key] = value


def count_over(stored: dict[str, Any], own: dict[str, Any]) -> None:
    visible = {key: value for key, value in {**INITIAL, **stored, **own}.items() if value is not REMOVED}
    stored.update(counted(visible))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OPERATIONS, max_size=12))
def test_any_order_of_operations(operations):
    """Two objects show what the model shows after each step, and so does a subscriber who adds up what it heard."""
    trio.run(perform, operations)

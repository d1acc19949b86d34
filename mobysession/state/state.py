"""An observable, persistent mapping with a name, shared by all processes that open a state of that name.

What a process sees is laid together from four things, the later ones over the earlier: the defaults it was opened
with; what is stored, as last seen; what it has set since, which is not stored yet, as a list of steps; and what it set
for itself alone (``sync=False``). When the worker gets to it, it takes the steps over what is stored *then*, which may
be another process's; so that a step which is a function (``set(lambda values: {"n": values["n"] + 1})``) counts right
however many processes take it at once. That is why such a function may be called more than once, and in a thread.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mobysession.errors import StateError, UsageError
from mobysession.identity import new_id
from mobysession.state.steps import REMOVED, Step, Write, plain, same, storable, visible
from mobysession.state.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from mobysession.state.steps import Outcome, Update

__all__ = ["REMOVED", "Signal", "State", "StateChange", "Unsubscribe"]

_log = logging.getLogger("mobysession.state")

Unsubscribe: TypeAlias = "Callable[[], None]"


@dataclass(frozen=True, kw_only=True)
class StateChange:
    """What a subscriber is told.

    Attributes:
        name: of the state.
        values: the keys that have changed, with their new values; None for one that is gone.
        elsewhere: True where another process, or another `State` of that name, did it.
    """

    name: str
    values: Mapping[str, Any]
    elsewhere: bool = False


class Signal:
    """One key of a state. Made by `State.key`."""

    def __init__(self, state: State, key: str) -> None:
        self._state = state
        self.key = key

    @property
    def value(self) -> Any:
        """Its value, a copy; None where the state has no such key."""
        return copy.deepcopy(self._state._values.get(self.key))

    def on(self, subscriber: Callable[[Any], None]) -> Unsubscribe:
        """Call ``subscriber`` with each new value, in the loop; return what ends that."""

        def tell(change: StateChange) -> None:
            if self.key in change.values:
                subscriber(change.values[self.key])

        return self._state.on(tell)


class State:
    """A mapping of names to JSON values that is remembered.

    ::

        async with State("defaults", {"platform": "linux/amd64"}) as state:
            state.on(lambda change: print(change.values))
            state.set({"platform": "linux/arm64"})

    Args:
        name: what it is remembered under.
        initial: what a key has while nothing is stored for it; not stored itself.
        store: where it is; None: one of its own, on `mobysession.state.location.state_path`.
    """

    def __init__(self, name: str, initial: Mapping[str, object] | None = None, *, store: Store | None = None) -> None:
        if not name:
            raise UsageError("a state has a name, under which it is remembered")
        self.name = storable(name, "the name of a state")
        self._id = new_id()
        self._initial = plain(initial or {})
        self._stored: dict[str, Any] = {}
        self._steps: list[Step] = []
        #: What is stored with the steps over it.
        self._folded: dict[str, Any] = {}
        self._own: dict[str, Any] = {}
        self._values = dict(self._initial)
        self._subscribers: dict[object, Callable[[StateChange], None]] = {}
        self._used: list[Unsubscribe] = []
        self._untold: deque[StateChange] = deque()
        self._telling = False
        self._store = store
        self._stack = AsyncExitStack()
        self._ready = False
        self._disposed = False

    # -- scope ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Read what is stored; StateError where that is impossible."""
        if self._ready or self._disposed:
            raise UsageError(f"state {self.name!r} was opened already")
        try:
            if self._store is None:
                self._store = await self._stack.enter_async_context(open_store())
            await self._store.add(self)
        except BaseException:
            await self._stack.aclose()
            raise
        self._ready = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Write what is not written yet, and dispose of this object."""
        store = self._store
        assert store is not None  # it was entered
        failed = True
        try:
            if not self._disposed and error is None:
                await store.flush()
            failed = False
        finally:
            self.dispose()
            if failed:
                await self._stack.aclose()
        return await self._stack.__aexit__(kind, error, traceback)

    @property
    def id(self) -> str:
        """The ID of what is remembered under the name: from the time it is ready on, the same in every process."""
        return self._id

    @property
    def ready(self) -> bool:
        """True once what is stored has been read, which it is inside of ``async with``."""
        return self._ready

    async def flush(self) -> None:
        """Wait until all that was set before is on the disk, and what other processes set is known here.

        Raises:
            StateError: it cannot be written, and is tried again; or a function failed over what another process had
                stored, and its step is dropped.
        """
        await self._opened().flush()

    def dispose(self) -> None:
        """End this object, not what is remembered: nobody is told anything any more, and nothing can be set.

        What was set before is still written, at the latest when the store is closed. Doing it again does nothing.
        """
        if self._disposed:
            return
        self._disposed = True
        used, self._used = self._used, []
        for unsubscribe in used:
            unsubscribe()
        self._subscribers.clear()
        if self._ready:
            self._opened().remove(self)

    def _opened(self) -> Store:
        if not self._ready or self._store is None:
            raise UsageError(f"state {self.name!r} is not open: use it inside of `async with`")
        return self._store

    # -- values --------------------------------------------------------------------------------------------------------

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that have a value, sorted."""
        return tuple(sorted(self._values))

    def get(self) -> dict[str, Any]:
        """Return all values: a copy, which is the caller's."""
        return copy.deepcopy(self._values)

    def set(self, update: Update, sync: bool = True) -> None:
        """Change some keys, at once; subscribers are told before this returns, and the store is written soon.

        Args:
            update: the keys that change with their new values, `REMOVED` to take one away; or a function that gets all
                values and returns that. It may be called again, in a thread, when another process has changed them,
                and should do nothing but return.
            sync: False: for this object alone; until it is set otherwise, or reset, it hides what is stored.

        Raises:
            UsageError: a key is no text, a value is none that JSON has, or larger than `limits.MAX_STATE_VALUE`; or the
                state has been disposed of.
        """
        if self._disposed:
            raise UsageError(f"state {self.name!r} has been disposed of")
        step = Step(update, self._initial, dict(self._own))
        changed = step.values_over(self._folded)
        if sync:
            for key in changed:
                self._own.pop(key, None)
            Step(changed, self._initial, {}).apply(self._folded)
            self._append(step)
        else:
            self._own.update(changed)
            self._recompute()

    def reset(self) -> None:
        """Go back to the defaults, for all processes; UsageError when it has been disposed of."""
        if self._disposed:
            raise UsageError(f"state {self.name!r} has been disposed of")
        self._own.clear()
        self._folded.clear()
        self._append(Step(None, self._initial, {}))

    def _append(self, step: Step) -> None:
        self._steps.append(step)
        if self._ready and self._store is not None:
            self._store.wake()
        self._recompute()

    def key(self, name: str) -> Signal:
        """Return one key, as something to look at and to subscribe to, whether it has a value or not."""
        return Signal(self, name)

    # -- subscribers ---------------------------------------------------------------------------------------------------

    def on(self, subscriber: Callable[[StateChange], None]) -> Unsubscribe:
        """Call ``subscriber`` with every change, in the loop; it must not wait. Return what ends that.

        One that raises is logged, and the others are told all the same. One that sets something itself is told of that
        after everybody has been told of what came before.
        """
        token = object()
        self._subscribers[token] = subscriber

        def unsubscribe() -> None:
            self._subscribers.pop(token, None)

        return unsubscribe

    def use(self, *unsubscribes: Unsubscribe) -> Unsubscribe:
        """Return one function that calls all of these, once; `dispose` does it at the latest."""
        left = list(unsubscribes)

        def unsubscribe() -> None:
            if unsubscribe in self._used:
                self._used.remove(unsubscribe)
            while left:
                left.pop(0)()

        self._used.append(unsubscribe)
        return unsubscribe

    def _recompute(self, *, elsewhere: bool = False) -> None:
        before = self._values
        self._values = visible(self._initial, self._folded, self._own)
        keys = [key for key in {**before, **self._values} if not same(before, self._values, key)]
        if keys:
            values = {key: copy.deepcopy(self._values.get(key)) for key in sorted(keys)}
            self._untold.append(StateChange(name=self.name, values=values, elsewhere=elsewhere))
            self._tell()

    def _tell(self) -> None:
        if self._telling:
            return
        self._telling = True
        try:
            while self._untold:
                change = self._untold.popleft()
                for token, subscriber in list(self._subscribers.items()):
                    if token in self._subscribers:
                        _call(subscriber, change)
        finally:
            self._telling = False

    # -- the store -----------------------------------------------------------------------------------------------------

    def next_job(self) -> Write | None:
        """Return what the store's worker is to write for this state; None where there is nothing."""
        return Write(self.name, self._id, tuple(self._steps), self._written) if self._steps else None

    def look(self) -> Write:
        """Return what reads what is stored."""
        return Write(self.name, self._id, (), self._written)

    def _written(self, steps: int, outcome: Outcome) -> None:
        """Take what is stored now, with the first ``steps`` steps in it."""
        del self._steps[:steps]
        self._id = outcome.id
        elsewhere = outcome.found != self._stored
        self._stored = outcome.stored
        self._fold()
        for error in outcome.failures:
            self._drop(error)
        self._recompute(elsewhere=elsewhere)

    def _fold(self) -> None:
        self._folded = dict(self._stored)
        steps, self._steps = self._steps, []
        for step in steps:
            try:
                step.apply(self._folded)
                self._steps.append(step)
            except Exception as error:
                self._drop(error)

    def _drop(self, error: Exception) -> None:
        _log.warning("a step of state %s failed over what another process had stored: %r", self.name, error)
        failure = StateError(f"a change of state {self.name!r} failed over what another process had stored: {error!r}")
        failure.__cause__ = error
        if self._store is not None:
            self._store.fail(failure)


def _call(subscriber: Callable[[StateChange], None], change: StateChange) -> None:
    try:
        subscriber(change)
    except Exception as error:
        _log.warning("a subscriber of state %s failed with %s", change.name, type(error).__name__)
        _log.debug("it failed", exc_info=error)

"""What changes a state: steps that can be taken over whatever is stored, and the worker's job that takes them."""

from __future__ import annotations

import copy
import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mobysession import limits
from mobysession.errors import StateCorrupt, UsageError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

__all__ = ["REMOVED", "Outcome", "Step", "Update", "Write", "plain", "same", "storable", "stored_values", "visible"]

#: What is given to `State.set`: some keys with their values, or a function from all values to that.
Update: TypeAlias = "Mapping[str, object] | Callable[[dict[str, Any]], Mapping[str, object]]"


class _Removed:
    def __repr__(self) -> str:
        return "REMOVED"

    def __deepcopy__(self, memo: object) -> _Removed:
        return self


#: As a value in `State.set`: takes the key away.
REMOVED: Final = _Removed()


class Step:
    """One change, which can be made over whatever is stored."""

    def __init__(self, update: Update | None, initial: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        #: None: a reset. What was given is the caller's, and may change.
        self._update = update if update is None or callable(update) else plain(update)
        self._initial = initial
        self._own = own

    def values_over(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return what it sets."""
        if callable(self._update):
            return plain(self._update(copy.deepcopy(visible(self._initial, stored, self._own))))
        return self._update or {}

    def apply(self, stored: dict[str, Any]) -> None:
        """Change what is stored."""
        if self._update is None:
            stored.clear()
            return
        for key, value in self.values_over(stored).items():
            if value is REMOVED and key not in self._initial:
                stored.pop(key, None)
            else:
                stored[key] = value


class Outcome:
    """What was found stored, what is stored now, and which steps failed."""

    def __init__(self, state_id: str, found: dict[str, Any]) -> None:
        self.id = state_id
        self.found = found
        self.stored = dict(found)
        self.failures: list[Exception] = []


class Write:
    """The worker's job: to take steps over what is stored, or only to look.

    Args:
        name: of the state.
        state_id: the ID that it gets where nothing is stored of it.
        steps: what to do.
        written: called in the loop with how many steps were taken, and what came of them.
    """

    def __init__(
        self, name: str, state_id: str, steps: tuple[Step, ...], written: Callable[[int, Outcome], None]
    ) -> None:
        self._name = name
        self._state_id = state_id
        self._steps = steps
        self._written = written
        self.writes = bool(steps)

    def run(self, connection: sqlite3.Connection) -> Outcome:
        """Take the steps; one that fails is left out, and its failure told."""
        name = self._name
        row = connection.execute("SELECT id FROM states WHERE name = ?", (name,)).fetchone()
        if row is None and self.writes:
            row = (self._state_id,)
            connection.execute("INSERT INTO states VALUES (?, ?, ?)", (name, *row, time.time()))
        outcome = Outcome(row[0] if row else self._state_id, stored_values(connection, name))
        for step in self._steps:
            try:
                step.apply(outcome.stored)
            except Exception as error:
                outcome.failures.append(error)
        self._store(connection, name, outcome)
        return outcome

    def _store(self, connection: sqlite3.Connection, name: str, outcome: Outcome) -> None:
        found, stored = outcome.found, outcome.stored
        changed = [key for key in stored if not same(found, stored, key)]
        connection.executemany(
            "INSERT OR REPLACE INTO state_values VALUES (?, ?, ?)",
            [(name, key, None if stored[key] is REMOVED else json.dumps(stored[key])) for key in changed],
        )
        connection.executemany(
            "DELETE FROM state_values WHERE state = ? AND key = ?", [(name, key) for key in found if key not in stored]
        )

    def done(self, result: object) -> None:
        """Hand the outcome on."""
        assert isinstance(result, Outcome)
        self._written(len(self._steps), result)

    def failed(self, error: Exception) -> None:
        """Never called."""
        raise AssertionError("what fails in `run` is the store itself") from error


def stored_values(connection: sqlite3.Connection, name: str) -> dict[str, Any]:
    """Return what is stored for a state, `REMOVED` for a default that was taken away; StateCorrupt: it is no JSON."""
    rows = connection.execute("SELECT key, value FROM state_values WHERE state = ?", (name,))
    try:
        return {key: REMOVED if value is None else json.loads(value) for key, value in rows}
    except (ValueError, TypeError, RecursionError) as error:
        raise StateCorrupt(
            f"what is stored of state {name!r} cannot be read", hint="Somebody else wrote it."
        ) from error


def visible(initial: Mapping[str, Any], stored: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is seen of a state: each over the one before it, without what was taken away."""
    together = {**initial, **stored, **own}
    return {key: value for key, value in together.items() if value is not REMOVED}


def same(first: Mapping[str, Any], second: Mapping[str, Any], key: str) -> bool:
    """Say whether two mappings have the same for a key, or both nothing."""
    if key not in first or key not in second:
        return key not in first and key not in second
    # By their JSON: 1, 1.0 and True are equal in Python, and not to whoever reads them.
    return first[key] is second[key] or _text(first[key]) == _text(second[key])


def _text(value: object) -> str | None:
    return None if value is REMOVED else json.dumps(value, sort_keys=True)


def plain(values: Mapping[str, object]) -> dict[str, Any]:
    """Return the values as they come back from the store; UsageError where they cannot."""
    found = {}
    for key, value in values.items():
        found[storable(key, "a key of a state")] = REMOVED if value is REMOVED else _plain_value(key, value)
    return found


def storable(text: object, what: str) -> str:
    """Return a text that the database can hold; UsageError where it is none, or has half a character in it."""
    if isinstance(text, str):
        # Characters of UTF-16's, or bytes of a file name that are no text.
        with suppress(UnicodeEncodeError):
            text.encode()
            return text
    raise UsageError(f"{what} is a text, and {text!r} is none")


def _plain_value(key: str, value: object) -> Any:
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"the value of {key!r} cannot be remembered: {error}", hint="JSON has no such thing."
        ) from error
    if len(text) > limits.MAX_STATE_VALUE:
        raise UsageError(
            f"the value of {key!r} has {len(text)} bytes as JSON; {limits.MAX_STATE_VALUE} can be remembered"
        )
    return json.loads(text)

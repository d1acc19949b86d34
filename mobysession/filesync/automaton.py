"""Matching in linear time: many expressions of the pattern compiler as one automaton.

The patterns come from the other side or from an ignore file of somebody else, and a backtracking engine takes time
that grows with a power of the path's length, one for each ``*``. Here all states that a prefix of the path can lead to
are followed at once, as bits of one number. The sets that occur are few, so each is kept with the set that follows it
for a character, and a path costs one look-up for each of its characters.

Only what globs are made of is understood: characters, classes, ``[^/]*``, ``(.*/)?`` and ``.*`` between ``^`` and
``$``. `program` says no to the rest.

Source: the construction of states is Thompson's (Regular Expression Search Algorithm, 1968).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from mobysession.filesync.goregexp import class_end, to_python

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Automaton", "Step", "program"]

#: Transitions kept before all are forgotten, and bits in the sets they lead to: 16 MiB.
_MAX_KEPT: Final = 20_000
_MAX_KEPT_BITS: Final = 1 << 27
_DEEP: Final = "(.*/)?"
_ANY: Final = "."
#: Escaped letters that match no character but a place.
_PLACES: Final = frozenset("AbBz")
_COUNT: Final = r"\{\d+(?:,\d*)?\}"


class Step(NamedTuple):
    """One item of an expression.

    Attributes:
        accepts: what it matches: one character as such, or in brackets or escaped an expression for one.
        repeated: any number of times.
        optional_deep: this is ``(.*/)?`` as a whole.
    """

    accepts: str
    repeated: bool = False
    optional_deep: bool = False


def program(expression: str) -> list[Step] | None:
    """Return an expression of the pattern compiler as steps; None when it has other operators.

    Raises:
        re.error: Go's compiler refuses it.
    """
    if not (expression.startswith("^") and expression.endswith("$")):
        return None
    steps: list[Step] = []
    at, end = 1, len(expression) - 1
    while at < end:
        char = expression[at]
        if expression.startswith(_DEEP, at):
            steps.append(Step(_ANY, optional_deep=True))
            at += len(_DEEP)
            continue
        if char in "|^$*" or (char == "{" and re.compile(_COUNT).match(expression, at)):
            return None
        after = _item_end(expression, at)
        item = expression[at:after]
        # Escapes of more than one character, as of octal numbers, are not worth being known here.
        if char == "\\" and (item[1] in _PLACES or item[1].isalnum()):
            return None
        repeated = after < end and expression[after] == "*"
        steps.append(Step(item, repeated))
        at = after + repeated
    return steps if at == end else None


def _item_end(expression: str, at: int) -> int:
    if expression[at] == "[":
        return class_end(expression, at + 1)
    return at + 1 + (expression[at] == "\\")


class Automaton:
    """Tell whether any of several programs matches a whole path. Used by one thread at a time."""

    def __init__(self, programs: Iterable[list[Step]]) -> None:
        #: What a state accepts to go on to the next, or to stay, by text: the bits of those states.
        self._moves: dict[str, int] = {}
        self._stays: dict[str, int] = {}
        #: States from which the next, or the third from here, is reached without a character.
        self._free = self._free_three = 0
        self._ends = self._start_bits = 0
        self._size = 0
        for steps in programs:
            self._add(steps)
        self._tests = {text: _test(text) for text in {*self._moves, *self._stays}}
        self._masks: dict[str, tuple[int, int]] = {}
        self._sets: dict[int, _Set] = {}
        self._kept = 0
        self._most = min(_MAX_KEPT, _MAX_KEPT_BITS // (self._size + 1) + 1)
        self._start = self._set(self._close(self._start_bits))

    def match(self, path: str) -> bool:
        """Match one path."""
        state = self._start
        for char in path:
            state = state[char]
        return state.accepts

    def _add(self, steps: list[Step]) -> None:
        self._start_bits |= 1 << self._size
        for step in steps:
            if step.optional_deep:
                self._free_three |= 1 << self._size
                self._state(free=True)
                self._state(stays=_ANY, free=True)
                self._state(moves="/")
            elif step.repeated:
                self._state(stays=step.accepts, free=True)
            else:
                self._state(moves=step.accepts)
        self._ends |= 1 << self._size
        self._state()

    def _state(self, *, moves: str = "", stays: str = "", free: bool = False) -> None:
        bit = 1 << self._size
        self._size += 1
        if moves:
            self._moves[moves] = self._moves.get(moves, 0) | bit
        if stays:
            self._stays[stays] = self._stays.get(stays, 0) | bit
        if free:
            self._free |= bit

    def _close(self, bits: int) -> int:
        """Add what is reached without a character."""
        while True:
            more = bits | (bits & self._free) << 1 | (bits & self._free_three) << 3
            if more == bits:
                return bits
            bits = more

    def _set(self, bits: int) -> _Set:
        found = self._sets.get(bits)
        if found is None:
            found = self._sets[bits] = _Set(self, bits, bits & self._ends != 0)
        return found

    def after(self, bits: int, char: str) -> _Set:
        """Return the set of states that follows another for a character."""
        if self._kept >= self._most:
            self._forget()
        self._kept += 1
        masks = self._masks.get(char)
        if masks is None:
            masks = self._masks[char] = (self._accepting(self._moves, char), self._accepting(self._stays, char))
        return self._set(self._close((bits & masks[0]) << 1 | bits & masks[1]))

    def _accepting(self, states: dict[str, int], char: str) -> int:
        bits = 0
        for text, those in states.items():
            if self._tests[text].match(char):
                bits |= those
        return bits

    def _forget(self) -> None:
        for known in self._sets.values():
            known.clear()
        self._sets, self._masks, self._kept = {self._start.bits: self._start}, {}, 0


class _Set(dict[str, "_Set"]):
    """A set of states, and by character the one that follows."""

    __slots__ = ("_automaton", "accepts", "bits")

    def __init__(self, automaton: Automaton, bits: int, accepts: bool) -> None:
        super().__init__()
        self._automaton = automaton
        self.bits = bits
        self.accepts = accepts

    def __missing__(self, char: str) -> _Set:
        following = self[char] = self._automaton.after(self.bits, char)
        return following


def _test(text: str) -> re.Pattern[str]:
    return re.compile(to_python(text), re.ASCII)

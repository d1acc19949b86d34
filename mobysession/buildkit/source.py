"""A place in a Dockerfile: its text, the lines meant, and how BuildKit's clients print them.

Errors and warnings both carry ``pb.SourceInfo`` and ``pb.Range``s. Lines count from 1; an end of 0 is the start.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

from mobysession.buildkit.printable import printable

__all__ = ["Source", "excerpt", "find_instruction"]

_RULE = "-" * 20


class Source(NamedTuple):
    """A file and the ranges of lines in it that are meant.

    ``ranges`` are pairs of first and last line, as sent: unchecked, the last may be 0 or before the first.
    """

    filename: str
    text: str
    ranges: tuple[tuple[int, int], ...]

    @property
    def lines(self) -> tuple[int, int] | None:
        """First and last line over all ranges, 1-based, inclusive; None without a range."""
        if not self.ranges:
            return None
        return min(first for first, _ in self.ranges), max(max(bounds) for bounds in self.ranges)


def excerpt(source: Source) -> str:
    """Return the lines of ``source`` with their surroundings, the ones meant marked, ready to print.

    Returns:
        Lines joined by newlines, without one at the end; empty when the range is absent or outside the text.

    Source: moby/buildkit solver/errdefs/source.go, Source.Print.
    """
    lines = source.text.split("\n")
    bounds = source.lines
    if bounds is None or not 1 <= bounds[0] <= len(lines):
        return ""
    first, last = _with_surroundings(bounds[0], min(bounds[1], len(lines)), len(lines))
    marks = ((">>>" if covered else "   ") for covered in _coverage(source.ranges, first, last))
    body = (
        f" {number:3d} | {mark} {printable(lines[number - 1])}"
        for number, mark in zip(range(first, last + 1), marks, strict=True)
    )
    return "\n".join((f"{printable(source.filename)}:{bounds[0]}", _RULE, *body, _RULE))


def find_instruction(text: str, step: str) -> tuple[int, int] | None:
    """Return the first and last line of the instruction that a step was made of, found by the step's name.

    A step is named after its instruction, behind stage and number in brackets. Where the engine names no place, an
    instruction that reads the same, white space and continuations apart, is the one, if there is only one.
    """
    wanted = _squeezed(step.partition("] ")[2] if step.startswith("[") else step)
    found: list[tuple[int, int]] = []
    first, joined = 1, ""
    for number, line in enumerate(text.split("\n"), start=1):
        if not joined:
            first = number
        joined += " " + line.rstrip().removesuffix("\\")
        if line.rstrip().endswith("\\"):
            continue
        if wanted and _squeezed(joined) == wanted:
            found.append((first, number))
        joined = ""
    return found[0] if len(found) == 1 else None


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _with_surroundings(first: int, last: int, count: int) -> tuple[int, int]:
    padding = 4 if first == last else 2
    added = 0
    while added < padding:
        if first > 1:
            first -= 1
            added += 1
        if last != count:
            last += 1
            added += 1
        # Each round counts as one as well, so that the edge of a file ends it; the reference counts the same way.
        added += 1
    return first, last


def _coverage(ranges: tuple[tuple[int, int], ...], first: int, last: int) -> list[int]:
    """Count for each line from ``first`` to ``last`` the ranges that cover it, in one pass over both."""
    steps = [0] * (last - first + 2)
    for begin, end in ranges:
        low, high = max(begin, first), min(max(begin, end), last)
        if low <= high:
            steps[low - first] += 1
            steps[high - first + 1] -= 1
    return list(accumulate(steps[:-1]))

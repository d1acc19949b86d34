"""The lines of a Dockerfile around an error, as BuildKit's clients print them."""

from __future__ import annotations

import pytest

from mobysession.buildkit.source import Source, excerpt, find_instruction

TEN = "\n".join(f"line {number}" for number in range(1, 11))


def numbers(source: Source) -> tuple[list[int], list[int]]:
    """Return the numbers of the lines shown and of those marked."""
    rows = [row for row in excerpt(source).split("\n") if " | " in row]
    shown = [int(row.split("|")[0]) for row in rows]
    return shown, [int(row.split("|")[0]) for row in rows if "| >>>" in row]


def test_the_format_is_the_reference_clients() -> None:
    """Name and line, rules, right-aligned numbers, marks; an empty last line counts."""
    source = Source("Dockerfile", "FROM alpine\n\nRUN false\nRUN echo\n", ((3, 3),))
    assert excerpt(source).split("\n") == [
        "Dockerfile:3",
        "--------------------",
        "   1 |     FROM alpine",
        "   2 |     ",
        "   3 | >>> RUN false",
        "   4 |     RUN echo",
        "   5 |     ",
        "--------------------",
    ]


@pytest.mark.parametrize(
    ("ranges", "shown", "marked"),
    [
        (((5, 5),), [3, 4, 5, 6, 7], [5]),
        (((5, 6),), [4, 5, 6, 7], [5, 6]),
        (((1, 1),), [1, 2, 3], [1]),
        (((10, 10),), [8, 9, 10], [10]),
        (((5, 0),), [3, 4, 5, 6, 7], [5]),
        (((9, 99),), [8, 9, 10], [9, 10]),
        (((2, 2), (4, 5)), [1, 2, 3, 4, 5, 6], [2, 4, 5]),
        ((), [], []),
        (((0, 0),), [], []),
        (((-3, 4),), [], []),
        (((11, 11),), [], []),
        (((1, 10**30),), list(range(1, 11)), list(range(1, 11))),
    ],
)
def test_the_lines_shown_follow_the_ranges(
    ranges: tuple[tuple[int, int], ...], shown: list[int], marked: list[int]
) -> None:
    """Two lines around a single one, one around several; nothing outside the file; odd ranges do no harm."""
    assert numbers(Source("Dockerfile", TEN, ranges)) == (shown, marked)


def test_a_hostile_dockerfile_is_made_harmless() -> None:
    """Escape sequences in the name or the text do not get through."""
    assert "\x1b" not in excerpt(Source("\x1b[2JDockerfile", "RUN \x1b]0;x\x07y", ((1, 1),)))


DOCKERFILE = """FROM alpine AS a
RUN one && \\
    two
RUN same
FROM a
RUN same
COPY  x   /y
"""


@pytest.mark.parametrize(
    ("step", "lines"),
    [
        ("[a 2/3] RUN one &&     two", (2, 3)),
        ("[stage-1 2/2] COPY x /y", (7, 7)),
        ("[a 3/3] RUN same", None),
        ("[a 3/3] RUN other", None),
        ("exporting to image", None),
        ("", None),
    ],
)
def test_an_instruction_is_found_by_the_name_of_its_step(step: str, lines: tuple[int, int] | None) -> None:
    """White space and continuations do not matter; what stands there twice, or not at all, is not guessed."""
    assert find_instruction(DOCKERFILE, step) == lines

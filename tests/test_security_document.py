"""docs/security.md: each line of the threat model is held by tests, and these exist."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.docs_examples import ROOT

DOCUMENT = ROOT / "docs" / "security.md"
#: | what is tried | what stands against it | `file::test`, `file::test` |
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in DOCUMENT.read_text("utf-8").splitlines()
    if line.startswith("|") and not set(line) <= set("|- ")
]
LINES = [row for row in ROWS if row != ["It tries", "What stands against it", "Held by"]]
REFERENCE = re.compile(r"`((?:tests|integration)/[\w/]+\.py)::(test_\w+)`")


@cache
def names_in(file: str) -> frozenset[str]:
    """Return the names of the tests in a file; empty where there is no such file."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    functions = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(function.name for function in functions if function.name.startswith("test_"))


def test_all_four_threats_are_there() -> None:
    """A hostile daemon, registry, Dockerfile and neighbour each have a table."""
    headings = re.findall(r"^## (A hostile .*)$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert [heading.split()[2] for heading in headings] == ["daemon", "registry", "Dockerfile", "neighbour"]
    assert len(ROWS) - len(LINES) == 4


@pytest.mark.parametrize("row", LINES, ids=[row[0][:60] for row in LINES])
def test_a_line_is_held_by_tests_that_exist(row: list[str]) -> None:
    """Three cells, of which the last is nothing but the names of tests that can be found."""
    attack, defence, held = row
    assert attack
    assert defence
    references = REFERENCE.findall(held)
    assert references
    assert REFERENCE.sub("", held).strip(" ,") == ""
    missing = [f"{file}::{name}" for file, name in references if name not in names_in(file)]
    assert missing == []

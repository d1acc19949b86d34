"""``llb dump``: a definition as JSON and for Graphviz."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

from mobysession import llb

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.cli.conftest import Cli

DEFINITION = llb.image("busybox").run("true").definition().to_bytes()


def test_a_definition_is_printed(cli: Cli, tmp_path: Path) -> None:
    """As JSON, or as a graph."""
    path = tmp_path / "definition"
    path.write_bytes(DEFINITION)
    values = json.loads(cli("llb", "dump", path).out)
    assert values[1]["Op"]["exec"]["meta"]["args"] == ["/bin/sh", "-c", "true"]
    assert cli("llb", "dump", "--dot", path).out.startswith("digraph {\n")


def test_a_definition_comes_from_stdin(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a file is named."""
    stdin = io.TextIOWrapper(io.BytesIO(DEFINITION))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert len(json.loads(cli("llb", "dump").out)) == 3


def test_what_is_no_definition_is_refused(cli: Cli, tmp_path: Path) -> None:
    """Also a file that is not there."""
    path = tmp_path / "definition"
    path.write_bytes(b"\xff\xff")
    assert cli("llb", "dump", path).status == 2
    ran = cli("llb", "dump", tmp_path / "none")
    assert ran.status == 1
    assert "cannot be read: no such file or directory" in ran.err

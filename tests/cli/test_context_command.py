"""``mobysession context explain``: what of a directory would be sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from mobysession.testing import BlockingFakeDaemon
    from tests.cli.conftest import Cli


@pytest.fixture
def ignoring(context: Path) -> Path:
    """Give a context that leaves something out."""
    (context / ".dockerignore").write_text("*.log\n")
    (context / "a.log").write_text("12345")
    return context


def test_it_says_what_is_left_out(cli: Cli, ignoring: Path) -> None:
    """Which pattern leaves out what goes to stdout, and nothing to stderr."""
    status, out, err = cli("context", "explain", ignoring)
    assert (status, err) == (0, "")
    assert "left out: 1 file, 5 B, by .dockerignore\n" in out
    assert '- a.log  .dockerignore:1 "*.log"\n' in out
    assert "hello.txt" not in out
    assert "\n+ hello.txt\n" in cli("context", "explain", ignoring, "--all").out


def test_it_says_so_as_json(cli: Cli, ignoring: Path) -> None:
    """For programs there is one JSON value."""
    value = json.loads(cli("context", "explain", "--json", ignoring).out)
    assert value["left_out"] == {"files": 1, "bytes": 5}


def test_the_dockerfile_may_have_an_ignore_file_of_its_own(cli: Cli, ignoring: Path, tmp_path: Path) -> None:
    """It is looked for beside the Dockerfile."""
    (tmp_path / "Own").touch()
    (tmp_path / "Own.dockerignore").write_text("hello*\n")
    out = cli("context", "explain", ignoring, "--file", tmp_path / "Own").out
    assert '- hello.txt  Own.dockerignore:1 "hello*"\n' in out


def test_a_dockerfile_that_is_not_there(cli: Cli, ignoring: Path, tmp_path: Path) -> None:
    """It is an error, and not taken for one without an ignore file of its own."""
    status, out, err = cli("context", "explain", ignoring, "--file", tmp_path / "Missing")
    assert (status, out) == (1, "")
    assert err == f"ERROR: there is no Dockerfile {tmp_path / 'Missing'}\n"


def test_a_bad_pattern_and_a_missing_directory(cli: Cli, ignoring: Path, tmp_path: Path) -> None:
    """Both are errors with a status."""
    (ignoring / ".dockerignore").write_text("a[\n")
    assert cli("context", "explain", ignoring).status == 1
    status, out, err = cli("context", "explain", tmp_path / "missing")
    assert (status, out) == (1, "")
    assert "does not exist" in err


def test_what_an_engine_asked_for(cli: Cli, ignoring: Path, fake_docker_host: BlockingFakeDaemon) -> None:
    """A build on that engine shows which files it really needs."""
    (ignoring / "Dockerfile").write_text("FROM scratch\nCOPY hello.txt /\n")
    status, out, _ = cli("context", "explain", ignoring, "--against", fake_docker_host.host)
    assert status == 0
    requested = out.partition("the engine asked for ")[2]
    assert "\n  hello.txt\n" in requested
    assert "\n  Dockerfile\n" in requested
    assert "a.log" not in requested

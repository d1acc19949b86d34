"""``python -m mobysession`` and the installed command: they start quickly, and end with the status that was meant."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mobysession._version import __version__

if TYPE_CHECKING:
    from pathlib import Path

#: What no help text needs.
HEAVY = {"argcomplete", "asyncio", "docker", "google.protobuf", "grpc", "h2", "httpx", "rich", "sqlite3", "ssl", "trio"}


def run(*arguments: str, cwd: Path, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-m", "mobysession", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60
    )


def imported(*arguments: str, cwd: Path) -> set[str]:
    """Names of the modules that such a run loads."""
    done = run(*arguments, cwd=cwd, flags=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_the_version_loads_no_framework(tmp_path: Path) -> None:
    """It is printed on stdout, and neither argparse nor trio nor logging are loaded for it."""
    done = run("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"mobysession {__version__}\n", "")
    names = imported("--version", cwd=tmp_path)
    assert "mobysession.cli" in names
    assert names & (HEAVY | {"argparse", "logging", "mobysession.errors"}) == set()


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in ("build", "demo", "dial", "probe"))])
def test_help_loads_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    """Neither the loop nor the wire; the list of verbs does not even load the verbs."""
    names = imported(*arguments, cwd=tmp_path)
    assert "argparse" in names
    assert names & HEAVY == set()
    if arguments == ["--help"]:
        assert {name for name in names if name.startswith("mobysession.cli.")} == {
            "mobysession.cli.app",
            "mobysession.cli.deferred",
            "mobysession.cli.interrupts",
            "mobysession.cli.parser",
            "mobysession.cli.uncompiled",
        }


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--help"], 0, ""),
        (["-H", "unix:///nowhere", "probe"], 1, "ERROR: there is no socket at unix:///nowhere (--host)\nhint: "),
        (["build", "nowhere"], 1, "ERROR: the build context "),
        (["build", "-t", "Upper", "."], 2, "ERROR: invalid tag 'Upper'\nhint: "),
        (["build"], 2, "Usage: mobysession build [OPTIONS] PATH"),
        (["bild"], 2, "Usage: mobysession [OPTIONS] COMMAND"),
    ],
)
def test_the_status_is_the_process_status(tmp_path: Path, arguments: list[str], status: int, words: str) -> None:
    """What failed is on stderr, and its kind in the exit status."""
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == status
    assert done.stderr.startswith(words)
    assert "Traceback" not in done.stderr

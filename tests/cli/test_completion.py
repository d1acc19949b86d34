"""Completion in shells: what argcomplete makes of the verbs, although they are loaded late."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mobysession.cli.parser import _VERBS

BIN = Path(sys.executable).parent


def _ask(shell: str, line: str, folder: Path) -> list[str]:
    """Return what is offered for the last word of ``line``, as the shell's own script asks for it."""
    answer = folder / "answer"
    environment = {
        **os.environ,
        **({"_ARGCOMPLETE_DFS": "\t"} if shell == "fish" else {}),
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": shell,
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    done = subprocess.run(
        [BIN / "mobysession"], env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    return answer.read_text().splitlines()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("mobysession ", sorted(_VERBS)),
        ("mobysession bu", ["build"]),
        ("mobysession build --no-", ["--no-cache", "--no-cache-filter"]),
        ("mobysession --host tcp://h probe --h", ["--help", "--hold"]),
        ("mobysession build --driver c", ["control", "classic"]),
        ("mobysession build -f Docker", ["Dockerfile"]),
    ],
)
def test_verbs_options_and_values_are_offered(tmp_path: Path, line: str, offered: list[str]) -> None:
    """The words that fit: verbs in the first place, then the options of the verb, and their values or files."""
    (tmp_path / "Dockerfile").touch()
    assert [word.strip() for word in _ask("bash", line, tmp_path)] == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_verbs_too(tmp_path: Path, shell: str) -> None:
    """zsh and fish are offered the same verb, each in its own form, with a word on what it does."""
    separator = "\t" if shell == "fish" else ":"
    words = f"probe{separator}Open a session and report what the daemon says and does."
    assert _ask(shell, "mobysession pro", tmp_path) == [words]


def test_the_script_works_in_bash() -> None:
    """The script for bash that README names, evaluated there, fills in the verb."""
    script = """
        eval "$(register-python-argcomplete mobysession)"
        COMP_LINE="mobysession dem" COMP_POINT=15
        _python_argcomplete mobysession
        echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": os.pathsep.join((str(BIN), os.environ["PATH"]))}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("demo", "")

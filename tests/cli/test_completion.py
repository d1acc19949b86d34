"""Completion in shells: what click makes of the verbs, although they are loaded late."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "mobysession"


def _ask(shell: str, words: str) -> list[str]:
    """Return what is offered for the last word of ``words``, as the shell's own script asks for it."""
    number = len(words.split(" ")) - 1
    last = words.rpartition(" ")[2]
    environment = {
        **os.environ,
        "_MOBYSESSION_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        # fish gives the word itself, the others its number.
        "COMP_CWORD": last if shell == "fish" else str(number),
    }
    done = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("mobysession ", ["plain,build", "plain,demo", "plain,dial", "plain,probe"]),
        ("mobysession bu", ["plain,build"]),
        ("mobysession build --no", ["plain,--no-cache", "plain,--no-cache-filter"]),
        ("mobysession --host tcp://h probe --h", ["plain,--hold", "plain,--help"]),
    ],
)
def test_verbs_and_their_options_are_offered(words: str, offered: list[str]) -> None:
    """The words that fit are offered: verbs in the first place, then the options of the verb."""
    assert _ask("bash", words) == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_verbs_too(shell: str) -> None:
    """zsh and fish are offered the same verb, each in its own form, with a word on what it does."""
    text = "\n".join(_ask(shell, "mobysession pro"))
    assert "probe" in text
    assert "Open a session" in text


def test_the_script_works_in_bash() -> None:
    """The script for bash, evaluated there, fills in the verb."""
    script = """
        eval "$(_MOBYSESSION_COMPLETE=bash_source mobysession)"
        COMP_WORDS=(mobysession dem) COMP_CWORD=1
        _mobysession_completion mobysession
        echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": os.pathsep.join((str(PROGRAM.parent), os.environ["PATH"]))}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("demo\n", "")

"""The examples of README.md and docs/: how they are marked, found, run and compared.

A comment that no reader sees stands on the line before a fenced block and says what the block is::

    <!-- example: NAME -->             a ``python`` or ``console`` block that is run
    <!-- example: NAME exits: 1 -->    one whose commands end with that status
    <!-- file: PATH -->                a block of any language: a file that the document's examples find there
    <!-- output -->                    what the ``python`` block above it prints

A ``console`` block holds commands behind ``$ ``, continued behind ``> ``, each followed by what it prints on either
stream. What is different at each run (IDs, times, versions) is compared as a word that stands for it, see `normalised`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "DOCUMENTS",
    "HOME",
    "HOST",
    "ON_ENGINE",
    "ROOT",
    "Command",
    "Example",
    "Ran",
    "commands",
    "examples",
    "files",
    "normalised",
    "run",
    "write_files",
]

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
#: What the documents call the working directory, and the engine's address.
HOME = "/home/ada/project"
HOST = "unix:///run/user/1000/docker.sock"
#: Examples that show what only an engine does: execute a command, keep an image, lack a feature.
ON_ENGINE = frozenset(
    (
        "readme:demo",
        "builds:progress",
        "docker-py:build",
        "llb:graph",
        "errors:build-failed",
        "errors:cli-build-failed",
        "errors:bad-dockerfile",
        "errors:old-engine",
        "asks:cached-steps",
        "asks:failed-step",
        "asks:check",
        "asks:frontend",
        "asks:hint",
        "asks:warnings",
        "asks:heredoc",
        "asks:no-cache-filter",
        "asks:sent-again",
        "asks:durations",
        "asks:status",
        "builds:check",
    )
)
#: Seconds that one command may take.
_PATIENCE = 60

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARKER = re.compile(r"<!-- (example|file|output)(?:: ([\w./-]+))?(?: exits: (\d+))? -->\n\Z")

#: What is different at each run, and the word that stands for it; in this order.
_VARIABLES = (
    (re.compile(r"^(worker +).*", re.MULTILINE), r"\1WORKER"),
    (re.compile(r"sha256[: ][0-9a-f]{12,64}"), "DIGEST"),
    (re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"\b[0-9a-z]{25}\b"), "ID"),
    (re.compile(r"^(#\d+|callback +) *\d+\.\d+ (?:s )?", re.MULTILINE), r"\1 TIME "),
    (re.compile(r"^\d+\.\d+ ", re.MULTILINE), "TIME "),
    (re.compile(r"\b\d+\.\d+ ?m?s\b"), "TIME"),
    (re.compile(r"\bin \d+\.\d+ ?s"), "in TIME"),
    (re.compile(r"(?<![\w./])v?\d+\.\d+\.\d+(?![.\d])(?:[+~-][\w.+~-]+)?|\bAPI \d+\.\d+"), "VERSION"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b"), "DATE"),
    (re.compile(r"\bprocess \d+ *"), "process PID "),
    (re.compile(r"[ \t]+$", re.MULTILINE), ""),
)


@dataclass(frozen=True, kw_only=True)
class Example:
    """One block that is run.

    Attributes:
        document: its file, as README.md or docs/errors.md.
        line: where its code begins.
        name: of its marker; empty where it has none.
        language: ``python`` or ``console``.
        code: what the fence holds.
        output: what it prints, as shown; None where the document does not say.
        exits: the status that its commands end with.
    """

    document: str
    line: int
    name: str
    language: str
    code: str
    output: str | None = None
    exits: int = 0

    @property
    def id(self) -> str:
        """Document and name: what tells it from the others."""
        return f"{Path(self.document).stem.lower()}:{self.name or self.line}"


@dataclass(frozen=True)
class Command:
    """One command of a ``console`` block, and what is printed behind it."""

    line: str
    output: str


@dataclass(frozen=True)
class Ran:
    """What became of one command: how it is called in a message, its status, what it printed and what was promised."""

    what: str
    status: int
    printed: str
    promised: str | None


def examples(path: Path) -> list[Example]:
    """Return every ``python`` and ``console`` block of a document that is not a file, in order."""
    found: list[Example] = []
    for kind, name, exits, language, code, line in _blocks(path):
        if kind == "output":
            last = found.pop()
            assert last.output is None, f"{path.name}:{line}: a second output of {last.id}"
            found.append(Example(**{**vars(last), "output": code}))
        elif kind != "file" and (kind == "example" or language in ("python", "console")):
            document = path.relative_to(ROOT).as_posix()
            found.append(
                Example(document=document, line=line, name=name, language=language, code=code, exits=int(exits or 0))
            )
    return found


def files(path: Path) -> dict[str, str]:
    """Return the files that a document shows, by the path that it says."""
    return {name: code for kind, name, _, _, code, _ in _blocks(path) if kind == "file"}


def _blocks(path: Path) -> Iterator[tuple[str, str, str, str, str, int]]:
    text = path.read_text("utf-8")
    for block in _FENCE.finditer(text):
        marker = _MARKER.search(text, 0, block.start())
        kind, name, exits = marker.groups(default="") if marker else ("", "", "")
        yield kind, name, exits, block[1], block[2], text.count("\n", 0, block.start(2)) + 1


def commands(code: str) -> list[Command]:
    """Take a ``console`` block apart."""
    found: list[tuple[str, list[str]]] = []
    for line in code.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        else:
            assert found, f"a console block begins with a command, not with {line!r}"
            found[-1][1].append(line)
    return [Command(line, "".join(f"{text}\n" for text in output)) for line, output in found]


def normalised(text: str) -> str:
    """Return ``text`` with a word in place of each ID, time and version."""
    for pattern, word in _VARIABLES:
        text = pattern.sub(word, text)
    return text.strip()


def write_files(folder: Path, contents: Mapping[str, str]) -> None:
    """Write files into ``folder``."""
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")


def run(example: Example, folder: Path, *, host: str, as_test: bool = False) -> Iterator[Ran]:
    """Run an example in ``folder`` against the engine at ``host``; blocking.

    Args:
        example: what to run.
        folder: working directory, with the files that it needs.
        host: for DOCKER_HOST.
        as_test: give a ``python`` block to pytest.
    """
    environment = _environment(folder, host)
    if example.language == "console":
        # Side by side, for most of the time is the start of the interpreter; no command builds on what another one did.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield from pool.map(
                lambda command: _run(["bash", "-c", command.line], folder, environment, command.line, command.output),
                commands(example.code),
            )
        return
    # Not by the example's name: a trio.py would stand before trio.
    script = folder / ("test_example.py" if as_test else "example.py")
    script.write_text(example.code, "utf-8")
    options = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"] if as_test else []
    yield _run([sys.executable, *options, script.name], folder, environment, script.name, example.output)


def _environment(folder: Path, host: str) -> dict[str, str]:
    programs = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "COLUMNS": "80",
        "DOCKER_CONFIG": str(folder / ".docker"),
        "DOCKER_HOST": host,
        "HOME": str(folder),
        "PATH": os.pathsep.join((programs, os.environ.get("PATH", os.defpath))),
        "PYTHONPATH": str(ROOT),
        "TOKEN": "open sesame",
    }


def _run(arguments: list[str], folder: Path, environment: dict[str, str], what: str, promised: str | None) -> Ran:
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
    )
    printed = done.stdout.replace(os.path.realpath(folder), HOME).replace(str(folder), HOME)
    return Ran(what, done.returncode, printed.replace(environment["DOCKER_HOST"], HOST), promised)

"""As much of a Dockerfile as a build's requests to its session depend on: stages, sources, secret mounts.

Line by line, without variables, heredocs and the rarer instructions' own syntax: nothing here is executed. Where it
cannot be read, the words are those of the engine.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from typing import Final

__all__ = ["BadDockerfile", "Instruction", "parse_dockerfile", "parse_ignore_file", "Stage"]

_KNOWN: Final = frozenset(
    (
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER"),
        *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    )
)
#: Instructions that become a step of the build.
_STEPS: Final = frozenset(("ADD", "COPY", "RUN", "WORKDIR"))


class BadDockerfile(Exception):
    """It cannot be built; ``line`` counts from 1, 0 where no line is to blame."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name in capitals, its flags by name, what follows them, as written, and where it stands."""

    name: str
    flags: tuple[tuple[str, str], ...]
    rest: str
    text: str
    first_line: int
    last_line: int

    @property
    def is_step(self) -> bool:
        """Whether the build shows it as a step."""
        return self.name in _STEPS

    def flag(self, name: str) -> str | None:
        """Return the first flag of this name."""
        return next((value for key, value in self.flags if key == name), None)

    def mounts(self, kind: str) -> list[dict[str, str]]:
        """Return the ``--mount`` flags of a type, each as its fields."""
        found = []
        for key, value in self.flags:
            fields = dict(part.partition("=")[::2] for part in value.split(","))
            if key == "mount" and fields.get("type", "bind") == kind:
                found.append(fields)
        return found

    def sources(self) -> list[str]:
        """Return the paths that a COPY or ADD takes from the build context."""
        if self.name not in ("ADD", "COPY") or self.flag("from"):
            return []
        words = self.rest.strip("[]").replace(",", " ") if self.rest.startswith("[") else self.rest
        paths = shlex.split(words)[:-1]
        return [os.path.normpath("/" + path).lstrip("/") for path in paths if "://" not in path]


@dataclass
class Stage:
    """A ``FROM`` and what follows it; ``shown`` is its name in the steps, empty where it has none."""

    image: str
    name: str
    shown: str
    line: int
    instructions: list[Instruction] = field(default_factory=list)

    @property
    def from_scratch(self) -> bool:
        """Whether there is nothing to fetch."""
        return self.image == "scratch"

    def steps(self) -> list[Instruction]:
        """Return the instructions that are steps."""
        return [instruction for instruction in self.instructions if instruction.is_step]

    def needs(self) -> set[str]:
        """Return the names under which it refers to other stages, or images."""
        copied = {instruction.flag("from") for instruction in self.instructions}
        mounted = {mount.get("from") for i in self.instructions for mount in i.mounts("bind") + i.mounts("cache")}
        return {name for name in {self.image} | copied | mounted if name}


def parse_dockerfile(text: str, target: str = "") -> list[Stage]:
    """Return the stages that ``target``, or else the last stage, needs, in order.

    Raises:
        BadDockerfile: in the engine's words.
    """
    instructions = list(_instructions(text))
    if not instructions:
        raise BadDockerfile("the Dockerfile cannot be empty")
    stages: list[Stage] = []
    for instruction in instructions:
        if instruction.name == "FROM":
            stages.append(_stage(instruction, len(stages)))
        elif stages:
            stages[-1].instructions.append(instruction)
        elif instruction.name != "ARG":
            raise BadDockerfile("no build stage in current context", instruction.first_line)
    if not stages:
        raise BadDockerfile("no build stage in current context", 1)
    has_mounts = any(instruction.flag("mount") for instruction in instructions)
    for number, stage in enumerate(stages):
        stage.shown = stage.name or (f"stage-{number}" if len(stages) > 1 or has_mounts else "")
    return _needed(stages, target)


def parse_ignore_file(text: str) -> list[str]:
    """Return the patterns of a ``.dockerignore`` as the frontend passes them on (moby/patternmatcher ignorefile)."""
    patterns = []
    for line in text.removeprefix("\ufeff").splitlines():
        pattern = line.strip()
        if line.startswith("#") or not pattern:
            continue
        negated = "!" if pattern.startswith("!") else ""
        pattern = pattern.removeprefix("!").strip()
        if pattern:
            pattern = os.path.normpath(pattern)
            pattern = pattern[1:] if pattern.startswith("/") and len(pattern) > 1 else pattern
        patterns.append(negated + pattern)
    return patterns


def _instructions(text: str) -> list[Instruction]:
    found = []
    pending: list[str] = []
    first = 0
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        first = first if pending else number
        continued = stripped.endswith("\\")
        pending.append(stripped.removesuffix("\\").strip() if continued else stripped)
        if not continued:
            found.append(_instruction(" ".join(filter(None, pending)), first, number))
            pending.clear()
    if pending:
        found.append(_instruction(" ".join(filter(None, pending)), first, len(text.splitlines())))
    return found


def _instruction(text: str, first: int, last: int) -> Instruction:
    name, _, rest = text.partition(" ")
    if name.upper() not in _KNOWN:
        raise BadDockerfile(f"dockerfile parse error on line {first}: unknown instruction: {name}", first)
    flags = []
    rest = rest.lstrip()
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        key, _, value = flag[2:].partition("=")
        flags.append((key, value))
        rest = rest.lstrip()
    return Instruction(name.upper(), tuple(flags), rest, text, first, last)


def _stage(instruction: Instruction, number: int) -> Stage:
    image, _, alias = instruction.rest.partition(" ")
    words = alias.split()
    name = words[1].lower() if len(words) == 2 and words[0].upper() == "AS" else ""
    return Stage(image, name, "", instruction.first_line)


def _needed(stages: list[Stage], target: str) -> list[Stage]:
    names = {stage.name: number for number, stage in enumerate(stages) if stage.name}
    names |= {str(number): number for number in range(len(stages))}
    if target and target.lower() not in names:
        raise BadDockerfile(f'target stage "{target}" could not be found')
    wanted = [names[target.lower()] if target else len(stages) - 1]
    for number in wanted:
        others = {names[name.lower()] for name in stages[number].needs() if name.lower() in names}
        wanted += sorted(other for other in others if other < number and other not in wanted)
    return [stages[number] for number in sorted(wanted)]

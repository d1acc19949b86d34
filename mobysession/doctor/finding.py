"""What the doctor says: one thing that was looked at, how it is, and what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Self, TypeAlias

if TYPE_CHECKING:
    from mobysession.errors import MobysessionError

__all__ = ["Diagnosis", "Finding", "Level"]

#: ``warn`` is what only some builds will miss.
Level: TypeAlias = Literal["ok", "warn", "fail"]


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        subject: a word: ``endpoint``, ``attach``, ``credentials``, ...
        level: how it is.
        message: what was found, in one line.
        fix: what to do about it; empty where it is ok.
    """

    subject: str
    level: Level
    message: str
    fix: str = ""

    @classmethod
    def of_error(cls, subject: str, error: MobysessionError, *, level: Level = "fail", fix: str = "") -> Self:
        """Make a finding of what went wrong; its hint is the fix, else ``fix``."""
        return cls(subject, level, error.message, error.hint or fix)


class Diagnosis(NamedTuple):
    """Everything that was looked at."""

    findings: tuple[Finding, ...]

    @property
    def is_healthy(self) -> bool:
        """True where nothing fails."""
        return all(finding.level != "fail" for finding in self.findings)

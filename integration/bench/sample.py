"""One run of a program, measured from outside: from before its start to its end, with all its children.

Memory is the largest process of the run, not their sum: that is what ``wait4`` knows, and it flatters the client that
has more processes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from mobysession.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["RUN_TIMEOUT", "Sample", "medians", "run_measured"]

RUN_TIMEOUT = 120.0
"""Seconds until a run counts as hung; the slowest takes ten on a small machine."""

_STOPWATCH = (sys.executable, "-I", "-S", str(Path(__file__).with_name("stopwatch.py")))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one run took.

    Attributes:
        wall: seconds.
        cpu: seconds in user and kernel mode, of all its processes; not the engine's.
        peak: bytes of resident memory of its largest process.
    """

    wall: float
    cpu: float
    peak: float


def medians(samples: Sequence[Sample]) -> Sample:
    """Return the median of each figure by itself."""
    return Sample(
        wall=median(sample.wall for sample in samples),
        cpu=median(sample.cpu for sample in samples),
        peak=median(sample.peak for sample in samples),
    )


def run_measured(
    argv: Sequence[str], environment: Mapping[str, str], output: Path, *, timeout: float = RUN_TIMEOUT
) -> Sample:
    """Run a program, named by its path, to its end; all it says goes to the file ``output``.

    After ``timeout`` seconds it is killed.

    Raises: EngineError (peer): it failed, or hung and was killed; the end of what it said is the hint.
    """
    with (
        output.open("wb") as log,
        subprocess.Popen(
            [*_STOPWATCH, *argv],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            start_new_session=True,
        ) as stopwatch,
    ):
        try:
            told, _ = stopwatch.communicate(timeout=timeout)
        except BaseException:
            os.killpg(stopwatch.pid, signal.SIGKILL)
            raise
    figures = json.loads(told or "{}")
    if figures.pop("status", None) != 0:
        words = output.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        raise EngineError(f"{' '.join(argv)} failed", hint="\n".join(words))
    return Sample(**figures)

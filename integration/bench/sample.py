"""One run of a program, measured from outside: from before its start to its end, with all its children.

Memory is the largest process of the run, not their sum: that is what ``wait4`` knows, and it flatters the client that
has more processes. A child inherits the peak of whoever started it, so that whoever measures has to stay small.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from mobysession.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Sample", "medians", "run_measured"]

RUN_TIMEOUT = 120.0
"""Seconds until a run counts as hung; the slowest takes ten on a small machine."""


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


def run_measured(argv: Sequence[str], environment: Mapping[str, str], output: Path) -> Sample:
    """Run a program to its end; all it says goes to the file ``output``.

    Raises: EngineError (peer): it failed, or hung and was killed; the end of what it said is the hint.
    """
    with output.open("wb") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
        watchdog = threading.Timer(RUN_TIMEOUT, os.killpg, (process.pid, signal.SIGKILL))
        watchdog.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            watchdog.cancel()
        wall = time.perf_counter() - started
    # It was waited for behind its back; told so, it does not try again.
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        words = output.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        raise EngineError(f"{argv[0]} ended with {process.returncode}", hint="\n".join(words))
    if usage.ru_maxrss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        raise EngineError("the benchmark itself uses more memory than what it measures, and cannot see its peak")
    return Sample(wall=wall, cpu=usage.ru_utime + usage.ru_stime, peak=usage.ru_maxrss * 1024)

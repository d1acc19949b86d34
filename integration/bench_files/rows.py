"""The rows of the table: what is built, what the engine remembers of it, and what changes before each run."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from integration.bench.row import forget
from integration.bench.sample import RUN_TIMEOUT, medians
from integration.bench_files.trees import (
    BIG,
    CROWD,
    FILE_SIZE,
    FILES,
    change_some,
    make_big,
    make_crowd,
    make_many,
    make_modules,
    make_sparse,
)
from mobysession.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from integration.bench.client import Client
    from integration.bench.sample import Sample

__all__ = ["LARGE_TIMEOUT", "ROWS", "FileRow", "open_relay"]

LARGE_TIMEOUT = 600.0
"""Seconds until a run of a large row counts as hung; most of a minute is the engine's, and more on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class FileRow:
    """One comparison.

    Attributes:
        title: what the table calls it.
        context: the name of the directory; rows may share one.
        make: makes it.
        cold: the engine forgets everything before each run.
        content: bytes that a cold run must send.
        change: changes the directory before each run.
        large: takes a minute a run, and is left out unless it is asked for.
        only_sent: to the receiver that discards, and to no engine.
    """

    title: str
    context: str
    make: Callable[[Path], None]
    cold: bool
    content: int = 0
    change: Callable[[Path, int], None] | None = None
    large: bool = False
    only_sent: bool = False

    def prepare(self, folder: Path) -> Path:
        """Return the directory, made if it is not there."""
        context = folder / self.context
        if not context.exists():
            self.make(context)
        return context

    def measure(self, engine: str, clients: Sequence[Client], folder: Path, runs: int) -> list[Sample]:
        """Return the medians of each client; they take turns, and where something is remembered a first one is free."""
        context = self.prepare(folder)
        taken: list[list[Sample]] = [[] for _ in clients]
        forget(engine)
        for turn in range(runs + (not self.cold)):
            for number, (client, samples) in enumerate(zip(clients, taken, strict=True)):
                if self.cold:
                    forget(engine)
                if self.change is not None:
                    self.change(context, turn * len(clients) + number)
                timeout = LARGE_TIMEOUT if self.large else RUN_TIMEOUT
                run = client.build(context, folder / "output", timeout=timeout)
                if self.cold and run.transferred < self.content * 0.95:
                    raise EngineError(f"{self.title}: {client.name} sent only {run.transferred:g} bytes")
                if self.cold or turn:
                    samples.append(run.sample)
        return [medians(samples) for samples in taken]

    def measure_floor(self, engine: str, host: str, folder: Path, runs: int) -> float:
        """Return the median of the seconds that a replayed stream takes."""
        context = self.prepare(folder)
        seconds = []
        for turn in range(runs + (not self.cold)):
            if self.cold:
                forget(engine)
            if self.change is not None:
                self.change(context, 10_000 + turn)
            argv = [sys.executable, "-m", "integration.bench_files.floor", host, str(context)]
            done = subprocess.run(argv, capture_output=True, check=False, timeout=LARGE_TIMEOUT)
            if done.returncode:
                raise EngineError(f"{self.title}: the floor failed", hint=done.stderr.decode()[-2000:])
            if self.cold or turn:
                seconds.append(float(json.loads(done.stdout)))
        return median(seconds)


ROWS = (
    FileRow(title="one file of 1 GiB", context="big", make=make_big, cold=True, content=BIG),
    FileRow(title="50,000 files of 2 KiB", context="many", make=make_many, cold=True, content=FILES * FILE_SIZE),
    FileRow(title="50,000 files unchanged", context="many", make=make_many, cold=False),
    FileRow(title="5 of 50,000 changed", context="many", make=make_many, cold=False, change=change_some),
    FileRow(title="100,000, 95 % ignored", context="modules", make=make_modules, cold=True),
    FileRow(title="300,000 files", context="crowd", make=make_crowd, cold=True, content=CROWD * 16, large=True),
    FileRow(title="20 GiB sparse", context="sparse", make=make_sparse, cold=True, large=True, only_sent=True),
)


@contextlib.contextmanager
def open_relay(engine: str, folder: Path, round_trip: float) -> Iterator[str]:
    """Give the address of an engine that is this many seconds away; its own for none."""
    if not round_trip:
        yield engine
        return
    path = folder / f"relay-{round_trip * 1000:.0f}.sock"
    argv = [sys.executable, str(Path(__file__).with_name("relay.py")), str(path)]
    argv += [engine.removeprefix("unix://"), str(round_trip / 2)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield f"unix://{path}"
        finally:
            process.communicate()
            path.unlink(missing_ok=True)

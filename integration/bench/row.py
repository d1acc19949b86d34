"""The rows of the table: what is built, what the engine remembers when a run begins, and what it must then be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from integration.bench.context import BIG_FILE, SMALL_FILE_BYTES, make_big, make_many, make_trivial
from integration.bench.sample import medians
from mobysession.errors import EngineError
from mobysession.testing.engine_api import engine_request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from integration.bench.client import Client
    from integration.bench.sample import Sample

__all__ = ["ROWS", "Row"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison.

    Attributes:
        title: what the table calls it.
        context: the name of the directory that is built; two rows may share it.
        make: makes that directory.
        cold: forget everything before each run, so that all is sent; else each client finds its own last copy.
        content: bytes of the files. A cold run must send as much, any other less than half of it.
        times: runs of it for each that was asked for; quick rows need more for a steady median.
    """

    title: str
    context: str
    make: Callable[[Path], None]
    cold: bool
    content: int
    times: int = 1

    def measure(self, host: str, clients: Sequence[Client], folder: Path, runs: int) -> list[Sample]:
        """Return the medians of each client; they take turns, and a first turn of each does not count."""
        context = folder / self.context
        if not context.exists():
            self.make(context)
        forget(host)
        samples: list[list[Sample]] = [[] for _ in clients]
        for turn in range(runs * self.times + 1):
            for client, taken in zip(clients, samples, strict=True):
                if self.cold:
                    forget(host)
                run = client.build(context, folder / "output")
                if turn:
                    self._check(client, run.transferred)
                    taken.append(run.sample)
        return [medians(taken) for taken in samples]

    def _check(self, client: Client, transferred: float) -> None:
        # The text has two or three digits.
        if self.content and (self.cold and transferred < self.content * 0.95):
            raise EngineError(f"{self.title}: {client.name} sent only {transferred:g} bytes: the run was not cold")
        if self.content and (not self.cold and transferred > self.content / 2):
            raise EngineError(f"{self.title}: {client.name} sent {transferred:g} bytes: its copy was not found")


ROWS = (
    Row(title="trivial build", context="trivial", make=make_trivial, cold=False, content=0, times=3),
    Row(title="one file of 512 MiB", context="big", make=make_big, cold=True, content=BIG_FILE),
    Row(title="20,000 files", context="many", make=make_many, cold=True, content=SMALL_FILE_BYTES, times=2),
    Row(
        title="20,000 files unchanged",
        context="many",
        make=make_many,
        cold=False,
        content=SMALL_FILE_BYTES,
        times=2,
    ),
)


def forget(host: str) -> None:
    """Remove all images and the whole build cache of an engine, copies of directories included."""
    engine_request(host, "POST", "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D", timeout=120)
    engine_request(host, "POST", "/build/prune?all=1", timeout=120)

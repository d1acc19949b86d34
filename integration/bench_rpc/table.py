"""What is printed: a line for each figure, a column for each server, and how ours compares.

A ratio is that of two runs of one round, and the median of the rounds stands; in brackets the ratio of the best runs,
which the noise of a busy machine touches least. Of processor time and memory less is better, of rates more.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from integration.bench_rpc.load import Load, Sample

__all__ = ["header", "rows"]

OURS = "ours"
PEERS = ("grpc.aio", "grpclib", "bare h2")
_WIDTH = 13
MIB = 1024**2


def header(names: Sequence[str]) -> str:
    """Return the line above the table."""
    columns = [*names, *(f"/{peer}" for peer in PEERS if peer in names)]
    return "".join([f"{'':38}", *(f"{column:>{_WIDTH}}" for column in columns)])


def rows(load: Load, samples: Mapping[str, Sequence[Sample]]) -> list[str]:
    """Return the lines of one load; ``samples`` has those of every round for each server."""
    return [
        _row(f"{load.title}: {load.unit}", samples, lambda sample: sample.rate, max),
        _row(f"{'':4}server's CPU, {load.cpu_unit}", samples, lambda sample: sample.cpu, min),
        _row(f"{'':4}server's peak, MiB", samples, lambda sample: sample.peak / MIB, min),
    ]


def _row(
    title: str,
    samples: Mapping[str, Sequence[Sample]],
    figure: Callable[[Sample], float],
    best: Callable[[Sequence[float]], float],
) -> str:
    taken = {name: [figure(sample) for sample in of_one] for name, of_one in samples.items()}
    cells = [_number(median(of_one)) for of_one in taken.values()]
    ours = taken.get(OURS)
    for peer in PEERS:
        if ours is not None and peer in taken:
            ratio = median(mine / theirs for mine, theirs in zip(ours, taken[peer], strict=True))
            cells.append(f"{ratio:.2f} ({best(ours) / best(taken[peer]):.2f})")
    return "".join([f"{title:38}", *(f"{cell:>{_WIDTH}}" for cell in cells)])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"

"""The table: first what does not depend on the machine, ratios; behind them the medians they were made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.bench.sample import Sample

__all__ = ["HEADER", "TARGET_PEAK", "TARGET_WALL", "format_row", "misses"]

TARGET_WALL = 1.0
TARGET_PEAK = 1.0
"""What is wanted, as ratios to buildx."""

MIB = 1024 * 1024

HEADER = f"{'mobysession / buildx':24}   wall   CPU  peak  {'target':10}  medians: wall s, CPU s, peak MiB"


def format_row(title: str, ours: Sample, theirs: Sample) -> str:
    """Return one line of the table."""
    ratios = f"{ours.wall / theirs.wall:5.2f} {ours.cpu / theirs.cpu:5.2f} {ours.peak / theirs.peak:5.2f}"
    medians = (
        f"{ours.wall:.2f} / {theirs.wall:.2f}, {ours.cpu:.2f} / {theirs.cpu:.2f}, "
        f"{ours.peak / MIB:.0f} / {theirs.peak / MIB:.0f}"
    )
    return f"{title:24}  {ratios}  {', '.join(misses(ours, theirs)) or 'met':10}  {medians}"


def misses(ours: Sample, theirs: Sample) -> list[str]:
    """Return which of the targets were missed."""
    wall = ["wall"] if ours.wall > TARGET_WALL * theirs.wall else []
    peak = ["peak"] if ours.peak > TARGET_PEAK * theirs.peak else []
    return wall + peak

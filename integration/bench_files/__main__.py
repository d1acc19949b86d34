"""``python -m integration.bench_files``: measure and print the table row by row; ``--help`` says how to choose."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from integration.bench.__main__ import DEFAULT_ENGINE
from integration.bench.client import buildx_client, our_client
from integration.bench_files.outputs import OUTPUT_ROWS, OutputRow
from integration.bench_files.rows import ROWS, FileRow, open_relay
from integration.bench_files.sender import measure_sender
from integration.engines import Buildx, engine_specs
from mobysession.errors import EngineError, MobysessionError
from mobysession.testing.engine_api import engine_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integration.bench.sample import Sample

Row: TypeAlias = FileRow | OutputRow

MEMORY = Path("/dev/shm")
ROOM = 8 * 1024**3
MIB = 1024 * 1024
HEADER = f"{'mobysession / buildx':26} {'rtt':>6}   wall   CPU  peak  floor  medians: wall s, CPU s, peak MiB; floor s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = _parser().parse_args(arguments)
    rows = _chosen(options)
    # Ended by force it would leave GiB in memory, and an engine.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with tempfile.TemporaryDirectory(prefix="mobysession-bench-", dir=roomy()) as name:
            if options.only != "builds":
                _senders(rows, Path(name), options)
            if options.only != "sender":
                _builds(rows, Path(name), options)
    except MobysessionError as error:
        print(f"bench-files: {error}" + (f"\n\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 1
    return 0


def roomy() -> Path | None:
    """Return the folder in memory where trees and an engine's data have room; None: the usual one on disk."""
    return MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="integration.bench_files",
        description="Compare how trees are sent and received: the sender alone, then builds against docker buildx.",
        epilog="Everything takes about half an hour on two CPUs; --rtt 0 --runs 1 takes three minutes.",
    )
    parser.add_argument("--only", choices=["sender", "builds"], help="one of the two parts")
    parser.add_argument("--profile", action="store_true", help="with a profile of each sender")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--engine", default=DEFAULT_ENGINE, metavar="ID", help=f"which engine [{DEFAULT_ENGINE}]")
    which.add_argument("--host", metavar="URL", help="an engine that runs, and may be pruned")
    parser.add_argument("--rtt", default="0,20,100", metavar="MS,...", help="round trips [0,20,100]")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each row [3]")
    parser.add_argument("--row", action="append", metavar="TEXT", help="only rows whose title contains it")
    parser.add_argument("--large", action="store_true", help="with 300,000 files, and 20 GiB in one, once each")
    parser.add_argument("--no-floor", action="store_true", help="leave out the floor")
    return parser


def _chosen(options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = [*ROWS, *OUTPUT_ROWS]
    if options.row is None:
        return [row for row in rows if options.large or not row.large]
    return [row for row in rows if any(text in row.title for text in options.row)]


def _senders(rows: Sequence[Row], folder: Path, options: argparse.Namespace) -> None:
    contexts = {row.context: row for row in rows if isinstance(row, FileRow)}
    if contexts:
        print(f"the sender alone, best of {options.runs}; Python {platform.python_version()}; {os.cpu_count()} CPUs")
    for row in contexts.values():
        context = row.prepare(folder)
        runs = 1 if row.large else options.runs
        print(measure_sender(context.name, context, folder, runs, profile=options.profile), flush=True)


def _builds(rows: Sequence[Row], folder: Path, options: argparse.Namespace) -> None:
    if options.host:
        _table(rows, options.host, folder, options)
        return
    spec = next((spec for spec in engine_specs() if spec.id == options.engine and not spec.host), None)
    if spec is None:
        raise EngineError(f"{options.engine} is no engine of ours", hint="One that runs is named with --host.")
    with spec.private_engine(data_root=folder / "engine") as engine:
        _table(rows, engine.host, folder, options)


def _table(rows: Sequence[Row], engine: str, folder: Path, options: argparse.Namespace) -> None:
    rows = [row for row in rows if not row.only_sent]
    buildx = Buildx.find()
    version = json.loads(engine_request(engine, "GET", "/version"))["Version"]
    print(f"engine {version}; buildx {buildx.version()}; {os.cpu_count()} CPUs; {options.runs} runs each")
    print(HEADER, flush=True)
    for milliseconds in map(float, options.rtt.split(",")):
        with open_relay(engine, folder, milliseconds / 1000) as host:
            work = folder / f"clients-{milliseconds:.0f}"
            work.mkdir()
            clients = our_client(host, work / "ours"), buildx_client(buildx, host, work / "theirs")
            for row in rows:
                runs = 1 if row.large else options.runs
                ours, theirs = row.measure(engine, clients, folder, runs)
                floor = 0.0 if options.no_floor else row.measure_floor(engine, host, folder, runs)
                print(_line(row.title, milliseconds, ours, theirs, floor), flush=True)
    for row in rows:
        if isinstance(row, OutputRow) and row.hung:
            print(f"{row.title}: runs that never ended, and were run again: {', '.join(row.hung)}")


def _line(title: str, milliseconds: float, ours: Sample, theirs: Sample, floor: float) -> str:
    ratios = f"{ours.wall / theirs.wall:5.2f} {ours.cpu / theirs.cpu:5.2f} {ours.peak / theirs.peak:5.2f}"
    above = f"{ours.wall / floor:5.2f}" if floor else "    -"
    return (
        f"{title:26} {milliseconds:3.0f} ms  {ratios}  {above}  {ours.wall:.2f} / {theirs.wall:.2f}, "
        f"{ours.cpu:.2f} / {theirs.cpu:.2f}, {ours.peak / MIB:.0f} / {theirs.peak / MIB:.0f}; {floor:.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())

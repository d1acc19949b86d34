"""``python -m integration.bench``: measure and print the table row by row. Needs what ``integration.prepare`` makes."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from integration.bench.client import buildx_client, our_client
from integration.bench.context import BIG_FILE, SMALL_FILE_BYTES, SMALL_FILES
from integration.bench.row import ROWS
from integration.bench.table import HEADER, TARGET_PEAK, TARGET_WALL, format_row, misses
from integration.engines import Buildx, EngineSpec, engine_specs
from mobysession import __version__
from mobysession.errors import EngineError, MobysessionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession.testing.engine import PrivateEngine

DEFAULT_ENGINE = "debian-forky"
MEMORY = Path("/dev/shm")
ROOM = 4 * 1024**3
"""Bytes that contexts, copies and images need at most, together."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; with ``--check``, exit status 1 says that a target was missed."""
    options = _parse(arguments)
    # Ended by force it would leave GiB in memory, and an engine.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        missed = _run(options)
    except MobysessionError as error:
        print(f"bench: {error}" + (f"\n\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 1
    return 1 if missed and options.check else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="integration.bench", description="Compare with docker buildx on one engine.")
    parser.add_argument("--engine", default=DEFAULT_ENGINE, metavar="ID", help=f"which engine [{DEFAULT_ENGINE}]")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of the slow rows [5]")
    parser.add_argument("--row", action="append", metavar="TEXT", help="only rows whose title contains it")
    parser.add_argument("--data", type=Path, metavar="DIR", help=f"for engine and contexts [{MEMORY}, if it has room]")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> bool:
    """Measure, print and return whether a target was missed."""
    buildx = Buildx.find()
    rows = [row for row in ROWS if options.row is None or any(text in row.title for text in options.row)]
    missed = False
    with tempfile.TemporaryDirectory(prefix="mobysession-bench-", dir=options.data or _roomy()) as name:
        folder = Path(name)
        # Freed inodes make ext4 slow after a prune; in memory every run finds the same disk.
        with _spec(options.engine).private_engine(data_root=folder / "engine") as engine:
            _print_facts(engine, buildx, folder)
            clients = our_client(engine.host, folder / "ours"), buildx_client(buildx, engine.host, folder / "theirs")
            print(HEADER, flush=True)
            for row in rows:
                ours, theirs = row.measure(engine.host, clients, folder, options.runs)
                print(format_row(row.title, ours, theirs), flush=True)
                missed = missed or bool(misses(ours, theirs))
    return missed


def _spec(name: str) -> EngineSpec:
    specs = {spec.id: spec for spec in engine_specs()}
    if name not in specs:
        raise EngineError(f"there is no engine {name}", hint=f"there are {', '.join(specs)}")
    if specs[name].host:
        # It would lose all images that no container uses, and its build cache.
        raise EngineError(f"{name} is not ours to prune", hint="unset MOBYSESSION_ENGINES to use an engine of our own")
    return specs[name]


def _roomy() -> Path | None:
    return MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM else None


def _print_facts(engine: PrivateEngine, buildx: Buildx, folder: Path) -> None:
    where = "in memory" if folder.is_relative_to(MEMORY) else "on disk"
    print(
        f"engine {engine.version} (API {engine.api_version}), its data {where}; buildx {buildx.version()}; "
        f"mobysession {__version__} on Python {platform.python_version()}; {os.cpu_count()} CPUs"
    )
    print(
        f"one file: {BIG_FILE // 1024**2} MiB; {SMALL_FILES} files: {SMALL_FILE_BYTES // 1024**2} MiB together; "
        f"targets: wall {TARGET_WALL}, peak {TARGET_PEAK}"
    )


if __name__ == "__main__":
    sys.exit(main())

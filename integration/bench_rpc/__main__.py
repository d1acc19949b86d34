"""``python -m integration.bench_rpc``: measure all servers under all loads, in turns, and print one table."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from integration.bench_rpc.load import LOADS, Load, Sample, check, prepare
from integration.bench_rpc.process import ServerProcess, serving
from integration.bench_rpc.table import header, rows
from mobysession.errors import MobysessionError

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVERS = {
    "ours": "ours",
    "grpcio sync": "grpcio_sync",
    "grpc.aio": "grpcio_aio",
    "grpclib": "grpclib",
    "bare h2": "bare_h2",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    options = _parse(arguments)
    try:
        prepare()
        _measure(options)
    except MobysessionError as error:
        print(f"bench-rpc: {error}" + (f"\n\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="integration.bench_rpc", description="Compare gRPC servers under one load.")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds that count [5]")
    parser.add_argument("--load", action="append", metavar="TEXT", help="only loads whose title contains it")
    parser.add_argument("--server", action="append", choices=SERVERS, help="only this one; may be repeated")
    return parser.parse_args(arguments)


def _measure(options: argparse.Namespace) -> None:
    names = [name for name in SERVERS if options.server is None or name in options.server]
    loads = [load for load in LOADS if options.load is None or any(text in load.title for text in options.load)]
    _print_facts()
    print(header(names), flush=True)
    with tempfile.TemporaryDirectory(prefix="mobysession-bench-rpc-") as folder, ExitStack() as running:
        servers = {name: running.enter_context(serving(SERVERS[name])) for name in names}
        for server in servers.values():
            check(server.port)
        for load in loads:
            print("\n".join(rows(load, _samples(load, servers, Path(folder), options.rounds))), flush=True)


def _samples(load: Load, servers: dict[str, ServerProcess], folder: Path, rounds: int) -> dict[str, list[Sample]]:
    """Return what each server took in each round; a first round, in which everything is warmed, does not count."""
    samples: dict[str, list[Sample]] = {name: [] for name in servers}
    for turn in range(rounds + 1):
        for name, server in servers.items():
            sample = load.run(server, folder)
            if turn:
                samples[name].append(sample)
    return samples


def _print_facts() -> None:
    packages = ("mobysession", "grpcio", "grpclib", "h2", "trio")
    found = ", ".join(f"{package} {version(package)}" for package in packages)
    print(f"{found}; Python {platform.python_version()}; {os.cpu_count()} CPUs")
    print("unary calls: h2load, one connection; streams: grpcio's client; medians, ratio of medians (of the best)")


if __name__ == "__main__":
    sys.exit(main())

"""``python -m integration.bench_sessions``: measure all three, and print one table for each."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from typing import TYPE_CHECKING

from integration.bench_sessions.events import measure_events
from integration.bench_sessions.idle import measure_idle
from integration.bench_sessions.ready import measure_ready
from integration.engines import Engines
from mobysession.errors import MobysessionError

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH = 28


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(prog="integration.bench_sessions", description="What managed sessions cost.")
    parser.add_argument("--rounds", type=int, default=50, metavar="N", help="sessions of each kind [50]")
    parser.add_argument("--sessions", type=int, default=200, metavar="N", help="idle ones at once [200]")
    options = parser.parse_args(arguments)
    print(f"Python {platform.python_version()}; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    try:
        _print_ready(options.rounds)
    except MobysessionError as error:
        print(f"bench-sessions: {error}" + (f"\n\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 1
    print(f"\n{'idle, of ' + str(options.sessions):{_WIDTH}}{'KiB each':>12}")
    for name, size in measure_idle(options.sessions).items():
        print(f"{name:{_WIDTH}}{size / 1024:12.1f}")
    print(f"\n{'an event':{_WIDTH}}{'us':>12}")
    for name, cost in measure_events(20).items():
        print(f"{name:{_WIDTH}}{cost:12.2f}")
    return 0


def _print_ready(rounds: int) -> None:
    pool = Engines()
    try:
        for spec in pool.specs.values():
            if reason := spec.missing():
                print(f"{spec.id}: {reason}")
                continue
            engine = pool.get(spec.id)
            title = f"ready on {engine.version.partition('+')[0]}"
            print(f"\n{title:{_WIDTH}}{'ms, median':>12}{'best':>8}{'CPU ms':>8}")
            for taken in measure_ready(engine.host, rounds):
                print(f"{taken.name:{_WIDTH}}{taken.middle:12.2f}{taken.best:8.2f}{taken.cpu:8.2f}", flush=True)
    finally:
        pool.close()


if __name__ == "__main__":
    sys.exit(main())

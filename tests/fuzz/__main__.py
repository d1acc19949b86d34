"""The long run: ``python -m tests.fuzz [--seconds 60] [--seed N] [TARGET ...]``, what ``make fuzz`` calls.

The targets take turns until the time is over, each turn with numbers of its own. What fails is saved and printed with
the command that repeats it; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from pathlib import Path

from tests.fuzz.targets import TARGETS, Target

#: Where what was found is kept, until it is mended and has become a test.
FOUND = Path(__file__).parent / "found"
#: Seconds of one turn, and of the longest run that is no failure: a fuzzer's way of asking for bounded work.
_TURN = 0.5
_LONGEST = 5.0


def main(arguments: list[str] | None = None) -> int:
    """Run until the time is over; return the exit status."""
    options = _parse(arguments)
    chosen = [target for target in TARGETS if target.name in options.targets] if options.targets else list(TARGETS)
    if options.number is not None:
        for target in chosen:
            target.run(options.number)
        return 0
    print(f"fuzzing {', '.join(target.name for target in chosen)} for {options.seconds:g} s, seed {options.seed}")
    counts = dict.fromkeys(chosen, 0)
    end = time.monotonic() + options.seconds
    failed: set[Target] = set()
    while time.monotonic() < end and len(failed) < len(chosen):
        for target in chosen:
            if target not in failed and not _turn(target, counts, options.seed, min(end, time.monotonic() + _TURN)):
                failed.add(target)
    for target, count in counts.items():
        print(f"{target.name:10} {count:8} runs{'  FAILED' if target in failed else ''}")
    return 1 if failed else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--number", type=int, help="run this one case and nothing else")
    parser.add_argument("targets", nargs="*", metavar="TARGET", choices=[[], *(target.name for target in TARGETS)])
    return parser.parse_args(arguments)


def _turn(target: Target, counts: dict[Target, int], seed: int, end: float) -> bool:
    while (started := time.monotonic()) < end:
        number = (seed << 32) + counts[target]
        counts[target] += 1
        try:
            target.run(number)
            took = time.monotonic() - started
            if took > _LONGEST:
                raise TimeoutError(f"one run took {took:.1f} s")
        except Exception:
            _report(target, number)
            return False
    return True


def _report(target: Target, number: int) -> None:
    FOUND.mkdir(exist_ok=True)
    case = FOUND / f"{target.name}-{number}"
    # The input that the number stands for, for whoever wants to see it.
    case.write_bytes(target.damaged(random.Random(f"{target.name} {number}")))
    print(f"\n{target.name} failed with", file=sys.stderr)
    traceback.print_exc()
    print(f"repeat it: python -m tests.fuzz --number {number} {target.name}   (input: {case})\n", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

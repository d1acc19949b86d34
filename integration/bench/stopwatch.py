"""Run a program to its end and print what it took, as JSON; run by path, as a small process of its own.

A program inherits the peak memory of whoever started it, until it has more. So whoever starts it must be small, and
this imports nothing that the bare interpreter does not have.
"""

import os
import sys
import time


def main(argv: list[str]) -> None:
    """Run ``argv``, with our own stdin and stderr, its stdout going where stderr goes."""
    started = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    figures = f'"wall": {wall}, "cpu": {usage.ru_utime + usage.ru_stime}, "peak": {usage.ru_maxrss * 1024}'
    print(f'{{"status": {os.waitstatus_to_exitcode(status)}, {figures}}}')


if __name__ == "__main__":
    main(sys.argv[1:])

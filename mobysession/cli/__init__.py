"""The command line: one file a verb, arguments in, exit status out. stdout is data, stderr is talk.

Exit status: 0 done; 1 it failed; 2 wrong usage; 70 a fault of ours; 130 interrupted.
"""

from __future__ import annotations

import gc
import os
import sys

from mobysession._version import __version__

__all__ = ["entry", "main"]

_VERSION = ["--version"]


def entry() -> None:
    """Run the command line as a process of its own, and end the process.

    What is loaded stays to the end, so nobody looks for garbage in it: that would be a fifth of a small build's time.
    And at the end it is not taken apart object by object: that would be another 12 to 19 of its 300 ms.
    """
    gc.disable()
    arguments = sys.argv[1:]
    if arguments == _VERSION:
        status = main(arguments)
    else:
        from mobysession.cli.interrupts import die_of_interrupts

        die_of_interrupts()
        from mobysession.cli.deferred import defer_imports

        defer_imports()
        status = main(arguments)
        die_of_interrupts()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            status = status or 1
    os._exit(status)


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit status."""
    # Scripts ask for the version often; the frameworks behind the verbs take longer to load than to answer.
    try:
        if arguments == _VERSION:
            print(f"mobysession {__version__}", flush=True)
            return 0
        from mobysession.cli.app import run

        return run(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough; the interpreter must not trip over it again when it flushes.
        sys.stdout = None
        return 1

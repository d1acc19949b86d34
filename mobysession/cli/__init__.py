"""The command line: one file a verb, arguments in, exit status out. stdout is data, stderr is talk.

Exit status: 0 done; 1 it failed; 2 wrong usage; 70 a fault of ours; 130 interrupted.
"""

from __future__ import annotations

import gc
import sys

from mobysession._version import __version__

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status; without ``arguments`` the process is taken to be ours alone."""
    if arguments is None:
        # What is loaded stays to the end. Looking for garbage in it is a fifth of the time that a small build takes.
        gc.disable()
        try:
            return _main(sys.argv[1:])
        finally:
            gc.freeze()
    return _main(arguments)


def _main(arguments: list[str]) -> int:
    # Scripts ask for the version often; the frameworks behind the verbs take longer to load than to answer.
    try:
        if arguments == ["--version"]:
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

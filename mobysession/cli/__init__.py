"""The command line: one file a verb, arguments in, exit status out. stdout is data, stderr is talk.

Exit status: 0 done; 1 it failed; 2 wrong usage; 70 a fault of ours; 130 interrupted, 143 ended by SIGTERM.
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
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _fill_standard_streams()
    arguments = sys.argv[1:]
    if arguments == _VERSION:
        status = main(arguments)
    else:
        from mobysession.cli.interrupts import die_of_interrupts

        die_of_interrupts()
        from mobysession.cli.deferred import defer_imports
        from mobysession.cli.uncompiled import compile_late

        defer_imports()
        compile_late()
        status = main(arguments)
        die_of_interrupts()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            if not status and stream is sys.stdout and not isinstance(error, BrokenPipeError):
                print(f"ERROR: the output cannot be written: {error.strerror}", file=sys.stderr, flush=True)
            status = status or 1
    os._exit(status)


def _fill_standard_streams() -> None:
    """Put something in the place of streams that the process was started without.

    A socket of ours could get their numbers otherwise. Who reads or writes data there fails, as any program does whose
    input or output is closed; talk goes nowhere.
    """
    for number, name, flags, mode in (
        (0, "stdin", os.O_WRONLY, "r"),
        (1, "stdout", os.O_RDONLY, "w"),
        (2, "stderr", os.O_WRONLY, "w"),
    ):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the process ends
            setattr(sys, name, stream)


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit status."""
    # Scripts ask for the version often; the frameworks behind the verbs take longer to load than to answer.
    try:
        if arguments == _VERSION:
            return _tell_version()
        from mobysession.cli.app import run

        return run(arguments)
    except KeyboardInterrupt as interrupt:
        from mobysession.cli.interrupts import status_of

        return status_of(interrupt)
    except BrokenPipeError:
        # Whoever read our output has enough; the interpreter must not trip over it again when it flushes.
        sys.stdout = None
        return 1


def _tell_version() -> int:
    try:
        print(f"mobysession {__version__}", flush=True)
    except OSError:
        return 1
    return 0

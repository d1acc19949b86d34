"""What all verbs share, and how every failure becomes one line, a hint and an exit status."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from mobysession.cli.interrupts import Ended, raise_interrupts, status_of, tell_ends
from mobysession.cli.parser import complete, parse
from mobysession.errors import BuildFailed, EngineError, MobysessionError, RpcError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    import trio

    from mobysession.state.references import DaemonReference
    from mobysession.transport.endpoint import Endpoint

__all__ = ["Target", "run", "run_async"]

T = TypeVar("T")

_HANDLER = "mobysession command line"


class Target:
    """Which daemon the verbs talk to: ``--host``, ``--context``, what the environment says, or the active reference."""

    def __init__(self, host: str | None, context: str | None) -> None:
        self._host = host
        self._context = context
        self._chosen: tuple[Endpoint, DaemonReference | None] | None = None

    def endpoint(self, attach: str = "auto") -> Endpoint:
        """Return the endpoint; EndpointError where there is none. ``attach`` tells a buildkitd from an engine."""
        from mobysession.transport.endpoint import Endpoint

        if attach == "buildkitd" and self.is_default:
            return Endpoint.buildkitd()
        return self._choose()[0]

    def view(self, attach: str = "auto") -> str | None:
        """Return how the progress is shown on this daemon where nobody says; None where that was never said."""
        if attach == "buildkitd" and self.is_default:
            return None
        reference = self._choose()[1]
        return reference.view if reference is not None else None

    def _choose(self) -> tuple[Endpoint, DaemonReference | None]:
        from mobysession.transport.endpoint import Endpoint

        if self._chosen is None:
            found = Endpoint.from_env(host=self._host, context=self._context)
            self._chosen = found, None
            if found.is_default:
                from mobysession.state.active import stand_in

                self._chosen = stand_in(found)
        return self._chosen

    def around_build(self) -> AbstractAsyncContextManager[object]:
        """Return what a build runs inside of: nothing, unless a verb that watches one has a target of its own."""
        return nullcontext()

    @property
    def is_default(self) -> bool:
        """True where the command line names no daemon."""
        return self._host is None and self._context is None


def run(arguments: list[str]) -> int:
    """Run the verb that ``arguments`` name and return the exit status."""
    try:
        if "_ARGCOMPLETE" in os.environ:
            complete(os.environ.get("COMP_LINE", ""))
        verb, options = parse(arguments)
        _set_up_logging(options.verbose)
        return verb(Target(options.host, options.docker_context), options)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1
    except KeyboardInterrupt as interrupt:
        return status_of(interrupt)
    except MobysessionError as error:
        report(error)
        return error.exit_status
    except BrokenPipeError:
        # Whoever read our output has enough, which is for `main` to end.
        raise
    except OSError as error:
        # What we open ourselves raises errors of our own: this is stdout, on a full disk or a broken device.
        _say(f"ERROR: the output cannot be written: {error.strerror}")
        return 1
    except Exception as error:
        _report_fault(error)
        return 70


def run_async(function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Run a coroutine function on trio; Ctrl-C and SIGTERM cancel it wherever it waits, and raise KeyboardInterrupt."""
    import trio

    raise_interrupts()
    if not gc.isenabled():
        # `main` disabled it while everything was loaded; from now on there may be garbage.
        gc.freeze()
        gc.enable()
    ending = _Ending()
    tell_ends(ending.tell)
    try:
        return trio.run(ending.run, function, *arguments, restrict_keyboard_interrupt_to_checkpoints=True)
    finally:
        tell_ends(None)
        if ending.number:
            raise Ended(ending.number)


class _Ending:
    """The end of the process, as a loop is told of it; ``number`` is the signal's, 0 as long as there was none."""

    def __init__(self) -> None:
        import trio

        self.number = 0
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None

    def tell(self, number: int) -> None:
        """Cancel what runs; for signal handlers."""
        import trio

        self.number = number
        if self._token is None:
            # Nobody has entered the scope yet.
            self._scope.cancel()
        else:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)

    async def run(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run a coroutine function until it ends, or the process is told to."""
        import trio

        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            return await function(*arguments)
        raise Ended(self.number)


def report(error: MobysessionError) -> None:
    """Print an error on stderr: for a failed build the place in the Dockerfile, then one line, notes, the hint.

    What a daemon says may be part of either, so nothing in them may speak to the terminal.
    """
    from mobysession.buildkit.printable import printable

    if isinstance(error, BuildFailed):
        from mobysession.progress import render_failure

        sys.stderr.write(render_failure(error))
    # A failed build may need several lines; another error that claims to have them got them from outside.
    text = str(error) if isinstance(error, RpcError) else error.message or type(error).__name__
    _say(_alarm("ERROR: ") + printable(text, newlines=isinstance(error, (BuildFailed, EngineError))))
    for note in _shown_notes(error):
        _say(printable(f"note: {note}"))
    if error.hint:
        _say(printable(f"hint: {error.hint}", newlines=True))


def _shown_notes(error: MobysessionError) -> list[str]:
    """Return where it was, of several nodes or builds; what failed with it follows from it, and is for -v to show."""
    notes: list[str] = getattr(error, "__notes__", [])
    if not notes:
        return []
    import logging

    from mobysession.concurrency import ALSO_FAILED

    is_verbose = logging.getLogger("mobysession").isEnabledFor(logging.INFO)
    return [note for note in notes if is_verbose or not note.startswith(ALSO_FAILED)]


def _report_fault(error: Exception) -> None:
    import logging
    import traceback

    _say(f"mobysession failed in a way that it should not: {type(error).__name__}")
    if logging.getLogger("mobysession").isEnabledFor(logging.INFO):
        traceback.print_exception(error)
    else:
        _say("hint: Run it again with -v before the verb to see where, and report it.")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _alarm(text: str) -> str:
    """Return ``text`` bold and red where stderr is a terminal that may show colours."""
    if os.environ.get("NO_COLOR") or not sys.stderr.isatty():
        return text
    return f"\x1b[31;1m{text}\x1b[0m"


def _set_up_logging(verbose: int) -> None:
    import logging

    logger = logging.getLogger("mobysession")
    for old in [handler for handler in logger.handlers if handler.name == _HANDLER]:
        # Of an earlier run in this process, whose stderr may be closed by now.
        logger.removeHandler(old)
    handler = logging.StreamHandler()
    handler.name = _HANDLER
    handler.addFilter(_leave_table)
    handler.setFormatter(logging.Formatter("%(relativeCreated)6d %(levelname).1s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])


def _leave_table(_record: object) -> bool:
    """Let the progress table get out of the way of a line that is about to be logged; keep every line."""
    import threading

    table = sys.modules.get("mobysession.progress.tty")
    # Elsewhere it may be being drawn meanwhile.
    if table is not None and threading.current_thread() is threading.main_thread():
        table.leave_terminal()
    return True

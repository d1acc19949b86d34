"""Ctrl-C, and the signals by which others end a process: they do what Ctrl-C does, with a status of their own.

While there is nothing yet to be told, and nothing to be put back, they end the process, and that is all. Python raises
KeyboardInterrupt wherever it stands. In the midst of an import that may be a place where it is taken for something
else, or is printed and forgotten, with a traceback that speaks of no code of ours. As long as a process only loads
modules, nobody has to be told of its end; so it ends there, with the status of an interrupted one.

From then on Ctrl-C, SIGTERM, which CI systems and ``timeout`` send, and SIGHUP, which a terminal sends when it goes
away, raise `Ended`; while a trio loop runs, whoever runs it is told, and cancels what it does. A signal that the
process was started to ignore, as ``nohup`` does and a shell does for what it starts in the background, stays ignored.
The third signal ends the process, whatever it waits for.
"""

from __future__ import annotations

# What signal is made of: there in no time, in which no interrupt can come. signal itself loads enum.
import _signal  # type: ignore[import-not-found]  # it has no stubs of its own
import os

# Not from typing, for the same reason.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import NoReturn

__all__ = ["Ended", "die_of_interrupts", "raise_interrupts", "status_of", "tell_ends"]

#: What shells add to a signal's number.
_SHELL = 128
#: Windows has no SIGHUP.
_ENDS = tuple(getattr(_signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(_signal, name))
#: How often it takes, until nothing is waited for any more; as docker's CLI counts it.
_PATIENCE = 3
_ends = 0

_listener: Callable[[int], object] | None = None


class Ended(KeyboardInterrupt):
    """The process was told to end.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def die_of_interrupts() -> None:
    """End the process at once when it is interrupted or told to end, unless it was started so that it cannot be."""
    for number in _ENDS:
        if _signal.getsignal(number) in (_signal.SIG_DFL, _signal.default_int_handler, _end):
            _signal.signal(number, _die)


def raise_interrupts() -> None:
    """Have interrupts and ends raise KeyboardInterrupt, where `die_of_interrupts` said otherwise."""
    for number in _ENDS:
        if _signal.getsignal(number) is _die:
            _signal.signal(number, _end)


def tell_ends(listener: Callable[[int], object] | None) -> None:
    """Have ``listener`` called with the number of a signal that ends the process; None: `Ended` is raised instead."""
    global _listener
    _listener = listener


def status_of(interrupt: KeyboardInterrupt) -> int:
    """Return the exit status of a process that was interrupted, as shells show it."""
    return _SHELL + (interrupt.number if isinstance(interrupt, Ended) else int(_signal.SIGINT))


def _die(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(_SHELL + number)


def _end(number: int, frame: FrameType | None) -> None:
    global _ends
    _ends += 1
    if _ends >= _PATIENCE:
        # A thread of ours waits for what does not come, for the other end of a pipe, say.
        _die(number, frame)
    if _listener is None:
        raise Ended(number)
    _listener(number)

"""Ctrl-C while there is nothing yet to be told, and nothing to be put back: it ends the process, and that is all.

Python raises KeyboardInterrupt wherever it stands. In the midst of an import that may be a place where it is taken for
something else, or is printed and forgotten, with a traceback that speaks of no code of ours. As long as a process only
loads modules, nobody has to be told of its end; so it ends there, with the status of an interrupted one.
"""

from __future__ import annotations

# What signal is made of: there in no time, in which no interrupt can come. signal itself loads enum.
import _signal  # type: ignore[import-not-found]  # it has no stubs of its own
import os

# Not from typing, for the same reason.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

__all__ = ["die_of_interrupts", "raise_interrupts"]

_INTERRUPTED = 130


def die_of_interrupts() -> None:
    """End the process at once when it is interrupted, unless it was started so that it cannot be."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _die)


def raise_interrupts() -> None:
    """Have interrupts raise KeyboardInterrupt again, where `die_of_interrupts` said otherwise."""
    if _signal.getsignal(_signal.SIGINT) is _die:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def _die(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(_INTERRUPTED)

"""Ctrl-C reaches what the tests start, however they were started themselves."""

from __future__ import annotations

import signal

__all__ = ["heed_interrupts"]


def heed_interrupts() -> None:
    """Let SIGINT interrupt again where this process was started to ignore it; what it starts would inherit that.

    A shell starts so what it runs in the background, and pytest-xdist its processes.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

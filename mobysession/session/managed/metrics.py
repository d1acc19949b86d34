"""The counters of a manager as OpenTelemetry metrics, where the program has set up somebody who reads them.

They are observed: nothing is done until a reader asks. What is told are the sums of all managers of the process.

===================================  ===================  ==========================================================
``mobysession.sessions.active``      up-down counter      sessions that live
``mobysession.sessions.opened``      counter              that a daemon has confirmed
``mobysession.sessions.failed``      counter              that could not be opened or were lost
``mobysession.sessions.duration``    counter, in seconds  that those which have ended lived, together
``mobysession.callbacks``            counter              calls of daemons, by ``rpc.method``
``mobysession.callbacks.io``         counter, in bytes    of their messages, by ``direction``: receive, transmit
===================================  ===================  ==========================================================
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mobysession.session.managed.counters import PROCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Observation

__all__ = ["observe"]

_registered = False


def observe() -> None:
    """Let OpenTelemetry observe the process's tally; nothing happens in a program that has not loaded it."""
    global _registered
    # Loaded by whoever set up a reader. To load it here would cost a tenth of a second, and nobody would read.
    if _registered or "opentelemetry.metrics" not in sys.modules:
        return
    _registered = True
    from opentelemetry.metrics import get_meter

    meter = get_meter("mobysession")
    up_down = meter.create_observable_up_down_counter
    up_down("mobysession.sessions.active", [_sum("active")], "{session}", "Sessions that live")
    add = meter.create_observable_counter
    add("mobysession.sessions.opened", [_sum("opened")], "{session}", "Sessions that a daemon has confirmed")
    add("mobysession.sessions.failed", [_sum("failed")], "{session}", "Sessions that failed or were lost")
    add("mobysession.sessions.duration", [_sum("seconds")], "s", "Life of the sessions that have ended")
    add("mobysession.callbacks", [_by_method], "{call}", "Calls of daemons")
    add("mobysession.callbacks.io", [_io], "By", "Bytes of their messages")


def _sum(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observed(_: CallbackOptions) -> Iterable[Observation]:
        return [_observation(getattr(PROCESS, name))]

    return observed


def _by_method(_: CallbackOptions) -> Iterable[Observation]:
    return [_observation(count, {"rpc.method": method}) for method, count in PROCESS.callbacks.items()]


def _io(_: CallbackOptions) -> Iterable[Observation]:
    return [
        _observation(PROCESS.bytes_received, {"direction": "receive"}),
        _observation(PROCESS.bytes_sent, {"direction": "transmit"}),
    ]


def _observation(value: float, attributes: dict[str, Any] | None = None) -> Observation:
    from opentelemetry.metrics import Observation

    return Observation(value, attributes)

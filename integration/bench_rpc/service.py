"""The service that every server of the benchmark offers: messages are plain bytes, so that no codec is measured.

``Echo`` answers a message with itself. ``Down`` is asked for a number of messages of a size and sends them. ``Up``
takes messages and answers with the number of their bytes.
"""

from __future__ import annotations

import sys
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DOWN", "ECHO", "ORDER", "PREFIX", "SERVICE", "TOTAL", "UP", "announce", "framed"]

SERVICE = "bench.Rpc"
ECHO = f"/{SERVICE}/Echo"
DOWN = f"/{SERVICE}/Down"
UP = f"/{SERVICE}/Up"

#: What `DOWN` is asked: the number of messages, and the bytes of each.
ORDER = Struct(">II")
#: What `UP` answers.
TOTAL = Struct(">Q")
#: gRPC's own, in front of each message.
PREFIX = Struct(">BL")


def framed(message: bytes) -> bytes:
    """Return a message with gRPC's prefix."""
    return PREFIX.pack(0, len(message)) + message


def announce(port: int, end: Callable[[], object] | None = None) -> None:
    """Tell the benchmark the port and wait until it closes our stdin; then call ``end``."""
    print(port, flush=True)
    sys.stdin.read()
    if end is not None:
        end()

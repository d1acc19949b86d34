"""The nodes of the graph: an operation, what it works on, and what is said about it.

A vertex holds its operation without the inputs, which are known by digests that only the finished graph has.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from mobysession._pb import ops_pb2
from mobysession.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

__all__ = ["Location", "Output", "Vertex", "check_state", "check_texts", "parse_platform"]

_HERE = os.path.dirname(__file__) + os.sep


class Location(NamedTuple):
    """Where in the caller's code an operation was written; lines count from 1."""

    file: str
    line: int


class Vertex:
    """One operation; compared by identity, for two that say the same have the same digest anyhow.

    Args:
        op: the operation, without inputs. Not to be changed afterwards.
        inputs: what it works on, in the order in which ``op`` counts them.
        caps: what a BuildKit must know to execute it (moby/buildkit solver/pb/caps.go).
        name: what progress calls it; empty: what BuildKit makes of it.
        ignore_cache: execute it always.
        takes_platform: it is another on another platform.
    """

    __slots__ = ("caps", "ignore_cache", "inputs", "location", "name", "op", "takes_platform")

    def __init__(
        self,
        op: ops_pb2.Op,
        inputs: Iterable[Output] = (),
        *,
        caps: Iterable[str] = (),
        name: str = "",
        ignore_cache: bool = False,
        takes_platform: bool = False,
    ) -> None:
        self.op = op
        self.inputs = tuple(inputs)
        self.caps = frozenset(caps)
        self.name = name
        self.ignore_cache = ignore_cache
        self.takes_platform = takes_platform
        self.location = _caller()


class Output(NamedTuple):
    """One of the file systems that an operation leads to, which it counts from 0."""

    vertex: Vertex
    number: int = 0


def _caller() -> Location | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_HERE):
            return Location(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def check_texts(**given: object) -> None:
    """Refuse arguments, given by their names, that are no texts; UsageError."""
    for name, value in given.items():
        if not isinstance(value, str):
            hint = "Write it as a text, str(path)." if isinstance(value, os.PathLike) else None
            raise UsageError(f"{name} takes a text, not an object of type {type(value).__name__}", hint=hint)


def check_state(function: str, given: object) -> None:
    """Refuse what is no state, as an argument of ``function``; UsageError."""
    if not hasattr(given, "output"):
        raise UsageError(f"{function} takes a state, not an object of type {type(given).__name__}")


def parse_platform(text: str) -> ops_pb2.Platform:
    """Read ``linux/arm64`` or ``linux/arm/v7``.

    Raises:
        UsageError: it is something else.
    """
    check_texts(platform=text)
    parts = text.lower().split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise UsageError(f"{text!r} is no platform", hint="Write it as linux/amd64 or linux/arm/v7.")
    return ops_pb2.Platform(OS=parts[0], Architecture=parts[1], Variant=parts[2] if len(parts) == 3 else "")

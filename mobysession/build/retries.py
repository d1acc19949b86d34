"""Whether a build may be asked for again after its engine went away.

What a build does before it exports is work in the engine's cache, and doing it twice changes nothing. What it exports
is seen by others: a file here, a name in a registry. So a build is repeated only while no export of it was begun, as
far as the engine has told; and what was told before the connection broke is all that can be known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mobysession.errors import ConnectError, ConnectionLost, SessionLost, UsageError

if TYPE_CHECKING:
    from mobysession.build.options import BuildOptions
    from mobysession.buildkit.status import BuildStatus

__all__ = ["Attempts", "check_repeatable"]

#: How the steps begin that bring a result to somebody: to the store, to a registry, to us, to a cache.
_EXPORTS: Final = ("exporting ", "pushing ", "sending ")


class Attempts:
    """The attempts at one build, and what the engine told of the present one.

    Args:
        retries: how often it may be asked for again.
    """

    def __init__(self, retries: int) -> None:
        self._left = retries
        self._attached = False
        self._status: BuildStatus | None = None

    def told(self, status: BuildStatus) -> None:
        """Take the status of the present attempt."""
        self._status = status

    def may_repeat(self, error: Exception) -> bool:
        """Tell whether to ask again, which counts as asking again.

        An engine that could never be reached did not go away; one that was there and cannot be reached now did.
        """
        if isinstance(error, (SessionLost, ConnectionLost)):
            self._attached = True
        elif not (self._attached and isinstance(error, ConnectError)):
            return False
        if not self._left or (self._status is not None and _has_exported(self._status)):
            return False
        self._left -= 1
        self._status = None
        return True


def check_repeatable(options: BuildOptions) -> None:
    """Refuse to repeat what can be done once only; UsageError where stdin is read."""
    if "-" in (options.context, options.file):
        raise UsageError("a build that reads stdin cannot be repeated: stdin is read once", hint="Leave retries out.")


def _has_exported(status: BuildStatus) -> bool:
    return bool(status.arrivals) or any(
        vertex.is_started and vertex.name.startswith(_EXPORTS) for vertex in status.vertices
    )

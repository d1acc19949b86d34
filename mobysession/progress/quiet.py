"""Silence up to the end; the logs of the failed steps when it ends in an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from mobysession.progress.text import failed_logs, write

if TYPE_CHECKING:
    from mobysession.buildkit.status import BuildStatus, Changes

__all__ = ["QuietView"]


class QuietView:
    """A view that writes only why a build failed."""

    interval = 60.0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._status: BuildStatus | None = None

    def update(self, status: BuildStatus, changes: Changes) -> None:
        """Remember the model; show nothing."""
        self._status = status

    def tick(self) -> None:
        """Show nothing."""

    def close(self, error: BaseException | None = None) -> None:
        """Write the logs of the failed steps after an error."""
        status, self._status = self._status, None
        if status is not None and error is not None:
            write(self._stream, list(failed_logs(status)))

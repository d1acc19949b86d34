"""What a running build reports, folded into one status and shown by one view."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession._pb import control_pb2
    from mobysession.buildkit.status import BuildStatus
    from mobysession.progress.view import View

__all__ = ["BuildProgress"]


class BuildProgress:
    """The status of one build, its view, and whoever else listens."""

    def __init__(self, view: View | None = None, listener: Callable[[BuildStatus], None] | None = None) -> None:
        self.view = view
        self._listener = listener

    @cached_property
    def status(self) -> BuildStatus:
        """The model; loaded when the engine has something to tell."""
        from mobysession.buildkit.status import BuildStatus

        return BuildStatus()

    def apply(self, response: control_pb2.StatusResponse) -> None:
        """Take the next message of the engine."""
        changes = self.status.apply(response)
        if self.view is not None:
            self.view.update(self.status, changes)
        if self._listener is not None:
            self._listener(self.status)

    def finish(self) -> None:
        """Take the news that no more messages will come."""
        changes = self.status.finish()
        if changes and self.view is not None:
            self.view.update(self.status, changes)

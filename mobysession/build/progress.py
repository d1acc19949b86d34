"""What a running build reports, folded into one status and shown by one view."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession._pb import control_pb2
    from mobysession.build.hiding import StatusHiding
    from mobysession.build.leaks import LeakWatch
    from mobysession.buildkit.status import BuildStatus
    from mobysession.buildkit.transfer import Transfer
    from mobysession.progress.timeline import Timeline
    from mobysession.progress.view import View
    from mobysession.redaction import Redactor
    from mobysession.services.filesend import ReceivedOutput

__all__ = ["BuildProgress"]


class BuildProgress:
    """The status of one build, its view, and whoever else listens.

    Args:
        view: what shows it.
        listener: called with the status after each message.
        redactor: hides secrets in each message before anything is made of it.
        leaks: is told of steps that print one, and what it has found becomes warnings of the build.
    """

    def __init__(
        self,
        view: View | None = None,
        listener: Callable[[BuildStatus], None] | None = None,
        redactor: Redactor | None = None,
        leaks: LeakWatch | None = None,
    ) -> None:
        self.view = view
        self.redactor = redactor
        self._hiding: StatusHiding | None = None
        self._listener = listener
        self._leaks = leaks
        #: Remembers the build for who wants to see it over time.
        self.timeline: Timeline | None = None

    @cached_property
    def status(self) -> BuildStatus:
        """The model; loaded when the engine has something to tell."""
        from mobysession.buildkit.status import BuildStatus

        return BuildStatus()

    def apply(self, response: control_pb2.StatusResponse) -> None:
        """Take the next message of the engine, which is changed where it shows a secret."""
        if self.redactor and self._hiding is None:
            from mobysession.build.hiding import StatusHiding

            self._hiding = StatusHiding(self.redactor, self._leaks)
        for message in [response] if self._hiding is None else self._hiding.hide(response):
            self._take(message)

    def _take(self, response: control_pb2.StatusResponse) -> None:
        if self._leaks is not None:
            response.warnings.extend(self._leaks.take())
        changes = self.status.apply(response)
        if self.timeline is not None:
            self.timeline.update(self.status, changes)
        if self.view is not None:
            self.view.update(self.status, changes)
        if self._listener is not None:
            self._listener(self.status)

    def transfer(self, name: str, progress: Transfer) -> None:
        """Take how far the transfer of a directory is."""
        self.status.transfers[name] = progress
        if self._listener is not None:
            self._listener(self.status)

    def arrival(self, output: ReceivedOutput) -> None:
        """Take how far an output is."""
        self.status.arrivals[output.exporter] = output
        if self._listener is not None:
            self._listener(self.status)

    def finish(self) -> None:
        """Take the news that no more messages will come."""
        for message in self._hiding.rest() if self._hiding is not None else ():
            self._take(message)
        changes = self.status.finish()
        if self.timeline is not None:
            self.timeline.update(self.status, changes)
        if changes and self.view is not None:
            self.view.update(self.status, changes)

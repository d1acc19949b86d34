"""A view that keeps still while somebody is asked a question on the same terminal.

What happens meanwhile is shown afterwards, in order. A view that redraws leaves the place where it draws first, if it
has a method ``leave``, and begins anew below the question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession.buildkit.status import BuildStatus, Changes
    from mobysession.progress.view import View

__all__ = ["HeldView"]


class HeldView:
    """Another view, which `hold` stops and lets go on.

    Args:
        view: what shows the build.

    Attributes:
        on_close: called when it is closed; nothing, unless somebody sets it.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._questions = 0
        self._held: list[tuple[BuildStatus, Changes]] = []
        self.on_close: Callable[[], None] = _nothing

    @property
    def interval(self) -> float:
        """Seconds between ticks."""
        return self._view.interval

    def hold(self, asking: bool) -> None:
        """Keep still from the first question on (True) to the end of the last one (False)."""
        if asking and not self._questions:
            self.leave()
        self._questions += 1 if asking else -1
        if not self._questions:
            self._go_on()

    def update(self, status: BuildStatus, changes: Changes) -> None:
        """Show what one message changed, now or later."""
        if self._questions:
            self._held.append((status, changes))
        else:
            self._view.update(status, changes)

    def leave(self) -> None:
        """Take what is drawn away, where the view can."""
        leave: Callable[[], None] = getattr(self._view, "leave", _nothing)
        leave()

    def tick(self) -> None:
        """Take notice that time has passed, unless a question is on the terminal."""
        if not self._questions:
            self._view.tick()

    def close(self, error: BaseException | None = None) -> None:
        """Show what was held back, and close the view."""
        self.on_close()
        self._go_on()
        self._view.close(error)

    def _go_on(self) -> None:
        held, self._held = self._held, []
        for status, changes in held:
            self._view.update(status, changes)


def _nothing() -> None:
    pass

"""Silence, for better or worse."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobysession.buildkit.status import BuildStatus, Changes

__all__ = ["SilentView"]


class SilentView:
    """A view that shows nothing, for who must give one."""

    interval = 60.0

    def update(self, status: BuildStatus, changes: Changes) -> None:
        """Show nothing."""

    def tick(self) -> None:
        """Show nothing."""

    def close(self, error: BaseException | None = None) -> None:
        """Show nothing, not even why it failed."""

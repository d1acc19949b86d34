"""How far the reading of one of our directories is, as the status of a build has it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Transfer"]


class Transfer(Protocol):
    """Figures of the latest call of the engine for one directory; `mobysession.filesync.TransferProgress` has them."""

    @property
    def entries(self) -> int:
        """Entries announced so far, of every kind."""
        ...

    @property
    def files(self) -> int:
        """Files among them."""
        ...

    @property
    def offered_bytes(self) -> int:
        """What these hold together."""
        ...

    @property
    def requested(self) -> int:
        """Files that the engine asked for."""
        ...

    @property
    def sent(self) -> int:
        """Files sent completely."""
        ...

    @property
    def sent_bytes(self) -> int:
        """Content sent, in bytes."""
        ...

    @property
    def listed(self) -> bool:
        """Whether all entries were announced."""
        ...

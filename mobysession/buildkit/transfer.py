"""How far the reading of one of our directories and the writing of an output are, as the status of a build has it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Arrival", "Transfer"]


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


class Arrival(Protocol):
    """Figures of an output that the engine sends us; `mobysession.services.filesend.ReceivedOutput` has them."""

    @property
    def path(self) -> str | None:
        """The file or the directory it is in; None where it is in neither."""
        ...

    @property
    def files(self) -> int:
        """Files received completely; a stream is one."""
        ...

    @property
    def size(self) -> int:
        """Content received, in bytes."""
        ...

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        ...

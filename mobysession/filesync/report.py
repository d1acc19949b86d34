"""What a transfer amounted to, while it goes on and at its end."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["TransferProgress", "TransferReport"]


class TransferProgress(NamedTuple):
    """How far a transfer has come.

    Attributes:
        entries: entries announced, of every kind.
        files: files among them.
        offered_bytes: what these files hold together.
        requested: files asked for.
        sent: files sent completely.
        sent_bytes: content sent, in bytes.
        listed: whether all entries were announced.
        odd_path: the first path that is not UTF-8, which Docker 27.4 and later refuse; empty for none.
    """

    entries: int = 0
    files: int = 0
    offered_bytes: int = 0
    requested: int = 0
    sent: int = 0
    sent_bytes: int = 0
    listed: bool = False
    odd_path: bytes = b""


class TransferReport(NamedTuple):
    """What a transfer came to in the end.

    Attributes:
        progress: the figures.
        warnings: one line for each file that was not as large as it had been announced, up to a bound.
        omitted_warnings: how many more there were.
    """

    progress: TransferProgress
    warnings: tuple[str, ...] = ()
    omitted_warnings: int = 0

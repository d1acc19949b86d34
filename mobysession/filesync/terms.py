"""On which terms a tree is received: when a file counts as the same, and how much is accepted; and what came of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mobysession import limits

__all__ = ["Differ", "ReceiveLimits", "ReceiveReport"]


class Differ(enum.Enum):
    """When a file that is there already counts as the same."""

    #: Never: every file is asked for.
    NONE = "none"
    #: When its metadata are the same.
    METADATA = "metadata"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiveLimits:
    """What is accepted of one tree. The error of a transfer that is over a limit names it.

    Attributes:
        entries: files, directories and everything else together.
        listing: bytes of their announcements: names and attributes.
        path: bytes of one path below the root.
        size: bytes of the contents of all files together; None: as many as the disk takes.
        open_files: files that arrive interleaved.
    """

    entries: int = limits.MAX_RECEIVED_ENTRIES
    listing: int = limits.MAX_RECEIVED_LISTING
    path: int = limits.MAX_RECEIVED_PATH
    size: int | None = None
    open_files: int = limits.MAX_RECEIVED_OPEN


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceiveReport:
    """What was received.

    Attributes:
        entries: entries listed.
        requested: files asked for.
        received: files that arrived.
        received_bytes: their content.
        removed: entries removed because they were not listed; one for a directory with all below it.
    """

    entries: int = 0
    requested: int = 0
    received: int = 0
    received_bytes: int = 0
    removed: int = 0

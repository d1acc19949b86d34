"""fsutil's DiffCopy: a tree of files offered entry by entry, and sent file by file as the receiver asks.

`send_tree` plays the sender, which is the client's part when the daemon reads a build context; `receive_tree` the
receiver. A tree is a `Source`; `Directory` is one.
"""

from mobysession.filesync.directory import Directory
from mobysession.filesync.sender import PacketStream, TransferProgress, TransferReport, send_tree
from mobysession.filesync.source import Content, Entry, Source

# Not from typing: see the package itself.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from mobysession.filesync.receiver import Differ, ReceiveReport, receive_tree

__all__ = [
    "Content",
    "Differ",
    "Directory",
    "Entry",
    "PacketStream",
    "ReceiveReport",
    "Source",
    "TransferProgress",
    "TransferReport",
    "receive_tree",
    "send_tree",
]


def __getattr__(name: str) -> object:
    """Load the receiver on first use (PEP 562): most builds only send."""
    if name not in ("Differ", "ReceiveReport", "receive_tree"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mobysession.filesync import receiver

    value: object = getattr(receiver, name)
    globals()[name] = value
    return value

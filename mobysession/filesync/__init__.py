"""fsutil's DiffCopy: a tree of files offered entry by entry, and sent file by file as the receiver asks.

`send_tree` plays the sender, which is the client's part when the daemon reads a build context; `receive_tree` the
receiver. A tree is a `Source`; `Directory` is one.
"""

from mobysession.filesync.directory import Directory
from mobysession.filesync.source import Content, Entry, Source

# Not from typing: see the package itself.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from mobysession.filesync.receiver import Differ, ReceiveReport, receive_tree
    from mobysession.filesync.sender import PacketStream, TransferProgress, TransferReport, send_tree

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

_PART_OF = {
    "Differ": "receiver",
    "PacketStream": "sender",
    "ReceiveReport": "receiver",
    "TransferProgress": "sender",
    "TransferReport": "sender",
    "receive_tree": "receiver",
    "send_tree": "sender",
}


def __getattr__(name: str) -> object:
    """Load the two parts on first use (PEP 562): a build only sends, and not before the daemon asks."""
    from importlib import import_module

    part = _PART_OF.get(name)
    if part is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{part}"), name)
    globals()[name] = value
    return value

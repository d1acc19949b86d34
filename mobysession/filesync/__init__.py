"""fsutil's DiffCopy: a tree of files offered entry by entry, and sent file by file as the receiver asks.

`send_tree` plays the sender, which is the client's part when the daemon reads a build context. A tree is a `Source`;
`Directory` is one.
"""

from mobysession.filesync.directory import Directory
from mobysession.filesync.source import Content, Entry, Source

# Not from typing: see the package itself.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from mobysession.filesync.sender import PacketStream, TransferProgress, TransferReport, send_tree

__all__ = [
    "Content",
    "Directory",
    "Entry",
    "PacketStream",
    "Source",
    "TransferProgress",
    "TransferReport",
    "send_tree",
]

_LATER = frozenset({"PacketStream", "TransferProgress", "TransferReport", "send_tree"})


def __getattr__(name: str) -> object:
    """Load the sender on first use (PEP 562): that is not before the daemon asks."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.sender"), name)
    globals()[name] = value
    return value

"""fsutil's DiffCopy: a tree of files offered entry by entry, and sent file by file as the receiver asks.

`send_tree` plays the sender, which is the client's part when the daemon reads a build context. A tree is a `Source`:
a `Directory`, a mapping (`Files`), a `ZipArchive` or `TarArchive`, a commit (`GitTree`), package data (`Resources`), an
`FsspecTree`, several as an `Overlay`, or one of your own. `receive_tree` plays the receiver, when the daemon sends an
output.
"""

from mobysession.filesync.directory import Directory
from mobysession.filesync.source import UNKNOWN_SIZE, Content, Entry, Source

# Not from typing: see the package itself.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from mobysession.filesync.files import File, Files, FilesLike, Link
    from mobysession.filesync.fsspec_tree import FsspecTree
    from mobysession.filesync.git_tree import GitTree
    from mobysession.filesync.overlay import Overlay
    from mobysession.filesync.receiver import Differ, ReceiveLimits, ReceiveReport, receive_tree
    from mobysession.filesync.resources import Resources
    from mobysession.filesync.sender import PacketStream, TransferProgress, TransferReport, send_tree
    from mobysession.filesync.sources import as_source
    from mobysession.filesync.tar_archive import TarArchive
    from mobysession.filesync.zip_archive import ZipArchive

__all__ = [
    "as_source",
    "Content",
    "Differ",
    "Directory",
    "Entry",
    "File",
    "Files",
    "FilesLike",
    "FsspecTree",
    "GitTree",
    "Link",
    "Overlay",
    "PacketStream",
    "receive_tree",
    "ReceiveLimits",
    "ReceiveReport",
    "Resources",
    "send_tree",
    "Source",
    "TarArchive",
    "TransferProgress",
    "TransferReport",
    "UNKNOWN_SIZE",
    "ZipArchive",
]

_LATER = {
    **dict.fromkeys(("File", "Files", "FilesLike", "Link"), "files"),
    "FsspecTree": "fsspec_tree",
    "GitTree": "git_tree",
    "Overlay": "overlay",
    "Resources": "resources",
    "TarArchive": "tar_archive",
    "ZipArchive": "zip_archive",
    "as_source": "sources",
    **dict.fromkeys(("PacketStream", "TransferProgress", "TransferReport", "send_tree"), "sender"),
    **dict.fromkeys(("Differ", "ReceiveLimits", "ReceiveReport", "receive_tree"), "receiver"),
}


def __getattr__(name: str) -> object:
    """Load what most builds do not need, or only when the daemon asks, on first use (PEP 562)."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value

"""What a receiver checks of a listing before it believes any of it.

Paths are clean and stay inside; they come in the order of the walk, each below a directory that was announced; a hard
link names a file that came before it.

Source: tonistiigi/fsutil validator.go and hardlinks.go.
"""

from __future__ import annotations

import posixpath

from mobysession.errors import RemoteProtocolError
from mobysession.filesync.modes import DIRECTORY, SYMLINK
from mobysession.filesync.naming import quote

__all__ = ["Validator"]


class Validator:
    """Check the entries of one listing, in the order in which they arrive."""

    def __init__(self) -> None:
        #: The directories that lead to the last entry, each with the name last seen in it.
        self._branch: list[tuple[bytes, bytes]] = [(b"", b"")]
        self._files: set[bytes] = set()

    def check(self, path: bytes, mode: int, link: bytes) -> None:
        """Check the next entry; raise `RemoteProtocolError` when the peer must not have sent it."""
        self._check_path(path)
        self._check_order(path, mode & DIRECTORY != 0)
        if mode & (DIRECTORY | SYMLINK):
            return
        if not link:
            self._files.add(path)
        elif link not in self._files:
            shown = path.decode("utf-8", "backslashreplace")
            raise RemoteProtocolError(f"invalid link {shown} to unknown path: {quote(link)}")

    def _check_path(self, path: bytes) -> None:
        fault = None
        # posixpath keeps a leading "//", which Go's Clean does not.
        if posixpath.normpath(path) != path or path.startswith(b"//") or b"\0" in path:
            fault = "unclean path"
        elif path.startswith(b"/"):
            fault = "absolute path"
        elif path in (b".", b"..") or path.startswith(b"../"):
            fault = "escape check"
        if fault is not None:
            raise RemoteProtocolError(f"{fault} {quote(path)}: invalid argument")

    def _check_order(self, path: bytes, is_directory: bool) -> None:
        directory, _, name = path.rpartition(b"/")
        while len(self._branch) > 1 and not _leads_to(self._branch[-1][0], directory):
            self._branch.pop()
        known, last = self._branch[-1]
        if known != directory or last >= name:
            before = known + b"/" + last if known else last
            raise RemoteProtocolError(f"changes out of order: {quote(path)} {quote(before)}")
        self._branch[-1] = (known, name)
        if is_directory:
            self._branch.append((path, b""))


def _leads_to(directory: bytes, path: bytes) -> bool:
    return path == directory or path.startswith(directory + b"/")

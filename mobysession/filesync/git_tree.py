"""A commit of a local git repository as a tree, without a checkout.

Names and modes come from ``git ls-tree``, contents from ``git cat-file`` when they are asked for: what is committed,
with no filter, hook or attribute of the repository applied (files in LFS are their pointers), and with nothing of the
working tree. Submodules are empty directories, as in ``git archive``.

Git has no times. The mtime is derived from the content, so that an engine that has an earlier commit is only sent what
differs.
"""

from __future__ import annotations

import os
import subprocess
import threading
from typing import TYPE_CHECKING, Final, cast

from mobysession import limits
from mobysession.errors import ContextError, UsageError
from mobysession.filesync.held import Held
from mobysession.filesync.modes import DIRECTORY, SYMLINK
from mobysession.filesync.naming import quote, reason
from mobysession.filesync.source import Entry
from mobysession.filesync.tree import IndexedTree, Leaf, content_time

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mobysession.filesync.source import Content
    from mobysession.filesync.tree import Branches

__all__ = ["GitTree"]

#: Larger files get a process of their own, which can stop in the middle while others are read.
_SMALL: Final = 1 * limits.MIB
_MODES: Final = {b"100644": 0o644, b"100755": 0o755, b"100664": 0o664, b"120000": SYMLINK | 0o777}
#: What in the environment would lead git to another repository than the one that was given.
_MISLEADING: Final = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_NAMESPACE", "GIT_COMMON_DIR")


class GitTree(IndexedTree):
    """Offer a commit of a local repository.

    Args:
        repository: a directory in its working tree, or a bare repository.
        commit: anything that git understands as one, and as a part of it: ``HEAD``, a tag, a hash, ``main~3``,
            ``HEAD:docs`` for a directory of it.
    """

    def __init__(self, repository: str | os.PathLike[str] = ".", commit: str = "HEAD") -> None:
        self._repository = os.fspath(repository)
        self._commit = commit
        super().__init__(f"{quote(commit)} of the repository {quote(self._repository)}")
        self._held = Held(lambda: _Batch(self._argv("cat-file", "--batch")))

    def __repr__(self) -> str:
        return f"GitTree({self._repository!r}, {self._commit!r})"

    @property
    def location(self) -> str:
        """The repository, whatever the commit: what two commits have in common is found again."""
        return f"git:{os.path.realpath(self._repository)}"

    def opened(self) -> AbstractContextManager[None]:
        """Keep the process that reads contents between two files."""
        return self._held.held()

    def check(self) -> None:
        """Resolve the commit anew and list it; see `Source.check`."""
        root = self._grow()
        with self._lock:
            self._root = root

    def _argv(self, *arguments: str) -> list[str]:
        return ["git", "-C", self._repository, "--no-pager", *arguments]

    def _run(self, *arguments: str) -> bytes:
        try:
            done = subprocess.run(  # noqa: S603  # git itself; what is given follows --end-of-options or is a hash
                self._argv(*arguments), env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
        except OSError as error:
            raise ContextError(
                f"git cannot be run: {reason(error)}", hint="install git, or build from a checkout"
            ) from error
        except ValueError as error:  # a NUL, or what no encoding has
            raise UsageError(f"{self._what} cannot be asked for: {error}") from error
        if done.returncode:
            words = done.stderr.decode("utf-8", "replace").strip().splitlines()[:1]
            raise ContextError(f"{self._what} cannot be read: {' '.join(words)}")
        return done.stdout

    def _index(self, branches: Branches) -> None:
        tree = self._run("rev-parse", "--verify", "--end-of-options", self._commit + _PEEL[":" in self._commit])
        listing = self._run("ls-tree", "-r", "-t", "-z", "-l", "--full-tree", tree.decode().strip())
        with self._held.held():
            for line in filter(None, listing.split(b"\0")):
                about, _, path = line.partition(b"\t")
                mode, kind, blob, size = about.split()
                branches.add(path, self._leaf(mode, kind, blob, size))

    def _leaf(self, mode: bytes, kind: bytes, blob: bytes, size: bytes) -> Leaf:
        if kind != b"blob":
            return Leaf(Entry(b"", DIRECTORY | 0o755, mtime=content_time(0)))
        if not size.isdigit():
            raise ContextError(
                f"{self._what} cannot be read: object {blob.decode()} is missing or damaged",
                hint="git fsck lists what a repository lacks; git fetch --refetch gets it again",
            )
        entry = Entry(b"", _MODES.get(mode, 0o644), int(size), content_time(int(blob, 16)))
        link = self._contents(blob, int(size)) if entry.mode & SYMLINK else b""
        return Leaf(entry, blob, link)

    def _read(self, leaf: Leaf, path: bytes) -> bytes | Content:
        if leaf.entry.size <= _SMALL:
            return self._contents(leaf.key, leaf.entry.size)
        return _Alone(self._argv("cat-file", "blob", leaf.key.decode()), leaf.entry.size, self._what)

    def _contents(self, blob: bytes, size: int) -> bytes:
        batch = self._held.acquire()
        try:
            return batch.read(blob, size)
        except OSError as error:
            raise ContextError(f"{self._what} cannot be read: {reason(error)}") from error
        finally:
            self._held.release()


#: What makes a tree of a commit; a path in a commit, behind a colon, is one already.
_PEEL: Final = ("^{tree}", "")


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    # What a partial clone lacks is not fetched: nobody asked for the network.
    return {**kept, "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


class _Batch:
    """A process that is told hashes and gives contents."""

    def __init__(self, argv: list[str]) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(  # noqa: S603  # git itself
            argv, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def read(self, blob: bytes, size: int) -> bytes:
        """Return a content; OSError when it is not there."""
        told, answers = self._process.stdin, self._process.stdout
        with self._lock:
            if told is None or answers is None:
                raise OSError("git has ended")
            told.write(blob + b"\n")
            told.flush()
            head = answers.readline().split()
            if len(head) != 3 or head[1] != b"blob" or int(head[2]) != size:
                raise OSError(0, f"object {blob.decode()} is missing")
            content = answers.read(size)
            answers.read(1)
        if len(content) != size:
            raise OSError(0, f"object {blob.decode()} is damaged")
        return content

    def close(self) -> None:
        """End the process."""
        with self._process as process:
            process.kill()


class _Alone:
    """A large content, from a process of its own."""

    def __init__(self, argv: list[str], size: int, what: str) -> None:
        self._left = size
        self._what = what
        self._process = subprocess.Popen(  # noqa: S603  # git itself
            argv, env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def readinto(self, buffer: memoryview, /) -> int:
        if self._process.stdout is None:
            return 0
        count = cast("Content", self._process.stdout).readinto(buffer) or 0
        self._left -= count
        if not count and self._left:
            raise ContextError(f"{self._what} cannot be read: git ended {self._left} bytes before the end of a file")
        return count

    def close(self) -> None:
        with self._process as process:
            process.kill()

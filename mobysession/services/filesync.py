"""FileSync: the daemon reads the directories of this build.

The daemon calls ``DiffCopy`` with the name of a directory and the filters to apply, both as metadata, and receives the
tree with `mobysession.filesync.send_tree`. Only names that were given here are answered; there is no way to name a
path. The same directory is read several times during a build, and by several calls at once.

Metadata values outside ASCII arrive percent-encoded, which a companion key says: ``exclude-patterns-encoded: 1``.

Source: moby/buildkit session/filesync/filesync.go.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mobysession.errors import RpcError, StatusCode, UsageError
from mobysession.filesync import Directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mobysession.filesync import Source, TransferProgress, TransferReport
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall

__all__ = ["DIFF_COPY", "TAR_STREAM", "DirectoryTransfer", "FileSync"]

_logger = logging.getLogger("mobysession.services")

DIFF_COPY: Final = "/moby.filesync.v1.FileSync/DiffCopy"
TAR_STREAM: Final = "/moby.filesync.v1.FileSync/TarStream"


@dataclass(frozen=True, slots=True)
class DirectoryTransfer:
    """One completed call: which directory, and what the transfer came to."""

    dir_name: str
    report: TransferReport


class FileSync:
    """Let the daemon read directories.

    Args:
        dirs: by the name that the build uses ("context", "dockerfile", a named context): a directory of this machine,
        or
            any other source.
        on_progress: is called in the loop with the name of a directory and how far its transfer is; must not wait.

    Attributes:
        transfers: the completed calls, in the order in which they ended.
    """

    def __init__(
        self,
        dirs: Mapping[str, str | os.PathLike[str] | Source],
        *,
        on_progress: Callable[[str, TransferProgress], None] | None = None,
    ) -> None:
        self._sources = {name: _source(name, given) for name, given in dirs.items()}
        self._on_progress = on_progress
        self.transfers: list[DirectoryTransfer] = []

    def check(self) -> None:
        """See that every directory can be read, before a build is asked for; blocking.

        Raises:
            ContextError: one is missing, not a directory or unreadable; the user must act.
        """
        for source in self._sources.values():
            source.check()

    def register(self, registrar: Registrar) -> None:
        """Host the two methods of the service."""
        registrar.stream(DIFF_COPY, self._diff_copy)
        registrar.stream(TAR_STREAM, _refuse_tar_stream)

    async def _diff_copy(self, call: ServerCall) -> None:
        name = next(iter(call.encoded_values("dir-name")), "")
        source = self._sources.get(name)
        if source is None:
            raise RpcError(StatusCode.NOT_FOUND, f"no access allowed to dir {_go_quote(name)}")
        notify = self._on_progress
        # Loaded when it is asked for; a build has it loaded while the engine still reads the request.
        from mobysession.filesync import send_tree

        report = await send_tree(
            call,
            source,
            include=call.encoded_values("include-patterns"),
            exclude=call.encoded_values("exclude-patterns"),
            follow_paths=call.encoded_values("followpaths"),
            progress=None if notify is None else lambda progress: notify(name, progress),
        )
        self.transfers.append(DirectoryTransfer(name, report))


def _source(name: str, given: str | os.PathLike[str] | Source) -> Source:
    if not name:
        raise UsageError("a directory needs a name by which the daemon asks for it")
    return Directory(given) if isinstance(given, (str, os.PathLike)) else given


def _go_quote(text: str) -> str:
    """Quote ``text`` as Go's %q does for what may be in a name."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else ascii(char)[1:-1] for char in escaped) + '"'


async def _refuse_tar_stream(call: ServerCall) -> None:
    raise RpcError(StatusCode.UNKNOWN, "failed to negotiate protocol")

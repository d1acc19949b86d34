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
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from mobysession.errors import ContextError, RpcError, StatusCode, UsageError
from mobysession.filesync import Directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mobysession.filesync import Source, TransferProgress, TransferReport
    from mobysession.filesync.sources import SourceLike
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall

__all__ = ["DIFF_COPY", "TAR_STREAM", "DirectoryTransfer", "FileSync"]

_logger = logging.getLogger("mobysession.services")

DIFF_COPY: Final = "/moby.filesync.v1.FileSync/DiffCopy"
TAR_STREAM: Final = "/moby.filesync.v1.FileSync/TarStream"
_IGNORE_FILE: Final = ".dockerignore"
#: How engines complain of an ignore file; what finds the line, in `mobysession.filesync.dockerignore`; what mends it.
_IGNORE_FAULTS: Final = {
    "syntax error in pattern": ("bad_line", "correct the pattern in"),
    "illegal exclusion pattern": ("bad_line", "correct the pattern in"),
    "bufio.Scanner: token too long": ("long_line", "break up the line in"),
    '"exclude-patterns" contains value with non-printable': ("unprintable_line", "take the control character out of"),
}


class DirectoryTransfer(NamedTuple):
    """One completed call: which directory, and what the transfer came to."""

    dir_name: str
    report: TransferReport


class FileSync:
    """Let the daemon read directories.

    Args:
        dirs: by the name that the build uses ("context", "dockerfile", a named context): a directory of this machine, a
            mapping of paths to contents, or any other source.
        strict: fail a transfer over everything that changes while it goes on; see `mobysession.filesync.send_tree`.
        reset_owner: send 0 as owner and group of everything, as every client does.
        on_progress: is called in the loop with the name of a directory and how far its transfer is; must not wait.

    Attributes:
        transfers: the completed calls, in the order in which they ended.
        on_progress: as given; may be set later.
        latest: how far the latest call for each name is.
    """

    def __init__(
        self,
        dirs: Mapping[str, SourceLike],
        *,
        strict: bool = False,
        reset_owner: bool = True,
        on_progress: Callable[[str, TransferProgress], None] | None = None,
    ) -> None:
        self._sources = {name: _source(name, given) for name, given in dirs.items()}
        self._strict = strict
        self._reset_owner = reset_owner
        self.on_progress = on_progress
        self.transfers: list[DirectoryTransfer] = []
        self.latest: dict[str, TransferProgress] = {}
        #: The ignore files that were asked for, by the directory and the path in it.
        self._ignore_files: dict[tuple[str, str], None] = {}
        #: Why an ignore file could not be read, by directory. An engine goes on without it, and would be sent all that
        #: it leaves out.
        self._refused: dict[str, ContextError] = {}

    def check(self) -> None:
        """See that every directory can be read, before a build is asked for; blocking.

        Raises:
            ContextError: one is missing, not a directory or unreadable; the user must act.
        """
        for source in self._sources.values():
            source.check()

    def replace_sources(self, replacement: Callable[[Source], Source]) -> None:
        """Put in the place of each source what ``replacement`` makes of it, before any was asked for."""
        self._sources = {name: replacement(source) for name, source in self._sources.items()}

    def hint_for(self, message: str) -> str | None:
        """Return what in the directories may be behind an error of the engine, which does not name it; blocking.

        Args:
            message: the engine's.
        """
        if "invalid UTF-8" in message:
            from mobysession.filesync.naming import not_utf8

            return next((not_utf8(progress.odd_path) for progress in self.latest.values() if progress.odd_path), None)
        told = next((told for told in _IGNORE_FAULTS if told in message), None)
        if told is None:
            return None
        from mobysession.filesync import dockerignore

        finder, remedy = _IGNORE_FAULTS[told]
        names = dict.fromkeys(["context", *(name for name, _ in self._ignore_files)])
        fault = getattr(dockerignore, finder)
        places = (dockerignore.find_line(self._patterns_from(name), fault) for name in names)
        place = next(filter(None, places), None)
        return None if place is None else f"{remedy} {place}"

    def register(self, registrar: Registrar) -> None:
        """Host the two methods of the service."""
        registrar.stream(DIFF_COPY, self._diff_copy)
        registrar.stream(TAR_STREAM, _refuse_tar_stream)

    def _patterns_from(self, name: str) -> list[tuple[Source, str]]:
        """Return the ignore files from which the patterns for the directory ``name`` can be, the likeliest first.

        The engine asks for the ``.dockerignore`` of the context when the Dockerfile has no ignore file of its own;
        before BuildKit 0.12 it asks for both, and the Dockerfile's own one counts.
        """
        own = [(self._sources[at], path) for at, path in self._ignore_files if path != _IGNORE_FILE]
        general = [(self._sources[name], _IGNORE_FILE)] if (name, _IGNORE_FILE) in self._ignore_files else []
        return own + general if name == "context" else general

    async def _locate(self, name: str, error: ContextError) -> None:
        """Add to the error of a bad pattern the file and line that it is from, if that is one of ours."""
        from mobysession.filesync.dockerignore import find_pattern
        from mobysession.filesync.patterns import BadPattern

        if not isinstance(error.__cause__, BadPattern):
            return
        pattern = error.__cause__.args[-1]
        place = await trio.to_thread.run_sync(find_pattern, self._patterns_from(name), pattern)
        if place is not None:
            error.message = f"{place}: {error.message}"
            error.args = (error.message,)
            error.hint = f"correct the pattern in {place}"

    async def _diff_copy(self, call: ServerCall) -> None:
        name = next(iter(call.encoded_values("dir-name")), "")
        source = self._sources.get(name)
        if source is None:
            raise RpcError(StatusCode.NOT_FOUND, f"no access allowed to dir {_go_quote(name)}")

        def told(progress: TransferProgress) -> None:
            self.latest[name] = progress
            if self.on_progress is not None:
                self.on_progress(name, progress)

        # Loaded when it is asked for; a build has it loaded while the engine still reads the request.
        from mobysession.filesync import send_tree
        from mobysession.filesync.dockerignore import asked_ignore_files

        include, follow_paths = call.encoded_values("include-patterns"), call.encoded_values("followpaths")
        # Frontends from before 2019 ask by patterns.
        ignore_files = asked_ignore_files(include + follow_paths)
        self._ignore_files.update({(name, path): None for path in ignore_files})
        refused = self._refused.pop(name, None) if ignore_files else self._refused.get(name)
        if refused is not None and not ignore_files:
            raise ContextError(refused.message, hint=refused.hint)
        try:
            report = await send_tree(
                call,
                source,
                include=include,
                exclude=call.encoded_values("exclude-patterns"),
                follow_paths=follow_paths,
                read_paths=ignore_files,
                reset_owner=self._reset_owner,
                strict=self._strict,
                progress=told,
            )
        except ContextError as error:
            if ignore_files:
                self._refused[name] = error
            await self._locate(name, error)
            raise
        self.transfers.append(DirectoryTransfer(name, report))


def _source(name: str, given: SourceLike) -> Source:
    if not name:
        raise UsageError("a directory needs a name by which the daemon asks for it")
    if isinstance(given, (str, os.PathLike)):
        return Directory(given)
    from mobysession.filesync.sources import as_source  # only for who gives something else: start-up

    return as_source(given)


def _go_quote(text: str) -> str:
    """Quote ``text`` as Go's %q does for what may be in a name."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else ascii(char)[1:-1] for char in escaped) + '"'


async def _refuse_tar_stream(call: ServerCall) -> None:
    raise RpcError(StatusCode.UNKNOWN, "failed to negotiate protocol")

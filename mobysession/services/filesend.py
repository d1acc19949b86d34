"""FileSend: the daemon sends what a build puts out.

The daemon calls ``DiffCopy`` with the index of an exporter among those of the solve, as metadata. What it sends then
depends on the exporter: the ``local`` one is the sender of a tree, to a receiver on our side; ``tar``, ``oci`` and
``docker`` send plain chunks. Which of the two it is, is known from the target that was given here for that index,
before a message is read. A call for any other index is refused.

The daemon counts an output of chunks as done when it reads our OK, which is not sent before the file is closed and in
its place. After a tree it reads nothing more: everything is on disk before our FIN.

Source: moby/buildkit session/filesync/filesync.go.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, TypeGuard

import trio

from mobysession.errors import OutputError, RpcError, StatusCode, UnsupportedByEngine, UsageError
from mobysession.services.bytes_message import decode_bytes_message
from mobysession.services.provider import Provider
from mobysession.services.sink import Writer, cannot_write, open_sink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mobysession.filesync import ReceiveLimits, ReceiveReport
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall
    from mobysession.services.sink import Sink, Writable

__all__ = ["FILE_SEND", "DirectoryTarget", "FileSend", "FileTarget", "ReceivedOutput", "Target"]

_logger = logging.getLogger("mobysession.services")

FILE_SEND: Final = "/moby.filesync.v1.FileSend/DiffCopy"
_EXPORTER_ID: Final = "buildkit-attachable-exporter-id"
_MULTI_PLATFORM: Final = "buildkit-exporter-multi-platform"
_METADATA: Final = "exporter-md-"


@dataclass(frozen=True, kw_only=True)
class DirectoryTarget:
    """A directory that takes a tree; made when it is missing.

    Args:
        path: what is in it stays, unless it is in the tree too.
        delete: remove what is not in the tree; only daemons that send all platforms as one tree can be asked for that.
        owner: user and group ID of everything; None: ours, as with docker.
        bounds: what is accepted; None: the defaults.
    """

    path: str | os.PathLike[str]
    delete: bool = False
    owner: tuple[int, int] | None = None
    bounds: ReceiveLimits | None = None


@dataclass(frozen=True)
class FileTarget:
    """A place for one stream of bytes.

    Args:
        to: a path; a binary file object, which stays open, or a trio stream, likewise; or a function that returns one
            of them, which is then closed, or None to say that this output is there already. The function is called
            with the exporter's metadata, or without arguments if it takes none, in a worker thread unless it is a
            coroutine function.
        size: bytes that are accepted; None: any number.
    """

    to: Writable | Callable[..., Writable | Awaitable[Writable | None] | None]
    size: int | None = None


Target: TypeAlias = DirectoryTarget | FileTarget


@dataclass(frozen=True, kw_only=True)
class ReceivedOutput:
    """What came of one output.

    Attributes:
        exporter: its index in the solve.
        path: the file or the directory it is in; None where it is in neither.
        size: bytes received: of the stream, or of the contents of the tree's files.
        metadata: what the exporter says of it, such as ``containerimage.digest``.
        tree: the figures of a tree; None for a stream.
        complete: whether all of it is there.
    """

    exporter: int
    path: str | None
    size: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    tree: ReceiveReport | None = None
    complete: bool = False

    @property
    def files(self) -> int:
        """Files received completely; a stream is one."""
        return self.tree.received if self.tree is not None else int(self.complete)


class FileSend:
    """Let the daemon send outputs.

    Args:
        targets: by index of the exporter in the solve, or in that order.
        on_progress: is called in the loop with the state of an output as it arrives; must not wait.

    Attributes:
        on_progress: as given; may be set later.
        received: the outputs that are complete, in the order in which they were. A directory may be in it several
            times: some daemons send each platform on its own.

    Raises:
        UsageError: a target is none; the caller must change it.
    """

    def __init__(
        self,
        targets: Mapping[int, Target] | Sequence[Target],
        *,
        on_progress: Callable[[ReceivedOutput], None] | None = None,
    ) -> None:
        given = targets.items() if isinstance(targets, Mapping) else enumerate(targets)
        self._targets = {number: _checked(number, target) for number, target in given}
        self.on_progress = on_progress
        self._used: set[int] = set()
        self._declined: set[int] = set()
        self.received: list[ReceivedOutput] = []

    @property
    def missing(self) -> list[int]:
        """The exporters whose outputs have not come, and were not declined either, in order."""
        there = {output.exporter for output in self.received} | self._declined
        return sorted(self._targets.keys() - there)

    def add(self, exporter: int, target: Target) -> None:
        """Take an output of an exporter that was not known when this was made; UsageError where ``target`` is none."""
        self._targets[exporter] = _checked(exporter, target)

    def register(self, registrar: Registrar) -> None:
        """Host the one method of the service."""
        registrar.stream(FILE_SEND, self._diff_copy)

    async def _diff_copy(self, call: ServerCall) -> None:
        exporter = _exporter_id(call)
        target = self._targets.get(exporter)
        if target is None:
            raise RpcError(StatusCode.UNKNOWN, f"exporter {exporter} not found")
        if isinstance(target, DirectoryTarget):
            await self._receive_tree(call, exporter, target)
        else:
            await self._receive_file(call, exporter, target)

    async def _receive_tree(self, call: ServerCall, exporter: int, target: DirectoryTarget) -> None:
        if target.delete and call.values(_MULTI_PLATFORM)[:1] != ["1"]:
            raise UnsupportedByEngine(
                "local exporter mode=delete requires a BuildKit daemon with multi-platform local export support",
                hint="BuildKit 0.31 and later have it. Leave mode=delete out, and empty the directory first.",
            )
        from mobysession.filesync import Differ, receive_tree

        path = os.fspath(target.path)
        metadata = _metadata(call)

        def state(report: ReceiveReport, complete: bool) -> ReceivedOutput:
            return ReceivedOutput(
                exporter=exporter,
                path=path,
                size=report.received_bytes,
                metadata=metadata,
                tree=report,
                complete=complete,
            )

        await trio.to_thread.run_sync(_make_directory, path)
        await receive_tree(
            call,
            path,
            merge=not target.delete,
            differ=Differ.NONE,
            owner=target.owner or (os.geteuid(), os.getegid()),
            bounds=target.bounds,
            progress=lambda report: self._tell(state(report, False)),
            on_complete=lambda report: self._done(state(report, True)),
        )

    async def _receive_file(self, call: ServerCall, exporter: int, target: FileTarget) -> None:
        metadata = _metadata(call)
        sink = await self._open(exporter, target, metadata)
        size = 0
        try:
            while messages := await call.receive_batch():
                chunks = [chunk for chunk in map(decode_bytes_message, messages) if len(chunk)]
                size += sum(map(len, chunks))
                _check_size(size, target, sink)
                if chunks:
                    await sink.write(chunks)
                self._tell(ReceivedOutput(exporter=exporter, path=sink.path, size=size, metadata=metadata))
            await sink.finish()
        except BaseException:
            await sink.discard()
            raise
        self._done(ReceivedOutput(exporter=exporter, path=sink.path, size=size, metadata=metadata, complete=True))

    async def _open(self, exporter: int, target: FileTarget, metadata: Mapping[str, str]) -> Sink:
        name = f"the output of exporter {exporter}"
        to: object = target.to
        made = False
        if _is_function(to):
            made = True
            to = await _ask(to, metadata, name)
            if to is None:
                self._declined.add(exporter)
                raise RpcError(StatusCode.ALREADY_EXISTS, "target already exists")
        elif not isinstance(to, str | os.PathLike):
            if exporter in self._used:
                # What came first cannot be taken back, and two streams in one object are none.
                raise RpcError(StatusCode.FAILED_PRECONDITION, f"exporter {exporter} was sent already")
            self._used.add(exporter)
        return await open_sink(to, close=made, name=name)

    def _tell(self, output: ReceivedOutput) -> None:
        if self.on_progress is not None:
            self.on_progress(output)

    def _done(self, output: ReceivedOutput) -> None:
        self.received.append(output)
        _logger.debug("exporter %d: %d bytes received", output.exporter, output.size)
        self._tell(output)


def _checked(number: int, target: object) -> Target:
    if isinstance(target, DirectoryTarget):
        return target
    if isinstance(target, FileTarget):
        _check_place(number, target.to)
        return target
    raise UsageError(f"the target of exporter {number} is a DirectoryTarget or a FileTarget, not {target!r}")


def _check_place(number: int, to: object) -> None:
    if isinstance(to, io.TextIOBase):
        raise UsageError(f"the output of exporter {number} cannot go to a text file: open it in binary mode")
    if _is_function(to):
        try:
            Provider(to)
        except TypeError:
            raise UsageError(f"the function for exporter {number} takes more than the metadata") from None
    elif not isinstance(to, str | os.PathLike | Writer | trio.abc.SendStream):
        raise UsageError(
            f"the output of exporter {number} cannot go to {type(to).__name__}",
            hint="Give a path, a binary file object, a trio stream, or a function that returns one of these.",
        )


def _is_function(to: object) -> TypeGuard[Callable[..., object]]:
    # A class has the methods of its objects, and makes one when it is called.
    is_place = isinstance(to, str | os.PathLike | Writer | trio.abc.SendStream)
    return callable(to) and (isinstance(to, type) or not is_place)


async def _ask(function: Callable[..., object], metadata: Mapping[str, str], name: str) -> object:
    try:
        return await Provider(function).call(metadata)
    except OSError as error:
        raise cannot_write(name, error, is_path=False) from error
    except Exception as error:  # of any kind: the function is not ours
        raise OutputError(f"the function for {name} failed with {type(error).__name__}") from error


def _check_size(size: int, target: FileTarget, sink: Sink) -> None:
    if target.size is None or size <= target.size:
        return
    from mobysession.errors import OutputLimitExceeded

    raise OutputLimitExceeded(
        f"an output is over the limit of what is received: size is {target.size} bytes",
        limit="size",
        value=target.size,
        path=sink.path,
    )


def _exporter_id(call: ServerCall) -> int:
    """Return the index that the daemon names; 0 where it names none, as before BuildKit 0.13, or no number."""
    value = next(iter(call.values(_EXPORTER_ID)), "")
    digits = value[1:] if value[:1] in ("+", "-") else value
    return int(value) if digits.isascii() and digits.isdigit() and len(digits) < 20 else 0


def _metadata(call: ServerCall) -> dict[str, str]:
    keys = dict.fromkeys(key for key, _ in call.metadata if key.startswith(_METADATA))
    return {key.removeprefix(_METADATA): ",".join(call.values(key)) for key in keys}


def _make_directory(path: str) -> None:
    """Make a directory and those above it, for us alone, as the reference does."""
    missing = []
    at = os.path.abspath(path)
    try:
        while not os.path.isdir(at):
            missing.append(at)
            at = os.path.dirname(at)
        for folder in reversed(missing):
            try:
                os.mkdir(folder, 0o700)
            except FileExistsError:
                if not os.path.isdir(folder):
                    raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise cannot_write(path, error) from error

"""The sender of DiffCopy.

The sender walks a tree and announces every entry with a STAT, in order, then ends the listing with an empty one.
Entries are numbered by position. While the listing still goes on, the receiver asks for files by number with REQ, and
the sender answers each with DATA packets and an empty one at the end. When the receiver has all it wanted it says FIN,
the sender says FIN, and that is all: nobody waits for the other side to close.

Three tasks share a transfer: one lists, one reads requests, one sends contents. Requests are read whatever the other
two wait for, since a receiver that cannot get rid of them may stop to take what is sent.

Source: tonistiigi/fsutil send.go.
"""

from __future__ import annotations

import logging
from array import array
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol

import trio
from google.protobuf.message import DecodeError

from mobysession.concurrency import open_nursery
from mobysession.errors import ContextError, RemoteProtocolError, RpcError, StatusCode
from mobysession.filesync.contents import Contents
from mobysession.filesync.dockerignore import refuse_pipe
from mobysession.filesync.filters import parse_filter
from mobysession.filesync.followpaths import follow_links, merge_includes
from mobysession.filesync.naming import not_utf8
from mobysession.filesync.offers import Offers
from mobysession.filesync.packets import END_OF_LISTING, ERR, FIN, FIN_PACKET, REQ, decode_requests, error_packet
from mobysession.filesync.report import TransferProgress, TransferReport
from mobysession.filesync.snapshot import Snapshot
from mobysession.filesync.source import keeping, opened
from mobysession.filesync.walk import Walk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from mobysession.filesync.source import Source
    from mobysession.filesync.walk import Batch

__all__ = ["PacketStream", "TransferProgress", "TransferReport", "send_tree"]

_logger = logging.getLogger("mobysession.filesync")

#: Requested files handed to one read.
_ASKED_AT_ONCE: Final = 1024
#: Seconds for the ERR packet to leave when a transfer fails; the status of the call tells the rest.
_FAREWELL: Final = 2.0
#: Warnings kept for the report. Ours: nobody reads more.
_MAX_WARNINGS: Final = 100


class PacketStream(Protocol):
    """The two directions of a DiffCopy call: whole messages, in batches."""

    async def receive_batch(self) -> list[bytes]:
        """Return the messages that arrived, at least one; none when the other side sends no more."""
        ...

    async def send_batch(self, messages: Sequence[bytes | bytearray | memoryview], /) -> None:
        """Send messages; wait while too many are queued."""
        ...


async def send_tree(
    stream: PacketStream,
    source: Source,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    follow_paths: Sequence[str] = (),
    read_paths: Sequence[str] = (),
    reset_owner: bool = True,
    strict: bool = False,
    progress: Callable[[TransferProgress], None] | None = None,
) -> TransferReport:
    """Send a tree to the receiver at the other end of ``stream``.

    Args:
        stream: the call; the caller ends it afterwards, with OK.
        source: the tree; used from worker threads.
        include: patterns; with some, nothing else is sent.
        exclude: patterns of what is not sent; later ones override earlier ones, ``!`` makes exceptions.
        follow_paths: paths to include together with what their symbolic links lead to.
        read_paths: those that the receiver will read at once, so that none may be a named pipe.
        reset_owner: send 0 as owner and group of everything.
        strict: fail over everything that changes while the tree is sent; before the transfer is declared complete, all
            that was offered is looked at once more.
        progress: is called in the loop now and then, and must not wait.

    Raises:
        ContextError: the tree, a file of it or a pattern cannot be used; the user must act. The receiver was told.
        RpcError: the receiver failed; its words are in the message.
        RemoteProtocolError: the receiver broke the protocol, or ended before it had everything.

    Cancel: the transfer is abandoned; no thread and no file stays open.
    """
    transfer = _Transfer(stream, source, reset_owner, strict, progress)
    return await transfer.run(include, exclude, follow_paths, read_paths)


class _Transfer:
    def __init__(
        self,
        stream: PacketStream,
        source: Source,
        reset_owner: bool,
        strict: bool,
        progress: Callable[[TransferProgress], None] | None,
    ) -> None:
        self._stream = stream
        self._source = source
        self._reset_owner = reset_owner
        self._strict = strict
        self._snapshot: Snapshot | None = None
        self._progress = progress
        self._offers = Offers()
        self._contents = Contents(source, self._offers, strict=strict)
        self._requests = _Requests()
        self._sending = trio.Lock()
        # One worker at a time: two that make system calls in turn take the interpreter from each other at every call.
        self._disk = trio.CapacityLimiter(1)
        self._files = self._offered_bytes = self._requested = self._sent = self._sent_bytes = 0
        self._listed = False
        self._odd_path = b""
        self._warnings: list[str] = []
        self._omitted_warnings = 0

    async def run(
        self, include: Sequence[str], exclude: Sequence[str], follow_paths: Sequence[str], read_paths: Sequence[str]
    ) -> TransferReport:
        async with _held_open(self._source):
            walk = await trio.to_thread.run_sync(self._prepare, include, exclude, follow_paths, read_paths)
            try:
                async with open_nursery() as nursery:
                    nursery.start_soon(self._list, walk)
                    nursery.start_soon(self._serve)
                    await self._receive()
                    # The receiver has all it wants; what is still on its way to it would be ignored.
                    nursery.cancel_scope.cancel()
                if self._snapshot is not None:
                    await self._compare(self._snapshot)
            except ContextError as error:
                await self._say_why(error)
                raise
            except RpcError as error:
                if error.hint is None and walk.odd_path:
                    error.hint = not_utf8(walk.odd_path)
                raise
            finally:
                self._contents.close()
        await self._stream.send_batch([FIN_PACKET])
        return TransferReport(
            progress=self._figures(), warnings=tuple(self._warnings), omitted_warnings=self._omitted_warnings
        )

    def _prepare(
        self, include: Sequence[str], exclude: Sequence[str], follow_paths: Sequence[str], read_paths: Sequence[str]
    ) -> Walk:
        self._source.check()
        for path in read_paths:
            refuse_pipe(self._source, path)
        if follow_paths:
            with keeping(self._source):
                followed = follow_links(self._source, follow_paths)
            if followed is not None:
                include = merge_includes(include, followed)
        chosen = parse_filter(include, exclude)
        if self._strict:
            self._snapshot = Snapshot(self._source)
        return Walk(self._source, chosen, self._offers, reset_owner=self._reset_owner, snapshot=self._snapshot)

    async def _compare(self, snapshot: Snapshot) -> None:
        comparison = snapshot.compare(self._offers)
        while await trio.to_thread.run_sync(snapshot.compare_on, comparison, limiter=self._disk):
            pass

    async def _list(self, walk: Walk) -> None:
        batches = walk.batches()
        while (batch := await trio.to_thread.run_sync(self._walk_on, batches, limiter=self._disk)) is not None:
            self._files += batch.files
            self._offered_bytes += batch.content
            self._odd_path = walk.odd_path
            if batch.messages:
                # Told first: a receiver that cannot take it ends everything.
                self._report()
                await self._send(batch.messages)
        self._listed = True
        await self._send([END_OF_LISTING])
        self._report()

    def _walk_on(self, batches: Iterator[Batch]) -> Batch | None:
        with keeping(self._source):
            return next(batches, None)

    async def _receive(self) -> None:
        while messages := await self._stream.receive_batch():
            try:
                for kind, entry_id, data in decode_requests(messages):
                    if kind == REQ:
                        self._offers.request(entry_id)
                        self._requests.put(entry_id)
                        self._requested += 1
                    elif kind == FIN:
                        return
                    elif kind == ERR:
                        words = data.decode("utf-8", "replace")
                        raise RpcError(StatusCode.UNKNOWN, f"error from receiver: {words}")
            except DecodeError as error:
                raise RemoteProtocolError("the receiver sent something that is no fsutil packet") from error
        raise RemoteProtocolError("the receiver ended the transfer before it was complete")

    async def _serve(self) -> None:
        while True:
            if self._contents.idle:
                self._contents.ask(await self._requests.take(_ASKED_AT_ONCE))
            reading = await trio.to_thread.run_sync(self._contents.read, limiter=self._disk)
            for warning in reading.warnings:
                self._warn(warning)
            # Counted first: once the last of it is on its way, the receiver's FIN may end this task.
            self._sent += reading.files
            self._sent_bytes += reading.content
            await self._send(reading.messages)
            self._report()

    async def _send(self, messages: Sequence[bytes | bytearray | memoryview]) -> None:
        async with self._sending:
            await self._stream.send_batch(messages)

    async def _say_why(self, error: ContextError) -> None:
        with trio.move_on_after(_FAREWELL):
            await self._send([error_packet(error.message)])

    def _warn(self, warning: str) -> None:
        _logger.warning("%s", warning)
        if len(self._warnings) < _MAX_WARNINGS:
            self._warnings.append(warning)
        else:
            self._omitted_warnings += 1

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._figures())

    def _figures(self) -> TransferProgress:
        return TransferProgress(
            entries=len(self._offers),
            files=self._files,
            offered_bytes=self._offered_bytes,
            requested=self._requested,
            sent=self._sent,
            sent_bytes=self._sent_bytes,
            listed=self._listed,
            odd_path=self._odd_path,
        )


@asynccontextmanager
async def _held_open(source: Source) -> AsyncIterator[None]:
    """Hold open what ``source`` needs for the whole transfer; entered and left in worker threads."""
    block = opened(source)
    if isinstance(block, nullcontext):
        yield
        return
    await trio.to_thread.run_sync(block.__enter__)
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(block.__exit__, None, None, None)


class _Requests:
    """Requested ids on their way from the task that reads them to the one that serves them, four bytes each."""

    def __init__(self) -> None:
        self._ids = array("I")
        self._start = 0
        self._arrived = trio.Event()

    def put(self, entry_id: int) -> None:
        """Add an id, never waiting."""
        self._ids.append(entry_id)
        self._arrived.set()

    async def take(self, most: int) -> array[int]:
        """Take up to ``most`` ids, at least one; wait for it."""
        while self._start == len(self._ids):
            self._ids, self._start = array("I"), 0
            self._arrived = trio.Event()
            await self._arrived.wait()
        taken = self._ids[self._start : self._start + most]
        self._start += len(taken)
        return taken

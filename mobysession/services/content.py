"""Content: the daemon reads blobs from stores of ours, and writes blobs into them.

This is containerd's content service, spoken over the session. Each call names a store in its metadata: ``local:<dir>``
for a cache that a build imports from a directory or exports to one, ``oci:<name>`` or any other name for the layout
behind a context ``oci-layout://``. A store that was not given here does not exist for the daemon, and one that is not
`OciLayout.writable` is only read.

A blob is written by messages that are answered one by one, for the daemon's writer waits for each answer. What a lost
writer leaves is gone on with by the next one; nobody sees it as a blob before its digest was verified.

Source: moby/buildkit session/content; containerd/containerd plugins/services/content/contentserver.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio
from google.protobuf.empty_pb2 import Empty

from mobysession import limits
from mobysession._pb import content_pb2
from mobysession.concurrency import open_nursery
from mobysession.errors import RpcError, StatusCode
from mobysession.filesync.packet_fields import encode_varint
from mobysession.rpc.registrar import Cardinality
from mobysession.services.content_write import Writing, decode_write
from mobysession.services.oci_layout import BlobInfo, OciLayout, parse_digest
from mobysession.services.oci_layout_ingest import IngestStatus, abort_ingest, ingest_status, ingests

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall
    from mobysession.services.oci_layout import OpenBlob

__all__ = ["SERVICE", "STORE_ID", "Content"]

_logger = logging.getLogger("mobysession.services")

SERVICE: Final = "/containerd.services.content.v1.Content/"
STORE_ID: Final = "buildkit-attachable-store-id"
_NANOSECONDS: Final = 10**9
_OFFSET_TAG: Final = b"\x08"
_DATA_TAG: Final = b"\x12"


class Content:
    """Give the daemon stores of blobs.

    Args:
        stores: by the ID under which the daemon asks for each.
    """

    def __init__(self, stores: Mapping[str, OciLayout]) -> None:
        self._stores = dict(stores)

    def register(self, registrar: Registrar) -> None:
        """Host the nine methods of the service."""
        registrar.unary_unary(SERVICE + "Info", self._info, content_pb2.InfoRequest)
        registrar.unary_unary(SERVICE + "Update", self._update, content_pb2.UpdateRequest)
        registrar.unary_stream(SERVICE + "List", self._list, content_pb2.ListContentRequest)
        registrar.unary_unary(SERVICE + "Delete", self._delete, content_pb2.DeleteContentRequest)
        registrar.unary_stream(SERVICE + "Read", self._read, content_pb2.ReadContentRequest)
        registrar.unary_unary(SERVICE + "Status", self._status, content_pb2.StatusRequest)
        registrar.unary_unary(SERVICE + "ListStatuses", self._list_statuses, content_pb2.ListStatusesRequest)
        registrar.stream(SERVICE + "Write", self._write, Cardinality.STREAM_STREAM, content_pb2.WriteContentRequest)
        registrar.unary_unary(SERVICE + "Abort", self._abort, content_pb2.AbortRequest)

    def _store(self, call: ServerCall, *, to_write: bool = False) -> OciLayout:
        store_id = next(iter(call.values(STORE_ID)), None)
        if store_id is None:
            raise RpcError(StatusCode.INVALID_ARGUMENT, f'request lacks metadata "{STORE_ID}"')
        store = self._stores.get(store_id)
        if store is None:
            raise RpcError(StatusCode.NOT_FOUND, f"unknown store {store_id}")
        if to_write and not store.writable:
            raise RpcError(StatusCode.PERMISSION_DENIED, f"store {store_id} is read only")
        return store

    # -- blobs ---------------------------------------------------------------------------------------------------------

    async def _info(self, request: content_pb2.InfoRequest, call: ServerCall) -> content_pb2.InfoResponse:
        found = await trio.to_thread.run_sync(self._store(call).info, request.digest)
        return content_pb2.InfoResponse(info=_info_message(found))

    async def _update(self, request: content_pb2.UpdateRequest, call: ServerCall) -> content_pb2.UpdateResponse:
        """Answer with the labels that were given: an OCI layout has no place for them, and nobody reads them here."""
        store = self._store(call, to_write=True)
        message = _info_message(await trio.to_thread.run_sync(store.info, request.info.digest))
        message.labels.update(request.info.labels)
        return content_pb2.UpdateResponse(info=message)

    async def _list(self, request: content_pb2.ListContentRequest, call: ServerCall) -> None:
        store = self._store(call)
        _refuse_filters(request.filters)
        found = await trio.to_thread.run_sync(lambda: list(store.walk()))
        for start in range(0, len(found), limits.CONTENT_LISTING):
            page = map(_info_message, found[start : start + limits.CONTENT_LISTING])
            await call.send(content_pb2.ListContentResponse(info=page).SerializeToString())

    async def _delete(self, request: content_pb2.DeleteContentRequest, call: ServerCall) -> Empty:
        store = self._store(call, to_write=True)
        if not store.deletable:
            raise RpcError(StatusCode.PERMISSION_DENIED, "nothing is deleted from this store")
        await trio.to_thread.run_sync(store.delete, request.digest)
        return Empty()

    async def _read(self, request: content_pb2.ReadContentRequest, call: ServerCall) -> None:
        store = self._store(call)
        parse_digest(request.digest)
        reading, messages = await trio.to_thread.run_sync(_begin_reading, store, request)
        try:
            while messages:
                await call.send_batch(messages)
                messages = await trio.to_thread.run_sync(reading.next_messages) if reading.left else []
        finally:
            reading.blob.close()

    # -- blobs on their way --------------------------------------------------------------------------------------------

    async def _write(self, call: ServerCall) -> None:
        store = self._store(call, to_write=True)
        message = await call.receive()
        first = decode_write(message) if message is not None else None
        if first is None or not first.ref:
            raise RpcError(StatusCode.INVALID_ARGUMENT, "first message must have a reference")
        if len(first.ref.encode()) > limits.MAX_CONTENT_REF:
            raise RpcError(StatusCode.INVALID_ARGUMENT, f"a reference has at most {limits.MAX_CONTENT_REF} bytes")
        writing = await trio.to_thread.run_sync(Writing, store, first)
        try:
            messages = [message] if message is not None else []
            while messages:
                answers, failure = await trio.to_thread.run_sync(writing.take, messages)
                if answers:
                    await call.send_batch(answers)
                if failure is not None:
                    raise failure
                if writing.is_committed:
                    _logger.debug("%s: %s was stored", store.path, writing.digest)
                    return
                messages = await _receive_and_hash(call, writing)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(writing.close)

    async def _status(self, request: content_pb2.StatusRequest, call: ServerCall) -> content_pb2.StatusResponse:
        found = await trio.to_thread.run_sync(ingest_status, self._store(call), request.ref)
        return content_pb2.StatusResponse(status=_status_message(found))

    async def _list_statuses(
        self, request: content_pb2.ListStatusesRequest, call: ServerCall
    ) -> content_pb2.ListStatusesResponse:
        store = self._store(call)
        _refuse_filters(request.filters)
        found = await trio.to_thread.run_sync(lambda: list(ingests(store)))
        return content_pb2.ListStatusesResponse(statuses=map(_status_message, found))

    async def _abort(self, request: content_pb2.AbortRequest, call: ServerCall) -> Empty:
        await trio.to_thread.run_sync(abort_ingest, self._store(call, to_write=True), request.ref)
        return Empty()


async def _receive_and_hash(call: ServerCall, writing: Writing) -> list[bytes]:
    """Return the next messages of a Write; what the last ones brought is hashed while they come."""
    if writing.unhashed < limits.CONTENT_HASHED_LATER:
        return await call.receive_batch()
    async with open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, writing.catch_up)
        return await call.receive_batch()


class _Reading:
    """A part of a blob on its way to the daemon, message by message."""

    def __init__(self, blob: OpenBlob, start: int, size: int) -> None:
        self.blob = blob
        self.left = size
        self._start = start
        self._done = 0
        # What arrives in parts is verified by who asked for them; only the whole can be verified here.
        self._is_whole = size == blob.size

    def next_messages(self) -> list[bytes]:
        """Read some more; blocking. The last part is not given away before the whole was verified."""
        messages = []
        room = limits.CONTENT_BATCH
        while self.left and room:
            size = min(self.left, limits.CONTENT_CHUNK, room)
            content = self.blob.read(self._start + self._done, size)
            if self._is_whole:
                self.blob.verify(content, last=size == self.left)
            messages.append(_read_message(self._done, content))
            self._done += size
            self.left -= size
            room -= size
        return messages


def _begin_reading(store: OciLayout, request: content_pb2.ReadContentRequest) -> tuple[_Reading, list[bytes]]:
    blob = store.open_blob(request.digest)
    try:
        start = max(0, request.offset)
        if start > blob.size:
            raise RpcError(StatusCode.OUT_OF_RANGE, f"read past object length {blob.size} bytes")
        rest = blob.size - start
        reading = _Reading(blob, start, request.size if 0 < request.size < rest else rest)
        return reading, reading.next_messages()
    except BaseException:
        blob.close()
        raise


def _read_message(offset: int, content: bytes) -> bytes:
    """Return a ReadContentResponse; by hand, for the content should not be copied twice more."""
    head = _OFFSET_TAG + encode_varint(offset) if offset else b""
    return b"".join((head, _DATA_TAG, encode_varint(len(content)), content))


def _refuse_filters(filters: Sequence[str]) -> None:
    """Nobody sends filters to a session; they would have to be understood as containerd does."""
    if any(filters):
        raise RpcError(StatusCode.INVALID_ARGUMENT, "this store does not filter: list all of it")


def _info_message(info: BlobInfo) -> content_pb2.Info:
    message = content_pb2.Info(digest=info.digest, size=info.size)
    message.created_at.seconds, message.created_at.nanos = divmod(info.created, _NANOSECONDS)
    message.updated_at.seconds, message.updated_at.nanos = divmod(info.updated, _NANOSECONDS)
    return message


def _status_message(status: IngestStatus) -> content_pb2.Status:
    message = content_pb2.Status(ref=status.ref, offset=status.offset, total=status.total)
    message.started_at.seconds, message.started_at.nanos = divmod(status.started, _NANOSECONDS)
    message.updated_at.seconds, message.updated_at.nanos = divmod(status.updated, _NANOSECONDS)
    return message

"""Records of builds as a file: the ``.dockerbuild`` archive that ``docker buildx history export`` writes.

It is a gzipped tar of an OCI layout. Each record is a manifest with the record as JSON for its configuration, whose
layers are its log, its trace and its results; several records have an index over them. What gives access to something
is left out of it: the attributes of cache imports but for their names, and tokens in the trace.

Source: docker/buildx util/desktop/bundle/export.go and trace.go; opencontainers/image-spec image-layout.md.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, BinaryIO

import trio

from mobysession import limits
from mobysession._pb import control_pb2
from mobysession.errors import ApiError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

    from mobysession.buildkit.history import BuildRecord, History

__all__ = ["export_records"]

_RECORD = "application/vnd.buildkit.historyrecord.v0"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
#: Keeps tools that know images from following a result; its own type stands in an annotation.
_RESULT_TYPE = "application/json"
_RESULT_ANNOTATION = "vnd.export-build.descriptor.mediatype"
_REFERENCE_ANNOTATION = "vnd.buildkit.history.reference"
_TOKENS = re.compile(
    rb"(?i)((?:ghtoken|token|access_key_id|secret_access_key|session_token)=)[^ ,\"\\]+"
    rb"|gh[us]_[A-Za-z0-9]{36}|github_pat_\w{82}"
)


async def export_records(history: History, records: Sequence[BuildRecord], to: BinaryIO, *, platform: str = "") -> None:
    """Write records into ``to``, an open binary file that stays the caller's.

    Args:
        history: of the engine that has the records.
        records: that have ended; at least one.
        platform: the default one of the engine that made them.

    Raises:
        ApiError: a blob of a record is larger than `limits.MAX_HISTORY_BLOB`.
        RpcError: one cannot be read.
        OutputError: ``to`` cannot be written.

    Cancel: part of the archive is written.
    """
    blobs = _Blobs(history)
    descriptors = [await _add_record(blobs, record, platform) for record in records]
    top = descriptors[0]
    if len(records) > 1:
        for descriptor, record in zip(descriptors, records, strict=True):
            descriptor["annotations"] = {_REFERENCE_ANNOTATION: record.ref}
        top = blobs.add_json(_INDEX, {"schemaVersion": 2, "mediaType": _INDEX, "manifests": descriptors})
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [top]}
    try:
        await trio.to_thread.run_sync(_write, to, blobs.contents, index)
    except OSError as error:
        raise OutputError(f"the archive cannot be written: {(error.strerror or str(error)).lower()}") from error


class _Blobs:
    """What the archive will hold, by digest."""

    def __init__(self, history: History) -> None:
        self._history = history
        self.contents: dict[str, bytes] = {}

    def add(self, media_type: str, content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.contents[digest] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def add_json(self, media_type: str, value: object) -> dict[str, Any]:
        return self.add(media_type, json.dumps(value, indent=2).encode())

    async def fetch(self, descriptor: control_pb2.Descriptor) -> bytes:
        if descriptor.size > limits.MAX_HISTORY_BLOB:
            raise ApiError(f"a file of the record has {descriptor.size} bytes, too many to be exported", status=413)
        pieces, size = [], 0
        async with aclosing(self._history.read(descriptor.digest)) as stream:
            async for piece in stream:
                pieces.append(piece)
                size += len(piece)
                if size > descriptor.size:
                    break
        content = b"".join(pieces)
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != descriptor.digest:
            raise ApiError(f"what the engine sent is not {descriptor.digest}", status=502)
        return content

    async def add_descriptor(self, descriptor: control_pb2.Descriptor) -> dict[str, Any]:
        found = self.add(descriptor.media_type, await self.fetch(descriptor))
        if descriptor.annotations:
            found["annotations"] = dict(descriptor.annotations)
        return found


async def _add_record(blobs: _Blobs, record: BuildRecord, platform: str) -> dict[str, Any]:
    message = control_pb2.BuildHistoryRecord()
    message.CopyFrom(record.message)
    _hide_cache_attributes(message.FrontendAttrs)
    layers: dict[str, dict[str, Any]] = {}
    if message.HasField("trace"):
        trace = _TOKENS.sub(lambda match: (match[1] or b"") + b"xxxxx", await blobs.fetch(message.trace))
        descriptor = blobs.add(message.trace.media_type, trace)
        message.trace.digest, message.trace.size = descriptor["digest"], descriptor["size"]
        layers[descriptor["digest"]] = descriptor
    config = blobs.add_json(_RECORD, {**_as_go_has_it(message), "DefaultPlatform": platform})
    for found, is_result in _files(message):
        if found.digest not in layers:
            layers[found.digest] = await blobs.add_descriptor(found)
            if is_result:
                annotations = layers[found.digest].setdefault("annotations", {})
                annotations[_RESULT_ANNOTATION] = layers[found.digest]["mediaType"]
                layers[found.digest]["mediaType"] = _RESULT_TYPE
    return blobs.add_json(
        _MANIFEST, {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": list(layers.values())}
    )


def _files(message: control_pb2.BuildHistoryRecord) -> Iterable[tuple[control_pb2.Descriptor, bool]]:
    """Yield the files of a record in the order of buildx, each with whether it is a result."""
    if message.HasField("logs"):
        yield message.logs, False
    if message.HasField("Result"):
        yield from _files_of(message.Result)
    if message.HasField("externalError"):
        yield message.externalError, False
    for _, result in sorted(message.Results.items()):
        yield from _files_of(result)


def _files_of(result: control_pb2.BuildResultInfo) -> Iterable[tuple[control_pb2.Descriptor, bool]]:
    yield from ((attestation, False) for attestation in result.Attestations)
    yield from ((descriptor, True) for _, descriptor in sorted(result.Results.items()))


def _hide_cache_attributes(attributes: Any) -> None:
    if not (text := attributes.get("cache-imports", "")):
        return
    try:
        imports = json.loads(text)
        kept = [
            {
                "Type": entry["Type"],
                "Attrs": {key: value for key, value in entry["Attrs"].items() if key in ("scope", "ref")},
            }
            for entry in imports
        ]
        attributes["cache-imports"] = json.dumps(kept)
    except (ValueError, TypeError, KeyError, AttributeError):
        # What cannot be read may hold anything.
        attributes["cache-imports"] = ""


def _as_go_has_it(message: Message) -> dict[str, Any]:
    """Return a message as Go's encoding/json writes the struct made for it: numbers as they are, times as two."""
    return {field.name: _value(field, value) for field, value in message.ListFields()}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return {str(key): _scalar(inner, item) for key, item in sorted(value.items())}
    if field.is_repeated:
        return [_scalar(field, item) for item in value]
    return _scalar(field, value)


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return _as_go_has_it(value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _write(to: BinaryIO, contents: Mapping[str, bytes], index: object) -> None:
    # Without a time, so that the same records make the same archive.
    with gzip.GzipFile(fileobj=to, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        _add(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        for digest, content in sorted(contents.items()):
            _add(archive, f"blobs/{digest.replace(':', '/')}", content)
        _add(archive, "index.json", json.dumps(index).encode())


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o444
    archive.addfile(member, io.BytesIO(content))

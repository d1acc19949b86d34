"""The builds that a BuildKit remembers: what was asked for, how it went, its log, its trace and its attestations.

Records are kept from BuildKit 0.11 (Docker 23) on, in a bounded number unless they are pinned. Blobs of a record are
read from a content store on the same connection, which is for reading only.

Source: moby/buildkit api/services/control/control.proto; docker/buildx commands/history/ and util/history/name.go.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

from mobysession import limits
from mobysession._pb import content_pb2, control_pb2
from mobysession.buildkit.usage import moment
from mobysession.errors import ApiError, RpcError, StatusCode, UnsupportedByEngine, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from mobysession.rpc.client import Channel

__all__ = ["PREDICATE", "Blob", "BuildRecord", "History", "RecordStatus"]

_CONTROL = "/moby.buildkit.v1.Control/"
_CONTENT = "/containerd.services.content.v1.Content/"
#: Names the predicate of an attestation, among the annotations of its descriptor.
PREDICATE = "in-toto.io/predicate-type"

RecordStatus = Literal["running", "completed", "error", "canceled"]


class Blob(NamedTuple):
    """A file of a record: an image's configuration or manifest, or an attestation, whose ``kind`` is its predicate."""

    digest: str
    media_type: str
    size: int
    kind: str = ""
    platform: str = ""


@dataclass(frozen=True, kw_only=True)
class BuildRecord:
    """One build.

    Attributes:
        ref: the ID of the solve.
        name: what it was called, or else what it was made of; may be empty.
        status: ``running``, ``completed``, ``error`` or ``canceled``.
        created: when it began; ``completed``: when it ended, None while it runs.
        steps: number of steps known; of these ``completed_steps`` have ended and ``cached_steps`` came from the cache.
        attributes: what the frontend was asked, as BuildKit has it (``target``, ``build-arg:NAME``, ``filename``).
        response: the exporters' response.
        error: why it failed; empty otherwise. ``code`` is its gRPC status.
        blobs: the files that belong to it; ``log`` and ``trace`` are two more, None where there is none.
        message: the record as it came, which has all the rest.
    """

    ref: str
    name: str
    status: RecordStatus
    created: datetime | None
    completed: datetime | None
    steps: int
    completed_steps: int
    cached_steps: int
    warnings: int
    pinned: bool
    frontend: str
    attributes: Mapping[str, str]
    response: Mapping[str, str]
    error: str
    code: StatusCode
    blobs: tuple[Blob, ...]
    log: Blob | None
    trace: Blob | None
    message: control_pb2.BuildHistoryRecord = field(repr=False, compare=False)

    @property
    def duration(self) -> float | None:
        """Seconds from its beginning to its end; None where either is not known."""
        if self.created is None or self.completed is None:
            return None
        return (self.completed - self.created).total_seconds()


class History:
    """The calls that concern records, on a channel that speaks to a BuildKit. See `mobysession.buildkit.Control`.

    Raises, each of them:
        UnsupportedByEngine: this BuildKit keeps no records.
        RpcError: it did not answer otherwise.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def list(
        self, *, active: bool = False, filters: Sequence[str] = (), limit: int = limits.HISTORY_RECORDS
    ) -> list[BuildRecord]:
        """Return the newest records, newest first.

        Args:
            active: only of builds that run.
            filters: which ones, as `mobysession.buildkit.history_filters` has them; all have to hold.
            limit: as many at most.

        Raises:
            UsageError: a filter makes no sense.
        """
        from mobysession.buildkit.history_filters import HistoryFilters

        wanted = HistoryFilters(filters)
        # Neither filters nor limit are the engine's business: BuildKit 0.17 to 0.28 crash over either, and take the
        # daemon with them, where a record goes while they look (moby/buildkit#6614).
        request = control_pb2.BuildHistoryRequest(ActiveOnly=active, EarlyExit=True)
        found = [record async for record in self._listen(request) if wanted.match(record)]
        found.sort(key=lambda record: record.message.CreatedAt.ToNanoseconds(), reverse=True)
        return found[:limit]

    async def get(self, ref: str = "") -> BuildRecord:
        """Return one record.

        Args:
            ref: of the build, or the beginning of one; ``^N`` is the Nth before the newest, empty is the newest.

        Raises:
            ApiError: there is none, or several begin like that.
        """
        if not ref or ref.startswith("^"):
            return await self._nth(ref)
        request = control_pb2.BuildHistoryRequest(Ref=ref, EarlyExit=True)
        found = [record async for record in self._listen(request)]
        if not found:
            # A whole ID, or the beginning of one: only the first is BuildKit's business.
            found = [record for record in await self.list() if record.ref.startswith(ref)]
        if len({record.ref for record in found}) > 1:
            raise ApiError(f"several builds have an ID that begins with {ref!r}", status=409, hint="Write more of it.")
        if not found:
            raise ApiError(f"there is no record of a build {ref!r}", status=404)
        return found[-1]

    async def _nth(self, ref: str) -> BuildRecord:
        offset = ref[1:] or "0"
        if not offset.isdecimal():
            raise UsageError(f"{ref!r} names no build", hint="^1 is the one before the newest.")
        records = await self.list(limit=int(offset) + 1)
        if len(records) <= int(offset):
            raise ApiError(f"there are records of {len(records)} builds only", status=404)
        return records[int(offset)]

    def logs(self, ref: str) -> AsyncGenerator[control_pb2.StatusResponse, None]:
        """Yield the progress of a build, as while it ran; of one that runs, up to its end."""
        return self._channel.unary_stream(
            _CONTROL + "Status", control_pb2.StatusRequest(Ref=ref), control_pb2.StatusResponse
        )

    async def remove(self, ref: str) -> None:
        """Forget a build that has ended."""
        await self._update(control_pb2.UpdateBuildHistoryRequest(Ref=ref, Delete=True))

    async def pin(self, ref: str, pinned: bool = True) -> None:
        """Keep a record whatever happens, or no longer."""
        await self._update(control_pb2.UpdateBuildHistoryRequest(Ref=ref, Pinned=pinned))

    async def finalize(self, ref: str) -> None:
        """Make the trace of a build readable, which otherwise takes some seconds."""
        await self._update(control_pb2.UpdateBuildHistoryRequest(Ref=ref, Finalize=True))

    async def read(self, digest: str) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a blob, in pieces of the engine's choice.

        Raises:
            RpcError: NOT_FOUND where it is gone.
        """
        request = content_pb2.ReadContentRequest(digest=digest)
        replies = self._channel.unary_stream(_CONTENT + "Read", request, content_pb2.ReadContentResponse)
        async with aclosing(replies):
            async for reply in replies:
                yield reply.data

    async def export(self, records: Sequence[BuildRecord], to: BinaryIO, *, platform: str = "") -> None:
        """Write records of builds that have ended as a ``.dockerbuild`` archive.

        Arguments, errors and cancellation are those of `mobysession.buildkit.history_archive.export_records`.
        """
        from mobysession.buildkit.history_archive import export_records  # only for who has archives: start-up

        await export_records(self, records, to, platform=platform)

    async def _listen(self, request: control_pb2.BuildHistoryRequest) -> AsyncIterator[BuildRecord]:
        events = self._channel.unary_stream(_CONTROL + "ListenBuildHistory", request, control_pb2.BuildHistoryEvent)
        try:
            async with aclosing(events):
                async for event in events:
                    if event.type != control_pb2.DELETED and event.HasField("record"):
                        yield _record(event.record)
        except RpcError as error:
            raise _unsupported(error) from error

    async def _update(self, request: control_pb2.UpdateBuildHistoryRequest) -> None:
        try:
            reply = control_pb2.UpdateBuildHistoryResponse
            await self._channel.unary(_CONTROL + "UpdateBuildHistory", request, reply)
        except RpcError as error:
            raise _unsupported(error) from error


def _unsupported(error: RpcError) -> RpcError | UnsupportedByEngine:
    if error.code is not StatusCode.UNIMPLEMENTED:
        return error
    return UnsupportedByEngine("this engine keeps no records of its builds", hint="Docker 23 and later do.")


def _record(message: control_pb2.BuildHistoryRecord) -> BuildRecord:
    attributes = dict(message.FrontendAttrs)
    failed = message.HasField("error")
    return BuildRecord(
        ref=message.Ref,
        name=_name(attributes),
        status=_status(message),
        created=moment(message.CreatedAt) if message.HasField("CreatedAt") else None,
        completed=moment(message.CompletedAt) if message.HasField("CompletedAt") else None,
        steps=message.numTotalSteps,
        completed_steps=message.numCompletedSteps,
        cached_steps=message.numCachedSteps,
        warnings=message.numWarnings,
        pinned=message.pinned,
        frontend=message.Frontend,
        attributes=attributes,
        response=dict(message.ExporterResponse),
        error=message.error.message if failed else "",
        code=_code(message.error.code) if failed else StatusCode.OK,
        blobs=tuple(_blobs(message)),
        log=_blob(message.logs) if message.HasField("logs") else None,
        trace=_blob(message.trace) if message.HasField("trace") else None,
        message=message,
    )


def _code(code: int) -> StatusCode:
    try:
        return StatusCode(code)
    except ValueError:
        return StatusCode.UNKNOWN


def _status(message: control_pb2.BuildHistoryRecord) -> RecordStatus:
    if not message.HasField("CompletedAt"):
        return "running"
    if not message.HasField("error"):
        return "completed"
    cancelled = message.error.code == StatusCode.CANCELLED or "context canceled" in message.error.message
    return "canceled" if cancelled else "error"


def _blobs(message: control_pb2.BuildHistoryRecord) -> list[Blob]:
    results = sorted(message.Results.items())
    if message.HasField("Result"):
        results.insert(0, ("", message.Result))
    found: dict[str, Blob] = {}
    for platform, result in results:
        descriptors = [descriptor for _, descriptor in sorted(result.Results.items())]
        if result.HasField("ResultDeprecated"):
            descriptors.insert(0, result.ResultDeprecated)
        for descriptor in (*descriptors, *result.Attestations):
            found.setdefault(descriptor.digest, _blob(descriptor)._replace(platform=platform))
    return list(found.values())


def _blob(descriptor: control_pb2.Descriptor) -> Blob:
    kind = descriptor.annotations.get(PREDICATE, "")
    return Blob(descriptor.digest, descriptor.media_type, descriptor.size, kind)


def _name(attributes: Mapping[str, str]) -> str:
    """Return what a build is called: by itself, or by its context, its Dockerfile and its target."""
    if given := attributes.get("build-arg:BUILDKIT_BUILD_NAME"):
        return given
    context = attributes.get("context") or attributes.get("vcs:localdir:context", "")
    folder = attributes.get("vcs:localdir:dockerfile", "")
    file = attributes.get("filename", "Dockerfile")
    parts = [part for part in (folder if folder != "." else "", file if file != "Dockerfile" else "") if part]
    name = context if context not in ("", ".") else "/".join(parts)
    if not name:
        name = attributes.get("vcs:source", "").rstrip("/").rpartition("/")[2].removesuffix(".git")
    target = attributes.get("target", "")
    return f"{name} ({target})" if name and target else name or target

"""What a BuildKit keeps of its builds and of its cache: records with their files, and pieces of cache that can go.

Source: moby/buildkit solver/llbsolver/history.go, control/control.go; the form of a log as engine 28.5.2 hands it out.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from mobysession._pb import content_pb2, control_pb2
from mobysession.errors import RpcError, StatusCode

if TYPE_CHECKING:
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall
    from mobysession.testing.script import FakeSolve

__all__ = ["Records"]

_CONTROL: Final = "/moby.buildkit.v1.Control/"
_READ: Final = "/containerd.services.content.v1.Content/Read"
_LOG_TYPE: Final = "application/vnd.buildkit.status.v0"
_PIECE: Final = 32 * 1024


class Records:
    """The records of one daemon.

    Attributes:
        builds: by ref, in the order in which they began.
        blobs: their files, by digest.
        cache: the pieces of the build cache; a test puts in what it wants to be there.
        prunes: the requests to prune, as they came.
    """

    def __init__(self) -> None:
        self.builds: dict[str, control_pb2.BuildHistoryRecord] = {}
        self.blobs: dict[str, bytes] = {}
        self.cache: list[control_pb2.UsageRecord] = []
        self.prunes: list[control_pb2.PruneRequest] = []

    def register(self, registrar: Registrar) -> None:
        """Host what concerns records."""
        registrar.unary_stream(_CONTROL + "ListenBuildHistory", self._listen, control_pb2.BuildHistoryRequest)
        registrar.unary_unary(_CONTROL + "UpdateBuildHistory", self._update, control_pb2.UpdateBuildHistoryRequest)
        registrar.unary_unary(_CONTROL + "DiskUsage", self._disk_usage, control_pb2.DiskUsageRequest)
        registrar.unary_stream(_CONTROL + "Prune", self._prune, control_pb2.PruneRequest)
        registrar.unary_stream(_READ, self._read, content_pb2.ReadContentRequest)

    def begin(self, request: control_pb2.SolveRequest) -> None:
        """Record that a build has begun."""
        record = control_pb2.BuildHistoryRecord(
            Ref=request.Ref, Frontend=request.Frontend, FrontendAttrs=request.FrontendAttrs, Exporters=request.Exporters
        )
        record.CreatedAt.GetCurrentTime()
        self.builds[request.Ref] = record

    def end(self, solve: FakeSolve, response: dict[str, str] | None, error: RpcError | None) -> None:
        """Record how it ended, with its log."""
        record = self.builds.get(solve.ref)
        if record is None:
            return
        record.CompletedAt.GetCurrentTime()
        record.ExporterResponse.update(response or {})
        if error is not None:
            record.error.code, record.error.message = error.code, error.message
        vertices = solve.log.vertices()
        record.numTotalSteps = len(vertices)
        record.numCompletedSteps = sum(vertex.HasField("completed") for vertex in vertices)
        record.numCachedSteps = sum(vertex.cached for vertex in vertices)
        record.logs.CopyFrom(self.add_blob(_LOG_TYPE, solve.log.as_file()))

    def add_blob(self, media_type: str, content: bytes) -> control_pb2.Descriptor:
        """Keep a file and return what it is known by."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return control_pb2.Descriptor(media_type=media_type, digest=digest, size=len(content))

    async def _listen(self, request: control_pb2.BuildHistoryRequest, call: ServerCall) -> None:
        if request.Ref:
            chosen = [self.builds[request.Ref]] if request.Ref in self.builds else []
        else:
            chosen = sorted(self.builds.values(), key=lambda record: record.CreatedAt.ToNanoseconds(), reverse=True)
        if request.Filter or request.Limit:
            # BuildKit 0.17 to 0.28 may crash over these, so that no client of ours sends them.
            raise RpcError(StatusCode.INTERNAL, "a filter or a limit: this might have ended a real daemon")
        active = [record for record in chosen if not record.HasField("CompletedAt")]
        ended = [] if request.ActiveOnly else [record for record in chosen if record.HasField("CompletedAt")]
        for kind, records in (
            (control_pb2.STARTED, active),
            (control_pb2.COMPLETE, ended),
        ):
            for record in records:
                event = control_pb2.BuildHistoryEvent(type=kind, record=record)
                await call.send(event.SerializeToString())

    async def _update(
        self, request: control_pb2.UpdateBuildHistoryRequest, call: ServerCall
    ) -> control_pb2.UpdateBuildHistoryResponse:
        if request.Ref not in self.builds:
            if request.Finalize and not request.Delete:
                return control_pb2.UpdateBuildHistoryResponse()
            if request.Delete:
                raise RpcError(StatusCode.NOT_FOUND, f'lease "ref_{request.Ref}": not found')
            raise RpcError(StatusCode.UNKNOWN, f"failed to retrieve ref {request.Ref}: file does not exist")
        if request.Delete:
            del self.builds[request.Ref]
        elif request.Finalize:
            trace = self.add_blob("application/vnd.buildkit.otlp.json.v0", b'{"Name":"build"}\n')
            self.builds[request.Ref].trace.CopyFrom(trace)
        else:
            self.builds[request.Ref].pinned = request.Pinned
        return control_pb2.UpdateBuildHistoryResponse()

    async def _disk_usage(
        self, request: control_pb2.DiskUsageRequest, call: ServerCall
    ) -> control_pb2.DiskUsageResponse:
        return control_pb2.DiskUsageResponse(record=self.cache)

    async def _prune(self, request: control_pb2.PruneRequest, call: ServerCall) -> None:
        self.prunes.append(request)
        going = [record for record in self.cache if not record.InUse]
        self.cache = [record for record in self.cache if record.InUse]
        for record in going:
            await call.send(record.SerializeToString())

    async def _read(self, request: content_pb2.ReadContentRequest, call: ServerCall) -> None:
        content = self.blobs.get(request.digest)
        if content is None:
            raise RpcError(StatusCode.NOT_FOUND, f"content digest {request.digest}: not found")
        for at in range(0, len(content), _PIECE):
            reply = content_pb2.ReadContentResponse(offset=at, data=content[at : at + _PIECE])
            await call.send(reply.SerializeToString())

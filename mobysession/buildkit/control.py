"""BuildKit's Control API: solves and their progress, workers, disk usage.

It is reached behind a hijacked ``POST /grpc``, or by gRPC spoken at once: on an engine's own socket from 29.2 on, and
on a buildkitd.

Source: moby/buildkit api/services/control/control.proto.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from mobysession import limits
from mobysession._pb import control_pb2
from mobysession.errors import RpcError, StatusCode
from mobysession.rpc.opening import open_ready_channel
from mobysession.transport.hijack import HijackedStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    import trio

    from mobysession._pb import worker_pb2
    from mobysession.buildkit.history import History
    from mobysession.buildkit.usage import CacheRecord
    from mobysession.buildkit.workers import Worker
    from mobysession.rpc.client import Channel
    from mobysession.transport.endpoint import Endpoint

__all__ = ["Control", "open_control", "speak_control"]

_SERVICE = "/moby.buildkit.v1.Control/"
_PROXY_HINT = "The daemon's log says more. A proxy in between must pass upgraded connections through."


class Control:
    """The calls of the Control API, on a channel that speaks to a BuildKit; at ``endpoint``, where that is known."""

    def __init__(self, channel: Channel, endpoint: Endpoint | None = None) -> None:
        self.channel = channel
        self._endpoint = endpoint

    async def solve(
        self, request: control_pb2.SolveRequest, *, metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> control_pb2.SolveResponse:
        """Run a solve to its end and return the exporter's response.

        The request's ``Cache`` is always sent, even empty: BuildKit 0.17 to 0.21 crash without it.

        Args:
            metadata: what else the engine is told, such as ``traceparent``, the place of the solve in a trace.

        Raises:
            RpcError: the solve failed; ``details`` hold BuildKit's typed errors.

        Cancel: the daemon cancels the solve.
        """
        request.Cache.SetInParent()
        return await self.channel.unary(_SERVICE + "Solve", request, control_pb2.SolveResponse, metadata=metadata)

    def status(self, ref: str) -> AsyncGenerator[control_pb2.StatusResponse, None]:
        """Yield the progress of solve ``ref``, increments in order, until it is over.

        Raises:
            RpcError: NOT_FOUND when the daemon has not seen the solve within some seconds.
        """
        return self.channel.unary_stream(
            _SERVICE + "Status", control_pb2.StatusRequest(Ref=ref), control_pb2.StatusResponse
        )

    async def info(self) -> worker_pb2.BuildkitVersion | None:
        """Return the daemon's BuildKit version; None from one before BuildKit 0.11, which cannot tell."""
        try:
            response = await self.channel.unary(_SERVICE + "Info", control_pb2.InfoRequest(), control_pb2.InfoResponse)
        except RpcError as error:
            if error.code is StatusCode.UNIMPLEMENTED:
                return None
            raise
        return response.buildkitVersion

    @property
    def history(self) -> History:
        """The builds that the BuildKit remembers."""
        from mobysession.buildkit.history import History  # builds do without: start-up

        return History(self.channel)

    async def list_workers(self, *, filters: Sequence[str] = ()) -> list[Worker]:
        """Return what executes builds there; ``filters`` in containerd's filter syntax, any of which may match."""
        from mobysession.buildkit.workers import worker  # as above

        return [worker(record) for record in (await self._list_workers(filters)).record]

    async def worker_labels(self) -> list[dict[str, str]]:
        """Return the labels of what executes builds there.

        They are all that a build wants to know of it, which asks each time: `list_workers` would load more for that.
        """
        return [dict(record.Labels) for record in (await self._list_workers()).record]

    async def _list_workers(self, filters: Sequence[str] = ()) -> control_pb2.ListWorkersResponse:
        request = control_pb2.ListWorkersRequest(filter=filters)
        return await self.channel.unary(_SERVICE + "ListWorkers", request, control_pb2.ListWorkersResponse)

    async def disk_usage(self, *, filters: Sequence[str] = ()) -> list[CacheRecord]:
        """Return the records of the build cache; ``filters`` as those of workers."""
        from mobysession.buildkit.usage import cache_record  # as above

        response = await self.channel.unary(
            _SERVICE + "DiskUsage",
            control_pb2.DiskUsageRequest(filter=filters),
            control_pb2.DiskUsageResponse,
        )
        return [cache_record(record) for record in response.record]

    async def prune(
        self,
        *,
        filters: Sequence[str] = (),
        all: bool = False,  # noqa: A002 - the name that BuildKit and docker's CLI use
        keep_duration: float = 0,
        reserved_space: int = 0,
        max_used_space: int = 0,
        min_free_space: int = 0,
    ) -> AsyncGenerator[CacheRecord, None]:
        """Delete build cache and yield each record that went.

        Args:
            filters: which records, in containerd's filter syntax.
            all: also internal and shared records.
            keep_duration: seconds; what was used since stays.
            reserved_space: bytes of cache to keep in any case.
            max_used_space: bytes of cache to keep at most.
            min_free_space: bytes of the disk to be free afterwards.

        Raises:
            UnsupportedByEngine: it would ignore one of these two, as those before BuildKit 0.17 (Docker 28) do.
        """
        from mobysession.buildkit.usage import cache_record  # as above

        if max_used_space or min_free_space:
            from mobysession.buildkit.version import refuse_space_bounds

            await refuse_space_bounds(self, self._endpoint)
        request = control_pb2.PruneRequest(
            filter=filters,
            all=all,
            keepDuration=round(keep_duration * 10**9),
            reservedSpace=reserved_space,
            maxUsedSpace=max_used_space,
            minFreeSpace=min_free_space,
        )
        async with aclosing(self.channel.unary_stream(_SERVICE + "Prune", request, control_pb2.UsageRecord)) as records:
            async for record in records:
                yield cache_record(record)


@asynccontextmanager
async def open_control(endpoint: Endpoint, *, native: bool | None = None) -> AsyncIterator[Control]:
    """Open the Control API of the BuildKit at ``endpoint``, for the length of the block.

    Args:
        endpoint: of an engine or of a buildkitd.
        native: speak gRPC at once; False: behind ``POST /grpc``; None: at once where the engine's version has it.

    Raises:
        UpgradeRefused: this engine has no ``/grpc`` (before 19.03, or behind a proxy that hides it).
        TransportError: see `mobysession.transport.native.dial_grpc`.
        HandshakeError: see `speak_control`.
    """
    from mobysession.transport.native import dial_grpc  # builds dial by themselves: start-up

    async with speak_control(await dial_grpc(endpoint, native=native), endpoint=endpoint) as control:
        yield control


@asynccontextmanager
async def speak_control(
    stream: trio.abc.Stream, *, endpoint: Endpoint | None = None, ready_timeout: float = limits.READY_TIMEOUT
) -> AsyncIterator[Control]:
    """Open the Control API on a stream, once the daemon was seen to speak HTTP/2 there; closes the stream.

    Args:
        stream: owned from now on.
        endpoint: where it leads to.
        ready_timeout: seconds to wait for the daemon's SETTINGS.

    Raises:
        HandshakeTimeout: they did not come.
        HandshakeError: the connection ended instead.
    """
    accepted = "the daemon accepted POST /grpc" if isinstance(stream, HijackedStream) else "the daemon was connected to"
    async with open_ready_channel(stream, accepted=accepted, hint=_PROXY_HINT, timeout=ready_timeout) as channel:
        yield Control(channel, endpoint)

"""The Control API, behind ``POST /grpc`` or spoken at once: solves run as scripts, their status is told, sessions come
in tunnels, and little else is known.

Source: moby/buildkit control/control.go.
"""

from __future__ import annotations

import time
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from mobysession._pb import control_pb2, ops_pb2, worker_pb2
from mobysession.errors import MobysessionError, RpcError, StatusCode
from mobysession.rpc.registrar import Cardinality, Registrar
from mobysession.rpc.server import open_server
from mobysession.testing.attached import keep_session
from mobysession.testing.faults import FaultyStream
from mobysession.testing.records import Records
from mobysession.testing.script import FakeSolve, dockerfile_build
from mobysession.testing.tunnel import TunnelEnd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.rpc.server import ServerCall
    from mobysession.testing.fake_daemon import FakeDaemon

__all__ = ["Solver"]

_SERVICE: Final = "/moby.buildkit.v1.Control/"
#: Seconds for which Status waits for a build to appear.
_STATUS_TIMEOUT: Final = 6.0
_EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_VERSION: Final = "v0.25.1"


class Solver:
    """The builds of one daemon.

    Attributes:
        solves: all of them by ref, in the order they were asked for.
        records: what is kept of them, and the build cache.
        spans: the requests of OpenTelemetry's trace service, as they came.
        platforms: what its worker says that it builds for, its own first.
        refuses_spans: says that it has no collector instead, as a BuildKit does that was not given one.
    """

    def __init__(self, daemon: FakeDaemon) -> None:
        self.solves: dict[str, FakeSolve] = {}
        self.records = Records()
        self.spans: list[bytes] = []
        self.refuses_spans = False
        self.platforms: tuple[str, ...] = ("linux/amd64",)
        self._daemon = daemon
        self._changed = trio.lowlevel.ParkingLot()
        self._registrar = Registrar()
        registrar = self._registrar
        registrar.unary_unary(_SERVICE + "Solve", self._solve, control_pb2.SolveRequest)
        registrar.unary_stream(_SERVICE + "Status", self._status, control_pb2.StatusRequest)
        registrar.unary_unary(_SERVICE + "Info", _info, control_pb2.InfoRequest)
        registrar.unary_unary(_SERVICE + "ListWorkers", self._list_workers, control_pb2.ListWorkersRequest)
        self.records.register(registrar)
        registrar.stream(_SERVICE + "Session", self._session, Cardinality.STREAM_STREAM)
        registrar.stream(_EXPORT, self._export, Cardinality.UNARY_UNARY)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve the API on ``stream`` until the client is gone."""
        async with open_server(stream, self._registrar) as server:
            await server.closed.wait()

    async def run(self, solve: FakeSolve) -> dict[str, str]:
        """Run the script of a solve that was begun with `begin`; RpcError when it fails."""
        try:
            return await (self._daemon.script or dockerfile_build)(solve)
        except RpcError:
            raise
        except MobysessionError as error:
            raise RpcError(StatusCode.UNKNOWN, error.message) from error
        except Exception as error:
            # A script that is broken must not look like a build that failed.
            self._daemon.crash(error)
            raise RpcError(StatusCode.INTERNAL, f"the script failed with {type(error).__name__}") from error

    @contextmanager
    def begin(self, request: control_pb2.SolveRequest) -> Iterator[FakeSolve]:
        """Make a build known for its status; it is over at the end of the block."""
        directory = Path(self._daemon.build_directory()) / str(len(self.solves) + 1)
        solve = self.solves[request.Ref] = FakeSolve(self._daemon, request, directory)
        self._changed.unpark_all()
        try:
            yield solve
        finally:
            solve.log.finish()

    async def _solve(self, request: control_pb2.SolveRequest, call: ServerCall) -> control_pb2.SolveResponse:
        if not request.HasField("Cache"):
            # BuildKit 0.17 to 0.21 crash here, and take the daemon with them.
            raise RpcError(StatusCode.INTERNAL, "the solve has no Cache: this would have ended some real daemons")
        self.records.begin(request)
        with self.begin(request) as solve:
            solve.metadata = call.metadata
            return control_pb2.SolveResponse(ExporterResponse=await self._recorded(solve))

    async def _recorded(self, solve: FakeSolve) -> dict[str, str]:
        try:
            response = await self.run(solve)
        except RpcError as error:
            self.records.end(solve, None, error)
            raise
        except trio.Cancelled:
            self.records.end(solve, None, RpcError(StatusCode.CANCELLED, "context canceled"))
            raise
        self.records.end(solve, response, None)
        return response

    async def _list_workers(
        self, request: control_pb2.ListWorkersRequest, call: ServerCall
    ) -> control_pb2.ListWorkersResponse:
        labels = {"org.mobyproject.buildkit.worker.moby.host-gateway-ip": "172.17.0.1"}
        if self._daemon.containerd:
            labels["org.mobyproject.buildkit.worker.snapshotter"] = "overlayfs"
        worker = worker_pb2.WorkerRecord(
            ID="fake",
            Labels=labels,
            platforms=map(_platform, self.platforms),
            BuildkitVersion=_buildkit(),
        )
        return control_pb2.ListWorkersResponse(record=[worker])

    async def _export(self, call: ServerCall) -> None:
        if self.refuses_spans:
            raise RpcError(StatusCode.UNAVAILABLE, "trace collector not configured")
        # Not decoded: OpenTelemetry's messages are not ours, and a client without it never comes here.
        self.spans.append(await call.receive() or b"")
        await call.send(b"")

    async def _session(self, call: ServerCall) -> None:
        faults = self._daemon.tunnel_faults
        if faults.refusal is not None:
            raise RpcError(StatusCode.UNIMPLEMENTED, faults.refusal.message)
        if faults.never_answer or faults.mute:
            await trio.sleep_forever()
        if faults.close_after_101:
            return
        stream = FaultyStream(TunnelEnd(call), faults)
        if faults.garbage:
            await stream.send_all(faults.garbage)
            await trio.sleep_forever()
        fields = [(key, value) for key, value in call.metadata if isinstance(value, str)]
        await keep_session(self._daemon, stream, fields, faults, tunnelled=True)

    async def _status(self, request: control_pb2.StatusRequest, call: ServerCall) -> None:
        await call.send_initial_metadata([("buildkit-current-timestamp", _now())])
        with trio.move_on_after(_STATUS_TIMEOUT):
            while request.Ref not in self.solves:
                await self._changed.park()
        solve = self.solves.get(request.Ref)
        if solve is None:
            raise RpcError(StatusCode.NOT_FOUND, f"no such job {request.Ref}")
        async with aclosing(solve.log.follow()) as messages:  # type: ignore[type-var]  # generators have aclose
            async for message in messages:
                await call.send(message.SerializeToString())


async def _info(request: control_pb2.InfoRequest, call: ServerCall) -> control_pb2.InfoResponse:
    return control_pb2.InfoResponse(buildkitVersion=_buildkit())


def _platform(text: str) -> ops_pb2.Platform:
    system, architecture, *variant = text.split("/")
    return ops_pb2.Platform(OS=system, Architecture=architecture, Variant="".join(variant))


def _buildkit() -> worker_pb2.BuildkitVersion:
    return worker_pb2.BuildkitVersion(package="github.com/moby/buildkit", version=_VERSION)


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"

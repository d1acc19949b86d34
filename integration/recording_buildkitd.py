"""A buildkitd that builds nothing: it says what it can, as buildx asks it, and keeps what a client asks it for.

What a Docker engine has no code for, buildx leaves out of its request to one. A BuildKit that has it cannot be had for
the tests; in its place this one answers the calls by which ``docker buildx build`` finds out, over its remote driver:
an empty solve, which plays the frontend through the gateway, is asked what there is. The next solve is kept and ends.

Source: moby/buildkit client/build.go, frontend/gateway/grpcclient/client.go; docker/buildx build/opt.go.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import trio

from integration.solve_requests import Asked, of_bridge, of_control
from mobysession._pb import control_pb2, gateway_pb2, worker_pb2
from mobysession.concurrency import open_nursery
from mobysession.errors import RpcError, StatusCode
from mobysession.rpc.client import open_channel
from mobysession.rpc.listener import serve_listener
from mobysession.testing.tunnel import TunnelEnd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall

__all__ = ["RecordingBuildkitd", "open_recording_buildkitd"]

#: What of its abilities buildx asks for before it passes a cache on (moby/buildkit solver/pb/caps.go).
_CAPS: Final = ("cache.gha", "cache.s3", "cache.azblob")
_CONTROL: Final = "/moby.buildkit.v1.Control/"
_BRIDGE: Final = "/moby.buildkit.v1.frontend.LLBBridge/"


@contextlib.asynccontextmanager
async def open_recording_buildkitd() -> AsyncIterator[RecordingBuildkitd]:
    """Listen on a free TCP port for the length of the block."""
    daemon = RecordingBuildkitd()
    async with open_nursery() as nursery:
        listening = await nursery.start(serve_listener, "tcp://127.0.0.1:0", daemon)
        daemon.address = f"tcp://{listening.addresses[0]}"
        yield daemon
        nursery.cancel_scope.cancel()


class RecordingBuildkitd:
    """Keeps every solve in which a build is named.

    Attributes:
        address: where it listens.
        asked: the solves, in order.
    """

    def __init__(self) -> None:
        self.address = ""
        self.asked: list[Asked] = []
        self._solves: dict[str, Asked] = {}
        #: Of builds and sessions, by their IDs.
        self._ends: dict[str, trio.Event] = {}

    def register(self, registrar: Registrar) -> None:
        """Host what a client calls for one build."""
        registrar.unary_unary(_CONTROL + "Info", self._info, control_pb2.InfoRequest)
        registrar.unary_unary(_CONTROL + "ListWorkers", self._list_workers, control_pb2.ListWorkersRequest)
        registrar.unary_unary(_CONTROL + "Solve", self._solve, control_pb2.SolveRequest)
        registrar.unary_stream(_CONTROL + "Status", self._status, control_pb2.StatusRequest)
        registrar.stream(_CONTROL + "Session", self._session)
        registrar.unary_unary(_BRIDGE + "Ping", self._ping, gateway_pb2.PingRequest)
        registrar.unary_unary(_BRIDGE + "Solve", self._solve_by_bridge, gateway_pb2.SolveRequest)
        registrar.unary_unary(_BRIDGE + "Return", self._return, gateway_pb2.ReturnRequest)

    async def _info(self, request: control_pb2.InfoRequest, call: ServerCall) -> control_pb2.InfoResponse:
        return control_pb2.InfoResponse(buildkitVersion=worker_pb2.BuildkitVersion(version="v0.25.1"))

    async def _list_workers(
        self, request: control_pb2.ListWorkersRequest, call: ServerCall
    ) -> control_pb2.ListWorkersResponse:
        worker = worker_pb2.WorkerRecord(ID="recording")
        worker.platforms.add(OS="linux", Architecture="amd64")
        return control_pb2.ListWorkersResponse(record=[worker])

    async def _session(self, call: ServerCall) -> None:
        """Be the client of the session until its build ends, and ask it nothing; buildx waits for that."""
        [session_id] = call.values("x-docker-expose-session-uuid")
        await call.send_initial_metadata()
        async with open_channel(TunnelEnd(call)):
            await self._ended(session_id).wait()

    async def _status(self, request: control_pb2.StatusRequest, call: ServerCall) -> None:
        await self._ended(request.Ref).wait()

    async def _solve(self, request: control_pb2.SolveRequest, call: ServerCall) -> control_pb2.SolveResponse:
        solve = self._solves[request.Ref] = of_control(request)
        if not request.Frontend:
            await self._ended(request.Ref).wait()
        self._ended(request.Ref).set()
        self._ended(request.Session).set()
        if request.Frontend:
            self.asked.append(solve)
            raise RpcError(StatusCode.UNIMPLEMENTED, "nothing is built here")
        return control_pb2.SolveResponse()

    async def _ping(self, request: gateway_pb2.PingRequest, call: ServerCall) -> gateway_pb2.PongResponse:
        answer = gateway_pb2.PongResponse()
        # Without this one it says how its solve ended on stdout, and nowhere else.
        answer.FrontendAPICaps.add(ID="return", Enabled=True)
        for name in _CAPS:
            answer.LLBCaps.add(ID=name, Enabled=True)
        return answer

    async def _solve_by_bridge(self, request: gateway_pb2.SolveRequest, call: ServerCall) -> gateway_pb2.SolveResponse:
        [ref] = call.values("buildkit-controlapi-buildid")
        of_bridge(self._solves[ref], request)
        self.asked.append(self._solves[ref])
        raise RpcError(StatusCode.UNIMPLEMENTED, "nothing is built here")

    async def _return(self, request: gateway_pb2.ReturnRequest, call: ServerCall) -> gateway_pb2.ReturnResponse:
        [ref] = call.values("buildkit-controlapi-buildid")
        self._ended(ref).set()
        return gateway_pb2.ReturnResponse()

    def _ended(self, name: str) -> trio.Event:
        return self._ends.setdefault(name, trio.Event())

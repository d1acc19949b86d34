"""The health service: by it the daemon asks every few seconds whether this session still answers.

``grpc.health.v1.Health`` knows one service here, the empty name, which stands for the whole session, and it serves for
as long as it answers at all. The daemon only ever calls ``Check("")``; one or two unanswered checks, by version, and it
hangs up (moby/buildkit session/grpc.go, monitorHealth). `Watch` stays open because its answer never changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from mobysession._pb.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse
from mobysession.errors import RpcError, StatusCode

if TYPE_CHECKING:
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall

__all__ = ["Health"]

_WHOLE_SESSION = ""


class Health:
    """Answer the daemon's health checks. Every session must allow this, or its builds die within seconds."""

    def register(self, registrar: Registrar) -> None:
        """Add Check, Watch and List (grpc/grpc-proto grpc/health/v1/health.proto)."""
        registrar.unary_unary("/grpc.health.v1.Health/Check", self._check, HealthCheckRequest)
        registrar.unary_stream("/grpc.health.v1.Health/Watch", self._watch, HealthCheckRequest)
        registrar.unary_unary("/grpc.health.v1.Health/List", self._list, HealthListRequest)

    async def _check(self, request: HealthCheckRequest, call: ServerCall) -> HealthCheckResponse:
        if request.service != _WHOLE_SESSION:
            raise RpcError(StatusCode.NOT_FOUND, "unknown service")
        return HealthCheckResponse(status=HealthCheckResponse.SERVING)

    async def _watch(self, request: HealthCheckRequest, call: ServerCall) -> None:
        known = request.service == _WHOLE_SESSION
        status = HealthCheckResponse.SERVING if known else HealthCheckResponse.SERVICE_UNKNOWN
        await call.send(HealthCheckResponse(status=status).SerializeToString())
        await trio.sleep_forever()

    async def _list(self, request: HealthListRequest, call: ServerCall) -> HealthListResponse:
        serving = HealthCheckResponse(status=HealthCheckResponse.SERVING)
        return HealthListResponse(statuses={_WHOLE_SESSION: serving})

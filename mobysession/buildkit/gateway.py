"""Playing a frontend: a solve that names none waits for its client to say, by the same calls, what a frontend says.

``Control.Solve`` without a frontend and without a definition stays open. Beside it the client asks ``LLBBridge.Solve``
for a frontend or a definition, as often as it likes, may look into what comes out, and ends with ``Return``: a result,
which the outer solve then exports, or an error, which becomes the outer solve's. Each call names the solve in its
metadata; the daemon waits some seconds for one that it has not seen yet.

Source: moby/buildkit frontend/gateway/pb/gateway.proto, frontend/gateway/grpcclient/client.go; docker/buildx
build/build.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from mobysession._pb import gateway_pb2, rpcstatus_pb2
from mobysession.concurrency import open_nursery
from mobysession.errors import RpcError, StatusCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from google.protobuf.message import Message

    from mobysession._pb import control_pb2
    from mobysession.buildkit.control import Control

__all__ = ["Bridge", "Played", "frontend_request", "play_frontend"]

_SERVICE: Final = "/moby.buildkit.v1.frontend.LLBBridge/"
_BUILD_ID: Final = "buildkit-controlapi-buildid"

Response = TypeVar("Response", bound="Message")


class Played(NamedTuple):
    """What the solve's exporters said, and the result that was returned to it."""

    response: control_pb2.SolveResponse
    result: gateway_pb2.Result


class Bridge:
    """The calls of a frontend, in one solve.

    Args:
        control: the connection that the solve is asked on.
        ref: of the solve.
    """

    def __init__(self, control: Control, ref: str) -> None:
        self._channel = control.channel
        self._metadata: list[tuple[str, str | bytes]] = [(_BUILD_ID, ref)]

    async def ping(self) -> gateway_pb2.PongResponse:
        """Return what the daemon's frontends, operations and workers can."""
        return await self._call("Ping", gateway_pb2.PingRequest(), gateway_pb2.PongResponse)

    async def solve(self, request: gateway_pb2.SolveRequest) -> gateway_pb2.Result:
        """Evaluate a frontend or a definition as far as is needed to know its result.

        Raises:
            RpcError: it failed; BuildKit's typed errors are in ``details``.
        """
        request.allowResultReturn = request.allowResultArrayRef = True
        return (await self._call("Solve", request, gateway_pb2.SolveResponse)).result

    async def read_file(self, ref: str, path: str) -> bytes:
        """Return the content of a file of a result."""
        request = gateway_pb2.ReadFileRequest(Ref=ref, FilePath=path)
        return (await self._call("ReadFile", request, gateway_pb2.ReadFileResponse)).Data

    async def end(self, *, result: gateway_pb2.Result | None = None, error: RpcError | None = None) -> None:
        """End the frontend with a result, or with an error."""
        status = _status(error) if error is not None else None
        await self._call("Return", gateway_pb2.ReturnRequest(result=result, error=status), gateway_pb2.ReturnResponse)

    async def _call(self, method: str, request: Message, response: type[Response]) -> Response:
        return await self._channel.unary(_SERVICE + method, request, response, metadata=self._metadata)


async def play_frontend(
    control: Control,
    request: control_pb2.SolveRequest,
    frontend: Callable[[Bridge], Awaitable[gateway_pb2.Result]],
    *,
    metadata: Sequence[tuple[str, str | bytes]] = (),
) -> Played:
    """Run a solve whose frontend is a function here.

    Args:
        control: the connection to ask on.
        request: names neither frontend nor definition.
        frontend: makes the result; what it raises as `RpcError` fails the solve.
        metadata: of the solve.

    Raises:
        RpcError: the solve failed.

    Cancel: the daemon cancels the solve.
    """
    result = gateway_pb2.Result()

    async def play() -> None:
        nonlocal result
        bridge = Bridge(control, request.Ref)
        try:
            result = await frontend(bridge)
        except RpcError as error:
            await _ended(bridge, error=error)
        else:
            await _ended(bridge, result=result)

    async with open_nursery() as nursery:
        nursery.start_soon(play)
        response = await control.solve(request, metadata=metadata)
        nursery.cancel_scope.cancel()
    return Played(response, result)


async def _ended(bridge: Bridge, *, result: gateway_pb2.Result | None = None, error: RpcError | None = None) -> None:
    try:
        await bridge.end(result=result, error=error)
    except RpcError:
        # The solve is over already, and says itself why.
        return


def _status(error: RpcError) -> rpcstatus_pb2.Status:
    """Return an error with the details that came with it, so that nothing of it is lost on its way back."""
    if error.details:
        return rpcstatus_pb2.Status.FromString(error.details)
    return rpcstatus_pb2.Status(code=int(error.code or StatusCode.UNKNOWN), message=error.message)


def frontend_request(frontend: str, attributes: Mapping[str, str]) -> gateway_pb2.SolveRequest:
    """Return the request for a frontend that the daemon has."""
    return gateway_pb2.SolveRequest(Frontend=frontend, FrontendOpt=attributes)

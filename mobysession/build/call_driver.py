"""The way of asking a frontend for something else than a build: a solve in which this side plays the frontend.

Only so the metadata of the frontend's result, where its answer is, can be seen: the response of a solve has nothing of
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mobysession._pb import control_pb2
from mobysession.buildkit.gateway import frontend_request, play_frontend
from mobysession.errors import RpcError, UnsupportedByEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession._pb import gateway_pb2
    from mobysession.build.calls import Call
    from mobysession.buildkit.control import Control
    from mobysession.buildkit.gateway import Bridge

__all__ = ["call_frontend"]

_CAP: Final = "moby.buildkit.frontend.subrequests+forward"
#: The Docker versions whose frontend answers, for a message.
_SINCE: Final = {"frontend.outline": 24, "frontend.targets": 24, "frontend.lint": 27}


async def call_frontend(
    control: Control,
    request: control_pb2.SolveRequest,
    call: Call,
    *,
    metadata: Sequence[tuple[str, str | bytes]] = (),
) -> control_pb2.SolveResponse:
    """Ask the frontend of a solve, and return a response with its answer in it.

    Raises:
        UnsupportedByEngine: this frontend does not know the request; the message names what does.
        RpcError: it failed.
    """
    attributes = dict(request.FrontendAttrs)
    caps = attributes.get("frontend.caps")
    attributes["frontend.caps"] = f"{caps},{_CAP}" if caps else _CAP
    attributes["requestid"] = call.request
    frontend = request.Frontend
    request.Frontend = ""
    unknown = False

    async def ask(bridge: Bridge) -> gateway_pb2.Result:
        nonlocal unknown
        try:
            return await bridge.solve(frontend_request(frontend, attributes))
        except RpcError as error:
            unknown = _is_unknown(error)
            raise

    try:
        played = await play_frontend(control, request, ask, metadata=metadata)
    except RpcError as error:
        if unknown or _is_unknown(error):
            raise _unsupported(call) from error
        raise
    answer = {key: value.decode("utf-8", "replace") for key, value in played.result.metadata.items()}
    return control_pb2.SolveResponse(ExporterResponse={**played.response.ExporterResponse, **answer})


def _is_unknown(error: RpcError) -> bool:
    if "unsupported request frontend." in error.message or "unsupported frontend capability" in error.message:
        return True
    from mobysession.buildkit.solve_errors import decode_details

    details = decode_details(error.details) if error.details else None
    return details is not None and (details.subrequest is not None or details.frontend_cap is not None)


def _unsupported(call: Call) -> UnsupportedByEngine:
    since = _SINCE.get(call.request)
    who = f"; that of Docker {since} and later does" if since else ""
    return UnsupportedByEngine(
        f"the frontend of this engine does not know the request {call.name!r}{who}",
        hint="Name a newer frontend with the build argument BUILDKIT_SYNTAX=docker/dockerfile:1.",
    )

"""``POST /build?version=2``: the same builds, asked for in a query, told as a stream of JSON objects.

Source: moby/moby daemon/builder/backend, api/server/router/build.
"""

from __future__ import annotations

import base64
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from mobysession._pb import control_pb2
from mobysession.concurrency import open_nursery
from mobysession.errors import RpcError
from mobysession.identity import new_id
from mobysession.testing.http_side import Refused, compact_json

if TYPE_CHECKING:
    import trio

    from mobysession.testing.fake_daemon import FakeDaemon
    from mobysession.testing.http_side import HttpSide, Request
    from mobysession.testing.script import FakeSolve

__all__ = ["serve_build"]

_FALSE: Final = frozenset(("", "0", "no", "false", "none"))


async def serve_build(daemon: FakeDaemon, http: HttpSide, request: Request) -> None:
    """Answer one build; an error before anything was told is an ordinary answer, later one is the last object."""
    solve_request = _solve_request(request)
    # Engines before the 29 series hold back all output until the request's body has been read.
    await http.body()
    writer = _Writer(http)
    async with open_nursery() as watch:
        watch.start_soon(_cancel_when_gone, http, watch.cancel_scope)
        with daemon.solver.begin(solve_request) as solve:
            solve.metadata = request.headers
            async with open_nursery() as nursery:
                nursery.start_soon(_tell, writer, solve)
                try:
                    response, failure = await daemon.solver.run(solve), ""
                except RpcError as error:
                    response, failure = {}, error.message
                solve.log.finish()
        if failure:
            await writer.write({"errorDetail": {"message": failure}, "error": failure})
        elif digest := response.get("containerimage.digest"):
            await writer.write({"id": "moby.image.id", "aux": {"ID": digest}})
        await writer.end()
        watch.cancel_scope.cancel()


async def _cancel_when_gone(http: HttpSide, scope: trio.CancelScope) -> None:
    """Cancel the build when the client hangs up, as engines do."""
    while await http.stream.receive_some(1024):
        """It has nothing more to say; whatever it is, is dropped."""
    scope.cancel()


class _Writer:
    """The objects of an answer, whose head goes out before the first."""

    def __init__(self, http: HttpSide) -> None:
        self._http = http
        self._begun = False

    async def write(self, document: object) -> None:
        await self._begin()
        await self._http.send_chunk(compact_json(document) + b"\r\n")

    async def end(self) -> None:
        await self._begin()
        await self._http.end_stream()

    async def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            await self._http.start_stream()


async def _tell(writer: _Writer, solve: FakeSolve) -> None:
    async with aclosing(solve.log.follow()) as messages:  # type: ignore[type-var]  # generators have aclose
        async for message in messages:
            aux = base64.b64encode(message.SerializeToString()).decode("ascii")
            await writer.write({"id": "moby.buildkit.trace", "aux": aux})


def _solve_request(request: Request) -> control_pb2.SolveRequest:
    if request.argument("version") != "2":
        raise Refused(400, f'invalid version "{request.argument("version")}"')
    if request.argument("remote") != "client-session":
        raise Refused(501, "the fake daemon builds directories of a session only: remote=client-session")
    attributes = {"filename": request.argument("dockerfile") or "Dockerfile"}
    if target := request.argument("target"):
        attributes["target"] = target
    if request.argument("nocache").lower() not in _FALSE:
        attributes["no-cache"] = ""
    for key, prefix in (("buildargs", "build-arg:"), ("labels", "label:")):
        given = json.loads(request.argument(key) or "{}")
        attributes |= {prefix + name: value for name, value in given.items() if value is not None}
    names = ",".join(request.query.get("t", []))
    exporter = control_pb2.Exporter(Type="moby", Attrs={"name": names} if names else {})
    outputs = json.loads(request.argument("outputs") or "[]")
    exporters = [control_pb2.Exporter(Type=output["Type"], Attrs=output.get("Attrs") or {}) for output in outputs]
    return control_pb2.SolveRequest(
        Ref=new_id(),
        Session=request.argument("session"),
        Frontend="dockerfile.v0",
        FrontendAttrs=attributes,
        Exporters=exporters or [exporter],
        Cache=control_pb2.CacheOptions(),
    )

"""One connection to the fake daemon: the routes of its HTTP/1.1, and what becomes of it when it is taken over."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import trio

from mobysession.concurrency import open_nursery
from mobysession.testing.caller import FakeCaller
from mobysession.testing.faults import FaultyStream
from mobysession.testing.http_side import HttpSide, Refused
from mobysession.testing.peer import open_peer

if TYPE_CHECKING:
    from mobysession.errors import RpcError
    from mobysession.testing.fake_daemon import FakeDaemon
    from mobysession.testing.faults import Faults
    from mobysession.testing.http_side import Request

__all__ = ["DaemonConnection"]

_SERVER: Final = "Docker/28.5.2 (linux)"
_OLDEST: Final = (1, 24)
#: Seconds that grpc-go waits for the other side's SETTINGS.
_CONNECT_TIMEOUT: Final = 20.0
_EXPOSED: Final = "x-docker-expose-session-"


class DaemonConnection:
    """A connection and what it is asked."""

    def __init__(self, daemon: FakeDaemon, stream: trio.abc.Stream) -> None:
        self._daemon = daemon
        self._stream = stream
        self._http = HttpSide(stream, api_version=daemon.api_version, server=_SERVER)

    async def serve(self) -> None:
        """Answer until the client is gone or the connection was taken over."""
        try:
            async with aclosing(self._http.requests()) as requests:  # type: ignore[type-var]  # generators have aclose
                async for request in requests:
                    self._daemon.requests.append((request.method, request.path))
                    try:
                        await self._route(request)
                    except Refused as refused:
                        await self._http.refuse(refused)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _route(self, request: Request) -> None:
        http, daemon = self._http, self._daemon
        self._check_version(request)
        match request.method, request.path:
            case (("GET" | "HEAD"), "/_ping"):
                await http.ping()
            case "GET", "/version":
                await http.answer_json(_version(daemon.api_version))
            case "GET", "/info":
                await http.answer_json({"ID": "fake", "Name": "fake", "OSType": "linux", "ServerVersion": "28.5.2"})
            case "POST", "/session":
                await self._session(request)
            case "POST", "/grpc":
                await self._grpc(request)
            case "POST", "/build":
                from mobysession.testing.classic import serve_build

                await serve_build(daemon, http, request)
            case "POST", "/build/cancel":
                await http.answer(200, b"", "text/plain; charset=utf-8")
            case _:
                raise Refused(404, "page not found")

    def _check_version(self, request: Request) -> None:
        if request.version is None:
            return
        asked, newest = ".".join(map(str, request.version)), self._daemon.api_version
        if request.version > tuple(map(int, newest.split("."))):
            raise Refused(400, f"client version {asked} is too new. Maximum supported API version is {newest}")
        if request.version < _OLDEST:
            oldest = ".".join(map(str, _OLDEST))
            raise Refused(
                400,
                f"client version {asked} is too old. Minimum supported API version is {oldest}, "
                "please upgrade your client to a newer version",
            )

    # -- upgrades ------------------------------------------------------------------------------------------------------

    async def _session(self, request: Request) -> None:
        daemon, faults = self._daemon, self._daemon.faults
        session_id = request.header(_EXPOSED + "uuid") or ""
        stream = await self._upgrade(
            request, faults, status=400, taken=session_id if faults.id_taken or session_id in daemon.sessions else None
        )
        if stream is None:
            return
        async with open_peer(stream, gives_windows=not faults.slow_reader) as peer:
            caller = FakeCaller(
                peer,
                session_id=session_id,
                name=request.header(_EXPOSED + "name") or "",
                shared_key=request.header(_EXPOSED + "sharedkey") or "",
                methods=[value for key, value in request.headers if key == _EXPOSED + "grpc-method"],
            )
            daemon.register(caller)
            reason = "the daemon was stopped"
            try:
                reason = await self._keep(caller, faults)
            finally:
                daemon.unregister(caller, reason)

    async def _keep(self, caller: FakeCaller, faults: Faults) -> str:
        """Stay until the session's end and say why it ended."""
        with trio.move_on_after(_CONNECT_TIMEOUT):
            await caller.channel.ready.wait()
        if not caller.channel.settings:
            return caller.channel.reason or "the client sent no SETTINGS in time"
        reason = ""
        async with open_nursery() as nursery:
            if faults.goaway_after is not None:
                nursery.start_soon(_cancel_after, faults.goaway_after, nursery.cancel_scope)
                reason = "the daemon says goodbye"

            async def check(timeout: float) -> None:
                await caller.health(timeout=0.0 if faults.fail_health else timeout)
                caller.health_checks += 1

            failure: RpcError = await self._daemon.health.run(check)
            reason = f"session healthcheck failed fatally: {failure}"
            nursery.cancel_scope.cancel()
        return reason

    async def _grpc(self, request: Request) -> None:
        stream = await self._upgrade(request, self._daemon.grpc_faults, status=500)
        if stream is not None:
            await self._daemon.solver.serve(stream)

    async def _upgrade(
        self, request: Request, faults: Faults, *, status: int, taken: str | None = None
    ) -> trio.abc.Stream | None:
        """Answer an upgrade; return the stream that HTTP/2 starts on, None where the faults want none."""
        http = self._http
        if faults.never_answer:
            await trio.sleep_forever()
        if faults.refusal is not None:
            await http.answer(faults.refusal.status, faults.refusal.content(), faults.refusal.content_type)
            return None
        if taken is not None:
            raise Refused(status, f"session {taken} already exists")
        protocol = request.header("upgrade")
        if protocol is None:
            raise Refused(status, "no upgrade proto in request")
        if protocol != "h2c":
            raise Refused(status, f"protocol {protocol} not supported")
        stream = FaultyStream(self._stream, faults)
        http.stream = stream
        await http.switch(faults.upgraded_to)
        if faults.garbage:
            await stream.send_all(faults.garbage)
        if faults.mute or faults.garbage:
            await trio.sleep_forever()
        if faults.close_after_101:
            await trio.aclose_forcefully(stream)
            return None
        return stream


async def _cancel_after(seconds: float, scope: trio.CancelScope) -> None:
    await trio.sleep(seconds)
    scope.cancel()


def _version(api_version: str) -> dict[str, object]:
    return {
        "Platform": {"Name": ""},
        "Version": "28.5.2",
        "ApiVersion": api_version,
        "MinAPIVersion": ".".join(map(str, _OLDEST)),
        "Os": "linux",
        "Arch": "amd64",
        "Experimental": False,
    }

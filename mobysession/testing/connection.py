"""One connection to the fake daemon: the routes of its HTTP/1.1, and what becomes of it when it is taken over."""

from __future__ import annotations

import datetime
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import trio

from mobysession.testing.attached import SESSION_ID, keep_session
from mobysession.testing.faults import FaultyStream
from mobysession.testing.greeting import FOUND_ELSEWHERE, greeting
from mobysession.testing.http_side import HttpSide, Refused

if TYPE_CHECKING:
    from mobysession.testing.fake_daemon import FakeDaemon
    from mobysession.testing.faults import Faults
    from mobysession.testing.http_side import Request

__all__ = ["DaemonConnection"]

_SERVER: Final = "Docker/28.5.2 (linux)"
_OLDEST: Final = (1, 24)
#: How grpc-go opens a connection, before it reads anything: an empty SETTINGS frame.
_SETTINGS: Final = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


class DaemonConnection:
    """A connection and what it is asked."""

    def __init__(self, daemon: FakeDaemon, stream: trio.abc.Stream) -> None:
        self._daemon = daemon
        self._stream = stream
        self._http = HttpSide(stream, api_version=daemon.api_version, server=_SERVER)

    async def serve(self) -> None:
        """Answer until the client is gone or the connection was taken over."""
        try:
            at_once, stream = await greeting(self._stream)
            if self._daemon.speaks_native and at_once:
                await self._daemon.solver.serve(stream)
            elif self._daemon.is_buildkitd:
                await stream.send_all(_SETTINGS)
            elif at_once:
                await stream.send_all(FOUND_ELSEWHERE)
            else:
                self._http.stream = stream
                await self._serve_http()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _serve_http(self) -> None:
        async with aclosing(self._http.requests()) as requests:  # type: ignore[type-var]  # generators have aclose
            async for request in requests:
                self._daemon.requests.append((request.method, request.path))
                try:
                    await self._route(request)
                except Refused as refused:
                    await self._http.refuse(refused)

    async def _route(self, request: Request) -> None:
        http, daemon = self._http, self._daemon
        self._check_version(request)
        match request.method, request.path:
            case (("GET" | "HEAD"), "/_ping"):
                await http.ping()
            case "GET", "/version":
                await http.answer_json(_version(daemon.api_version))
            case "GET", "/info":
                await http.answer_json(_info(daemon))
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
        session_id = request.header(SESSION_ID) or ""
        stream = await self._upgrade(
            request, faults, status=400, taken=session_id if faults.id_taken or session_id in daemon.sessions else None
        )
        if stream is None:
            return
        await keep_session(daemon, stream, request.headers, faults)

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


def _engine_version(api_version: str) -> str:
    """Return an engine that has this version of the API, of those that matter: clients tell features by it."""
    api = tuple(map(int, api_version.split(".")))
    known = {(1, 42): "20.10.24", (1, 48): "26.1.5", (1, 53): "28.5.2"}
    return next((version for since, version in known.items() if api < since), "29.2.0")


def _info(daemon: FakeDaemon) -> dict[str, object]:
    now = datetime.datetime.fromtimestamp(time.time() + daemon.clock_skew, datetime.UTC)
    version = _engine_version(daemon.api_version)
    return {
        "ID": "fake",
        "Name": "fake",
        "OSType": "linux",
        "Driver": "overlayfs" if daemon.containerd else "overlay2",
        "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]] if daemon.containerd else [],
        "ServerVersion": version,
        # As Go writes it: nanoseconds.
        "SystemTime": now.strftime("%Y-%m-%dT%H:%M:%S.%f000Z"),
    }


def _version(api_version: str) -> dict[str, object]:
    return {
        "Platform": {"Name": ""},
        "Version": _engine_version(api_version),
        "ApiVersion": api_version,
        "MinAPIVersion": ".".join(map(str, _OLDEST)),
        "Os": "linux",
        "Arch": "amd64",
        "Experimental": False,
    }

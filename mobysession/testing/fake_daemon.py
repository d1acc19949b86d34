"""A daemon without containers: the half of the conversation that `dockerd` has, on a stream in memory or a unix socket.

It registers the sessions that clients open, asks for their health on BuildKit's schedule and hangs up on the first
failure, and calls them back when a test, or a build on ``POST /grpc`` or ``POST /build``, wants something. Builds run
a script: by default one that fetches what a real engine would fetch and executes nothing. What it does was seen from
engines 20.10.24, 28.5.2 and one of API 1.56; where they differ it is as strict as the strictest, and answers like
28.5.2.

::

    async with FakeDaemon() as daemon:                      # in memory
        async with open_session(daemon.dialer, ...) as session: ...

    async with FakeDaemon.listen() as daemon:               # on a unix socket of its own
        await build(directory, endpoint=daemon.endpoint)
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import trio

from mobysession.concurrency import open_nursery
from mobysession.errors import UsageError
from mobysession.testing.connection import DaemonConnection
from mobysession.testing.faults import Faults
from mobysession.testing.memory import memory_connection
from mobysession.testing.schedule import ENGINE_28, HealthSchedule
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.hijack import hijack
from mobysession.transport.native import NATIVE_SINCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from mobysession.testing.caller import FakeCaller
    from mobysession.testing.script import Script
    from mobysession.testing.solver import Solver

__all__ = ["FakeDaemon"]


class _Attachment(NamedTuple):
    """What `mobysession.session.Attachment` is, without importing the room that is being tested."""

    stream: trio.abc.Stream
    way: str
    status_line: str
    headers: tuple[tuple[str, str], ...]
    carrier: None = None


class FakeDaemon:
    """The daemon; an async context manager, which ends every connection when it is left.

    Args:
        path: unix socket to listen on; None: only in memory, through `dial` and `dialer`.
        health: when sessions are asked for their health.
        script: what a build does; None: `dockerfile_build`.
        faults: of the connections that ask for ``/session``.
        grpc_faults: of those that ask for ``/grpc``.
        tunnel_faults: of the sessions that come by Control.Session; a refusal is UNIMPLEMENTED there.
        api_version: what the Engine API says it is; from 1.53 on gRPC can be spoken at once.
        directory: where builds keep what they receive; None: a temporary directory, removed at the end.
        buildkitd: be a BuildKit on its own, which speaks gRPC and no HTTP/1.1.

    Attributes:
        sessions: the registered sessions by ID. One whose connection has ended stays until its next health check fails,
            as with real engines, and its ID is refused until then.
        ended: sessions that are over, in order.
        requests: what was asked over HTTP/1.1: method and path.
        containerd: says that it keeps images in containerd.
        clock_skew: seconds by which the daemon's clock is ahead of this machine's.
        faults, grpc_faults, tunnel_faults, script: may be changed; connections and builds take them as they are when
            they begin.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        health: HealthSchedule = ENGINE_28,
        script: Script | None = None,
        faults: Faults | None = None,
        grpc_faults: Faults | None = None,
        tunnel_faults: Faults | None = None,
        api_version: str = "1.51",
        directory: str | os.PathLike[str] | None = None,
        buildkitd: bool = False,
    ) -> None:
        self.is_buildkitd = buildkitd
        self.health = health
        self.script = script
        self.faults = faults or Faults()
        self.grpc_faults = grpc_faults or Faults()
        self.tunnel_faults = tunnel_faults or Faults()
        self.api_version = api_version
        self.containerd = False
        self.clock_skew = 0.0
        self.sessions: dict[str, FakeCaller] = {}
        self.ended: list[FakeCaller] = []
        self.requests: list[tuple[str, str]] = []
        self._path = os.fspath(path) if path is not None else None
        self._listens = path is not None
        self._directory = os.fspath(directory) if directory is not None else None
        self._changed = trio.lowlevel.ParkingLot()
        self._stack = AsyncExitStack()
        self._nursery: trio.Nursery | None = None
        self._solver: Solver | None = None
        self._connections: set[trio.CancelScope] = set()

    @classmethod
    def listen(cls, path: str | os.PathLike[str] | None = None, **options: Any) -> Self:
        """Return a daemon that listens on ``path``; None: a socket in a temporary directory of its own.

        ``options`` are those of the class.
        """
        daemon = cls(path, **options)
        daemon._listens = True
        return daemon

    async def __aenter__(self) -> Self:
        listeners = [await self._listen()] if self._listens else []
        self._nursery = await self._stack.enter_async_context(open_nursery())
        self._stack.callback(self._nursery.cancel_scope.cancel)
        if listeners:
            self._nursery.start_soon(trio.serve_listeners, self.serve, listeners)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._stack.__aexit__(kind, error, traceback)
        finally:
            self._nursery = None

    # -- ways in -------------------------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The address as ``DOCKER_HOST`` takes it; UsageError for a daemon that does not listen, or not yet."""
        if self._path is None:
            hint = "Enter it first." if self._listens else "Use FakeDaemon.listen(), or daemon.dialer."
            raise UsageError("this fake daemon has no address", hint=hint)
        return f"unix://{self._path}"

    @property
    def endpoint(self) -> Endpoint:
        """The address as mobysession takes it."""
        if self.is_buildkitd:
            return Endpoint.buildkitd(self.host, source="fake daemon")
        return Endpoint.parse(self.host, source="fake daemon")

    @property
    def speaks_native(self) -> bool:
        """True where gRPC can be spoken at once, as on engines from 29.2 on."""
        return self.is_buildkitd or tuple(map(int, self.api_version.split("."))) >= NATIVE_SINCE

    async def dial(self) -> trio.abc.Stream:
        """Return a new connection to the daemon, in memory: nothing has been asked on it yet."""
        if self._nursery is None:
            raise UsageError("this fake daemon does not run; enter it first")
        ours, theirs = memory_connection()
        self._nursery.start_soon(self.serve, theirs)
        await trio.lowlevel.checkpoint()
        return ours

    @asynccontextmanager
    async def dialer(self, headers: Any) -> AsyncIterator[Any]:
        """Open a session in memory: ``Session(daemon.dialer)``.

        It is of any type because a session's own room stands above this one; it fits `mobysession.session.Dialer`.
        """
        stream = await hijack(await self.dial(), "/session", headers.fields())
        try:
            yield _Attachment(stream, "fake", stream.status_line, tuple(stream.headers))
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    # -- what a test looks at ------------------------------------------------------------------------------------------

    async def wait_session(self, session_id: str | None = None) -> FakeCaller:
        """Return the session of this ID, or the latest where None, once it is there and speaks HTTP/2."""
        while True:
            caller = self._find(session_id)
            if caller is not None:
                await caller.channel.ready.wait()
                return caller
            await self._changed.park()

    async def wait_ended(self, session_id: str | None = None) -> FakeCaller:
        """Return the session of this ID, or the first that ends where None, once it is over."""
        while True:
            for caller in self.ended:
                if session_id in (None, caller.id):
                    return caller
            await self._changed.park()

    def kill(self) -> None:
        """Drop every connection at once, as a daemon does that is killed; it goes on listening."""
        for scope in list(self._connections):
            scope.cancel()
        self.sessions.clear()

    def _find(self, session_id: str | None) -> FakeCaller | None:
        if session_id is None:
            return next(reversed(self.sessions.values()), None)
        return self.sessions.get(session_id)

    # -- what connections tell -----------------------------------------------------------------------------------------

    def register(self, caller: FakeCaller) -> None:
        """Take a new session."""
        self.sessions[caller.id] = caller
        self._changed.unpark_all()

    def unregister(self, caller: FakeCaller, reason: str) -> None:
        """Take the end of a session."""
        if caller.tunnelled:
            # Nobody looks whose entry it is.
            self.sessions.pop(caller.id, None)
        elif self.sessions.get(caller.id) is caller:
            del self.sessions[caller.id]
        caller.reason = reason
        caller.closed.set()
        self.ended.append(caller)
        self._changed.unpark_all()

    @property
    def solver(self) -> Solver:
        """The Control API, made when the first build comes."""
        if self._solver is None:
            from mobysession.testing.solver import Solver

            self._solver = Solver(self)
        return self._solver

    def build_directory(self) -> str:
        """Return the directory under which builds keep what they receive."""
        if self._directory is None:
            self._directory = tempfile.mkdtemp(prefix="fake-daemon-builds-")
            self._stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
        return self._directory

    def crash(self, error: Exception) -> None:
        """Let ``error`` come out of the daemon's own block: it is a fault of the test, not of the client."""
        assert self._nursery is not None
        self._nursery.start_soon(_raise, error)

    async def _listen(self) -> trio.SocketListener:
        if self._path is None:
            folder = tempfile.mkdtemp(prefix="fake-daemon-")
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self._path = os.path.join(folder, "docker.sock")
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        try:
            await sock.bind(self._path)
            sock.listen(128)
        except BaseException:
            sock.close()
            await self._stack.aclose()
            raise
        self._stack.callback(Path(self._path).unlink, missing_ok=True)
        return trio.SocketListener(sock)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Be the daemon on a connection that something else has accepted, such as one of TLS, until its end."""
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                await DaemonConnection(self, stream).serve()
            finally:
                self._connections.discard(scope)
                await trio.aclose_forcefully(stream)


async def _raise(error: Exception) -> None:
    raise error

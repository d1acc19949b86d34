"""The session itself: an ID, the services that were allowed, and one attachment at a time.

::

    session = Session(endpoint)
    session.allow(Secrets({"token": b"..."}))
    async with session.attach():        # dialled, and the daemon was seen to speak HTTP/2
        ...                             # the daemon calls back; builds name session.id

Nothing is exposed that was not allowed; health alone is always hosted, because a daemon hangs up on a session without
it.
"""

from __future__ import annotations

import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from mobysession import limits
from mobysession.concurrency import open_nursery
from mobysession.errors import (
    MobysessionError,
    SessionError,
    SessionLost,
    SessionNotReady,
    StatusCode,
)
from mobysession.identity import new_id
from mobysession.protocol.session_headers import SessionHeaders
from mobysession.rpc.keepalive import SESSION_KEEPALIVE
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from mobysession.services.health import Health
from mobysession.session.attach import Attachment, hijack_dialer
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from mobysession.events import CallEnded, SessionEvent
    from mobysession.rpc.inspection import Inspection
    from mobysession.rpc.keepalive import Keepalive
    from mobysession.rpc.registrar import Attachable, CodecChoice
    from mobysession.rpc.server import Server, ServerCall
    from mobysession.session.attach import Dialer

__all__ = ["Session", "open_session"]

_log = logging.getLogger("mobysession.session")


class Session:
    """A connection on which the daemon calls this program back.

    Args:
        target: an endpoint, whose ``POST /session`` is hijacked, or any dialer; None is `Endpoint.from_env`.
        session_id: unique on the daemon; made anew when None. A daemon remembers an ID for up to 10 s after its end.
        name: a label; engines up to BuildKit 0.15 show it.
        shared_key: under which the daemon finds its earlier copy of local directories; see
            `mobysession.identity.shared_key`.
        keepalive: when a daemon that says nothing is asked whether it lives; None never asks. The default asks after
            `limits.SESSION_KEEPALIVE` seconds without any byte, not even of a health check.
    """

    def __init__(
        self,
        target: Endpoint | Dialer | None = None,
        *,
        session_id: str | None = None,
        name: str = "",
        shared_key: str = "",
        keepalive: Keepalive | None = SESSION_KEEPALIVE,
    ) -> None:
        target = Endpoint.from_env() if target is None else target
        self.id = session_id if session_id is not None else new_id()
        self.name = name
        self.shared_key = shared_key
        #: How the session is attached; None while it is not.
        self.attachment: Attachment | None = None
        #: Calls that ended with a local failure, latest last; what the daemon says of a build often only quotes one.
        self.failures: list[CallEnded] = []
        self._dialer: Dialer = hijack_dialer(target) if isinstance(target, Endpoint) else target
        self._keepalive = keepalive
        self._registrar = Registrar()
        self._listeners: list[Callable[[SessionEvent], None]] = []
        self._server: Server | None = None
        #: From the dialling on: the daemon has been told, or is being told, what there is.
        self._engaged = False
        Health().register(self._registrar)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that are hosted, as they are advertised."""
        return self._registrar.methods

    @property
    def settings(self) -> dict[str, int]:
        """The daemon's HTTP/2 settings by name; empty while not attached."""
        return dict(self._server.settings) if self._server is not None else {}

    def allow(self, *services: Attachable) -> None:
        """Host ``services`` on this session; before it is attached, because the daemon is told which methods there are.

        Raises:
            UsageError: two services with the same method.
            SessionError: the session is attached.
        """
        if self._engaged:
            raise SessionError(
                "services are allowed before a session is attached: the daemon is told once what there is"
            )
        for service in services:
            service.register(self._registrar)

    def serve(
        self,
        servicer: object,
        add_servicer: Callable[..., None],
        *,
        interceptors: Sequence[Any] = (),
        codecs: Mapping[str, CodecChoice] | None = None,
    ) -> None:
        """Host a servicer written against grpcio's generated code; see `mobysession.GrpcioServicer`.

        Args:
            servicer: an object with the service's methods, plain functions (run in threads) or ``async def`` (on trio).
            add_servicer: the generated ``add_XServicer_to_server``.
            interceptors: of ``grpc.ServerInterceptor`` or of ``grpc.aio.ServerInterceptor``; the first is asked first.
            codecs: other ways to read and write the messages of some methods, by "/package.Service/Method".

        Raises:
            UsageError, SessionError: as `allow`.
        """
        from mobysession.rpc.grpcio import GrpcioServicer

        self.allow(GrpcioServicer(servicer, add_servicer, interceptors=interceptors, codecs=codecs))

    def listen(self, listener: Callable[[SessionEvent], None]) -> None:
        """Call ``listener`` with every event from now on; it runs in the loop and must not wait."""
        self._listeners.append(listener)

    async def ping(self) -> float:
        """Return the round trip to the daemon in seconds, measured with an HTTP/2 PING."""
        if self._server is None:
            raise SessionError("the session is not attached")
        return await self._server.ping()

    def inspect(self) -> Inspection:
        """Return how the connection is: calls, queues, windows, round trip, last frames, loop lag.

        Raises:
            SessionError: the session is not attached.
        """
        if self._server is None:
            raise SessionError("the session is not attached")
        return self._server.inspect()

    @asynccontextmanager
    async def attach(self, *, ready_timeout: float = limits.READY_TIMEOUT) -> AsyncIterator[Session]:
        """Attach the session for the length of the block, which starts when the daemon's HTTP/2 SETTINGS have arrived.

        Args:
            ready_timeout: seconds to wait for that.

        Raises:
            TransportError: the daemon could not be reached, or refused.
            SessionNotReady: it accepted and then did not speak HTTP/2.
            SessionLost: the session ended after that: the block is not begun, or is cancelled.

        Cancel: running callbacks are cancelled, and the connection is closed.
        """
        if self._engaged:
            raise SessionError(f"session {self.id} is attached already")
        headers = SessionHeaders(
            session_id=self.id, shared_key=self.shared_key, name=self.name, methods=self._registrar.methods
        )
        self._engaged = True
        try:
            self.attachment = await self._dialer(headers)
        except BaseException:
            self._engaged = False
            raise
        error: MobysessionError | None = None
        try:
            async with open_server(
                self.attachment.stream,
                self._registrar,
                on_call_started=self._call_started,
                on_call_ended=self._call_ended,
                keepalive=self._keepalive,
            ) as server:
                self._server = server
                await self._wait_ready(server, ready_timeout)
                async with open_nursery() as nursery:
                    nursery.start_soon(self._watch, server)
                    yield self
                    nursery.cancel_scope.cancel()
        except MobysessionError as failure:
            error = failure if isinstance(failure, SessionError) else None
            raise
        finally:
            self._server = None
            self.attachment = None
            self._engaged = False
            if self._listeners:
                from mobysession.events import SessionEnded

                self._tell(SessionEnded(session_id=self.id, time=time.time(), error=error))

    async def run(self, *, task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED) -> None:
        """Attach and serve until cancelled; ``await nursery.start(session.run)`` returns when it is ready."""
        async with self.attach():
            task_status.started(self)
            await trio.sleep_forever()

    async def _wait_ready(self, server: Server, timeout: float) -> None:
        with trio.move_on_after(timeout):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when, server.closed, nursery.cancel_scope)
                nursery.start_soon(_cancel_when, server.ready, nursery.cancel_scope)
        if server.ready.is_set() and not server.closed.is_set():
            _log.info("session %s is ready, attached by %s", self.id, self.attachment and self.attachment.way)
            if self._listeners:
                from mobysession.events import SessionReady

                self._tell(SessionReady(session_id=self.id, time=time.time(), settings=dict(server.settings)))
            return
        if server.closed.is_set():
            if server.ready.is_set():
                raise self._lost(server) from server.failure
            reason = server.failure.message if server.failure else "the connection was closed"
            raise SessionNotReady(
                f"the daemon accepted the session and then did not open HTTP/2: {reason}",
                hint="The daemon's log says more. A proxy in between must pass upgraded connections through.",
            ) from server.failure
        raise SessionNotReady(
            f"the daemon accepted the session and then said nothing for {timeout:g} s",
            hint="A proxy in between must pass upgraded connections through, in both directions.",
        )

    async def _watch(self, server: Server) -> None:
        await server.closed.wait()
        raise self._lost(server) from server.failure

    def _lost(self, server: Server) -> SessionLost:
        failure = server.failure
        return SessionLost(
            f"session {self.id} was lost: {failure.message if failure else 'the connection was closed'}",
            hint=(failure and failure.hint)
            or "The daemon was stopped or restarted, or gave the session up; its log says more.",
        )

    # -- events --------------------------------------------------------------------------------------------------------
    # Their classes load with the first one that somebody wants to know of: start-up.

    def _tell(self, event: SessionEvent) -> None:
        for listener in self._listeners:
            listener(event)

    def _call_started(self, call: ServerCall) -> None:
        if self._listeners:
            from mobysession.events import CallStarted

            self._tell(CallStarted(session_id=self.id, time=time.time(), call_id=call.number, method=call.method))

    def _call_ended(self, call: ServerCall, code: StatusCode, message: str, error: BaseException | None) -> None:
        if not self._listeners and error is None:
            return
        from mobysession.events import CallEnded

        ended = CallEnded(
            session_id=self.id,
            time=time.time(),
            call_id=call.number,
            method=call.method,
            code=code,
            message=message,
            duration=time.monotonic() - call.started,
            received=call.bytes_received,
            sent=call.bytes_sent,
            error=error,
        )
        if error is not None:
            self.failures.append(ended)
            del self.failures[: -limits.KEPT_FAILURES]
        self._tell(ended)


@asynccontextmanager
async def open_session(
    target: Endpoint | Dialer | None = None,
    *services: Attachable,
    session_id: str | None = None,
    name: str = "",
    shared_key: str = "",
    keepalive: Keepalive | None = SESSION_KEEPALIVE,
) -> AsyncIterator[Session]:
    """Open a session with ``services`` for the length of the block; see `Session` and `Session.attach`."""
    session = Session(target, session_id=session_id, name=name, shared_key=shared_key, keepalive=keepalive)
    session.allow(*services)
    async with session.attach():
        yield session


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()

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
import os
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal

import trio

from mobysession import limits
from mobysession.concurrency import open_nursery
from mobysession.errors import (
    MobysessionError,
    RpcError,
    SessionError,
    SessionNotReady,
    StatusCode,
    UsageError,
)
from mobysession.identity import new_id
from mobysession.protocol.session_headers import SessionHeaders
from mobysession.rpc.keepalive import SESSION_KEEPALIVE
from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from mobysession.services.health import Health
from mobysession.session.attach import EndpointDialer
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from google.protobuf.message import Message

    from mobysession.errors import SessionLost
    from mobysession.events import CallEnded, SessionEvent
    from mobysession.redaction import Redactor
    from mobysession.rpc.connection import Connection
    from mobysession.rpc.inspection import Inspection
    from mobysession.rpc.keepalive import Keepalive
    from mobysession.rpc.observer import Observer
    from mobysession.rpc.registrar import Attachable, CodecChoice
    from mobysession.rpc.server import Server, ServerCall
    from mobysession.session.access import Access
    from mobysession.session.attach import Attachment, Dialer
    from mobysession.session.tracing import CallSpans, Tracing

__all__ = ["Session", "open_session"]

_log = logging.getLogger("mobysession.session")
#: Is told of each session that is made, before anything is allowed on it; see `mobysession.session.recorder`.
new_session_listener: ContextVar[Callable[[Session], None]] = ContextVar("mobysession_new_session_listener")
#: What sets up traces from outside; see `mobysession.session.tracing`.
TRACED_BY: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Session:
    """A connection on which the daemon calls this program back.

    Args:
        target: an endpoint, or any dialer; None is `mobysession.state.active.find_endpoint`.
        attach: by which way an endpoint is attached to: ``auto``, ``hijack``, ``tunnel``, ``native`` or ``buildkitd``;
            see `mobysession.session.attach`. A dialer is a way of its own.
        session_id: unique on the daemon; made anew when None. A daemon remembers an ID for up to 10 s after its end.
        name: a label; engines up to BuildKit 0.15 show it.
        shared_key: under which the daemon finds its earlier copy of local directories; see
            `mobysession.identity.shared_key`.
        keepalive: when a daemon that says nothing is asked whether it lives; None never asks. The default asks after
            `limits.SESSION_KEEPALIVE` seconds without any byte, not even of a health check.
        access: who decides on each request; None: what was allowed is granted.
        tracing: makes a span of each call; None: as the program's OpenTelemetry, or else its variables, have it; False:
            nobody does.
    """

    def __init__(
        self,
        target: Endpoint | Dialer | None = None,
        *,
        attach: str = "auto",
        session_id: str | None = None,
        name: str = "",
        shared_key: str = "",
        keepalive: Keepalive | None = SESSION_KEEPALIVE,
        access: Access | None = None,
        tracing: Tracing | Literal[False] | None = None,
    ) -> None:
        if isinstance(target, str):
            raise UsageError(
                "the target of a session is an Endpoint, and no text", hint=f"Give Endpoint.parse({target!r})."
            )
        if target is None or isinstance(target, Endpoint):
            target = EndpointDialer(target, attach)
        elif attach != "auto":
            raise UsageError("attach chooses the way to an endpoint, and a dialer is a way already")
        self.id = session_id if session_id is not None else new_id()
        self.name = name
        self.shared_key = shared_key
        #: How the session is attached; None while it is not.
        self.attachment: Attachment | None = None
        #: Calls that ended with a local failure, latest last; what the daemon says of a build often only quotes one.
        self.failures: list[CallEnded] = []
        #: The connection on which a build on this session is asked for, to tell which of the two was lost first.
        self.control: Connection | None = None
        self._dialer: Dialer = target
        self._keepalive = keepalive
        self._registrar = Registrar(self.id)
        self._listeners: list[Callable[[SessionEvent], None]] = []
        self._server: Server | None = None
        #: From the dialling on: the daemon has been told, or is being told, what there is.
        self._engaged = False
        #: Calls that run, by number, or ran when the connection was lost.
        self._in_flight: dict[int, ServerCall] = {}
        self._access = access
        #: The spans of the calls; None where nothing is traced.
        self.spans: CallSpans | None = _spans(tracing)
        #: By method, whether a service has what is asked for; the same of what is hosted for a while, the latest last.
        self._offers: dict[str, Callable[[str], bool]] = {}
        self._passing_offers: list[dict[str, Callable[[str], bool] | None]] = []
        #: Methods that the daemon is told of when the session is attached, although nothing hosts them then; until
        #: `hosting` does, they are answered as those of a session without them.
        self.expected: set[str] = set()
        #: Changes a request once it was granted, before its handler sees it.
        self.amend: Callable[[ServerCall, Message], None] | None = None
        #: What the daemon was told of, in lower case.
        self._advertised: frozenset[str] = frozenset()
        #: What knows the secrets of the services that were allowed, also of those that `hosting` hosted.
        self.redactors: list[Redactor] = []
        self._observe: Callable[[Session, bool], Observer] | None = None
        self._registrar.guard = self._check_access
        Health().register(self._registrar)
        if (listener := new_session_listener.get(None)) is not None:
            listener(self)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that are hosted, as they are advertised."""
        return self.granted(self._registrar.methods)

    @property
    def advertised(self) -> frozenset[str]:
        """What the daemon has been told of, in lower case; empty while the session is not attached."""
        return self._advertised

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
            known = len(self._registrar.methods)
            service.register(self._registrar)
            self._keep_redactor(service)
            if (offers := getattr(service, "offers", None)) is not None:
                self._offers.update(dict.fromkeys(self._registrar.methods[known:], offers))

    @contextmanager
    def hosting(self, *services: Attachable) -> Iterator[None]:
        """Host more services for the length of the block, in place of those that have the same methods.

        Raises:
            UsageError: two of them with the same method.
            SessionError: the session is attached, and the daemon was not told of one of their methods.
        """
        registrar = Registrar(self.id)
        registrar.guard = self._check_access
        offers: dict[str, Callable[[str], bool] | None] = {}
        for service in services:
            known = len(registrar.methods)
            service.register(registrar)
            offers.update(dict.fromkeys(registrar.methods[known:], getattr(service, "offers", None)))
        untold = [name for name in self.granted(registrar.methods) if name.lower() not in self._advertised]
        if self._engaged and untold:
            raise SessionError(
                f"{untold[0]} cannot be hosted on session {self.id}: the daemon was told what there is, and not of this"
            )
        with self._registrar.overlaid(registrar):
            kept = [redactor for service in services if (redactor := self._keep_redactor(service)) is not None]
            self._passing_offers.append(offers)
            try:
                yield
            finally:
                # Who records the session hides their secrets also in what was said meanwhile.
                if self._observe is None:
                    self.redactors = [one for one in self.redactors if one not in kept]
                # By what it is, not by what it equals.
                self._passing_offers[:] = [other for other in self._passing_offers if other is not offers]

    def _keep_redactor(self, service: Attachable) -> Redactor | None:
        """Remember what knows a service's secrets, and return it where it was not known before."""
        redactor: Redactor | None = getattr(service, "redactor", None)
        if redactor is None or redactor in self.redactors:
            return None
        self.redactors.append(redactor)
        return redactor

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

    @property
    def observe(self) -> Callable[[Session, bool], Observer] | None:
        """Makes who observes a connection of the session, given it and whether it is attached already; None: nobody."""
        return self._observe

    @observe.setter
    def observe(self, observe: Callable[[Session, bool], Observer] | None) -> None:
        self._observe = observe
        if self._server is not None:
            self._server.observer = None if observe is None else observe(self, True)

    def listen(self, listener: Callable[[SessionEvent], None]) -> None:
        """Call ``listener`` with every event from now on; it runs in the loop and must not wait."""
        self._listeners.append(listener)

    @property
    def in_flight(self) -> tuple[str, ...]:
        """The methods of the calls that are running, health checks left out."""
        from mobysession.session.lost import methods_of  # only for who loses something: start-up

        return methods_of(self._in_flight.values())

    @property
    def answering(self) -> bool:
        """True while a call of the daemon's is running that gets one answer, health checks left out.

        One with a stream of answers, as of a forwarded agent, may go on for ever.
        """
        return any(self._gets_one_answer(method) for method in self.in_flight) if self._in_flight else False

    def _gets_one_answer(self, name: str) -> bool:
        method = self._registrar.find(name)
        return method is not None and method.cardinality.one_answer

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
            ready_timeout: seconds to wait for that once it has accepted the session; reaching it, and its answer, have
                times of their own.

        Raises:
            TransportError: the daemon could not be reached, or refused.
            SessionNotReady: it accepted and then did not speak HTTP/2.
            SessionLost: the session ended after that: the block is not begun, or is cancelled.

        Cancel: running callbacks are cancelled, and the connection is closed.
        """
        if self._engaged:
            raise SessionError(f"session {self.id} is attached already")
        headers = SessionHeaders(
            session_id=self.id,
            shared_key=self.shared_key,
            name=self.name,
            methods=self._announced(),
        )
        self._engaged = True
        self._advertised = frozenset(name.lower() for name in headers.methods)
        if self.spans is not None:
            self.spans.open("session", {"session_id": self.id, "session_name": self.name})
        try:
            async with self._dialer(headers) as attachment:
                self.attachment = attachment
                async with self._serve(attachment, ready_timeout):
                    yield self
        except BaseException as error:
            if self.spans is not None:
                self.spans.close(error)
            raise
        finally:
            self.attachment = None
            self._engaged = False
            self._advertised = frozenset()
            if self.spans is not None:
                self.spans.close()
                await self.spans.tracing.flush()

    def _announced(self) -> tuple[str, ...]:
        hosted = self.methods
        if not self.expected:
            return hosted
        return (*hosted, *self.granted(tuple(name for name in sorted(self.expected) if name not in hosted)))

    def granted(self, methods: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of some methods that no rule refuses."""
        if self._access is None:
            return methods
        return tuple(name for name in methods if self._access.refusal(name) is None)

    @asynccontextmanager
    async def _serve(self, attachment: Attachment, ready_timeout: float) -> AsyncIterator[None]:
        error: MobysessionError | None = None
        self._in_flight.clear()
        try:
            async with open_server(
                attachment.stream,
                self._registrar,
                on_call_started=self._call_started,
                on_call_ended=self._call_ended,
                keepalive=self._keepalive,
                observer=None if self._observe is None else self._observe(self, False),
            ) as server:
                self._server = server
                await self._wait_ready(server, ready_timeout)
                async with open_nursery() as nursery:
                    nursery.start_soon(self._watch, server)
                    yield
                    nursery.cancel_scope.cancel()
        except MobysessionError as failure:
            error = failure if isinstance(failure, SessionError) else None
            raise
        finally:
            self._server = None
            self.attachment = None
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
                raise await self._lost(server) from server.failure
            reason = _reason(server)
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
        raise await self._lost(server) from server.failure

    async def _lost(self, server: Server) -> SessionLost:
        from mobysession.session.lost import session_lost  # only for who loses one: start-up

        return await session_lost(
            self.id,
            server,
            in_flight=self._in_flight.values(),
            carrier=self.attachment.carrier if self.attachment is not None else None,
            control=self.control,
        )

    # -- access --------------------------------------------------------------------------------------------------------

    async def _check_access(self, call: ServerCall, method: str, message: Message | None) -> None:
        if self._access is None and not self._listeners and self.spans is None and self.amend is None:
            return
        from mobysession.session.access import Access, request_of

        request = request_of(call, method, message, session_name=self.name)
        if self.spans is not None:
            self.spans.enter(call, kind=request.kind if request.kind != method else "", subject=request.subject)
        offers = self._offers_of(method)
        offered = offers is None or offers(request.subject)
        if self._access is None and offered:
            # Not worth an event: there was nothing to decide.
            return
        decision = await (self._access or Access()).decide(request, offered=offered)
        if self._listeners:
            from mobysession.events import AccessDecided

            self._tell(
                AccessDecided(
                    session_id=self.id,
                    time=time.time(),
                    call_id=call.number,
                    method=method,
                    kind=request.kind,
                    subject=request.subject,
                    **decision._asdict(),
                )
            )
        if not decision.allowed and decision.by != "offer":
            # What is not offered is refused by the service, in words that the engine knows.
            _log.warning("%s is refused: %s", request, decision.reason)
            raise RpcError(StatusCode.PERMISSION_DENIED, f"{request} is refused by the client: {decision.reason}")
        if self.amend is not None and message is not None:
            self.amend(call, message)

    def _offers_of(self, method: str) -> Callable[[str], bool] | None:
        for passing in reversed(self._passing_offers):
            if method in passing:
                return passing[method]
        return self._offers.get(method)

    # -- events --------------------------------------------------------------------------------------------------------
    # Their classes load with the first one that somebody wants to know of: start-up.

    def _tell(self, event: SessionEvent) -> None:
        for listener in self._listeners:
            listener(event)

    def _call_started(self, call: ServerCall) -> None:
        self._in_flight[call.number] = call
        if self.spans is not None:
            self.spans.begin(call)
        if self._listeners:
            from mobysession.events import CallStarted

            self._tell(CallStarted(session_id=self.id, time=time.time(), call_id=call.number, method=call.method))

    def _call_ended(self, call: ServerCall, code: StatusCode, message: str, error: BaseException | None) -> None:
        if self._server is None or self._server.failure is None:
            self._in_flight.pop(call.number, None)
        if self.spans is not None:
            self.spans.end(call, code, message)
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
    attach: str = "auto",
    session_id: str | None = None,
    name: str = "",
    shared_key: str = "",
    keepalive: Keepalive | None = SESSION_KEEPALIVE,
    access: Access | None = None,
    tracing: Tracing | Literal[False] | None = None,
) -> AsyncIterator[Session]:
    """Open a session with ``services`` for the length of the block; see `Session` and `Session.attach`."""
    session = Session(
        target,
        attach=attach,
        session_id=session_id,
        name=name,
        shared_key=shared_key,
        keepalive=keepalive,
        access=access,
        tracing=tracing,
    )
    session.allow(*services)
    async with session.attach():
        yield session


def _spans(tracing: Tracing | Literal[False] | None) -> CallSpans | None:
    if tracing is None and ("opentelemetry.sdk.trace" in sys.modules or any(map(os.environ.get, TRACED_BY))):
        from mobysession.session.tracing import tracing_from_env

        tracing = tracing_from_env()
    if not tracing:
        return None
    if not hasattr(tracing, "tracer"):
        raise UsageError(f"tracing takes a Tracing, None or False, not an object of type {type(tracing).__name__}")
    from mobysession.session.tracing import CallSpans

    return CallSpans(tracing)


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _reason(server: Server) -> str:
    return server.failure.message if server.failure else "the connection was closed"

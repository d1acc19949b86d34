"""Looking at the sessions of another process of this user, on this machine.

A process that holds sessions listens on a unix socket, which only its user can reach (0600, in a directory of 0700),
and writes down which sessions it answers for (`mobysession.state.sessions`). There it speaks gRPC, the service
``mobysession.local.v1.LocalSessions`` of ``proto/``: what a session is like, what happens on it, and to end it. What is
told is a JSON object each time, because what there is to tell differs from one kind of session to the other.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from mobysession import limits
from mobysession._pb.local_pb2 import (
    AbortRequest,
    AbortResponse,
    Event,
    EventsRequest,
    InspectRequest,
    InspectResponse,
)
from mobysession.concurrency import open_nursery
from mobysession.errors import RpcError, SessionError, StatusCode
from mobysession.rpc.client import open_channel
from mobysession.rpc.listener import serve_listener
from mobysession.state.location import runtime_directory
from mobysession.state.processes import process_token
from mobysession.state.sessions import SessionAnnouncement, SessionDirectory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping

    from mobysession.rpc.client import Channel
    from mobysession.rpc.listener import Listening
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall
    from mobysession.state.store import Store

__all__ = ["LocalPeer", "LocalServer", "LocalSession", "open_local_server", "open_local_session"]

_SERVICE = "/mobysession.local.v1.LocalSessions"
#: The statuses of a managed session that nothing follows; see `mobysession.session.managed.lifecycle`.
_ENDED: Final = frozenset({"closed", "failed"})


class LocalPeer(Protocol):
    """What a session answers to others. Nothing that it tells may be a secret."""

    def inspect(self) -> Mapping[str, object]:
        """Return what the session is like now, as JSON has it."""
        ...

    def events(self) -> AsyncGenerator[Mapping[str, object], None]:
        """Return what happens from now on, as JSON has it, up to the end of the session; closed when nobody listens."""
        ...

    async def abort(self, reason: str) -> None:
        """End what the session is doing, and return without waiting for the end."""
        ...


class LocalServer:
    """Answers for the sessions of this process. Made by `open_local_server`."""

    def __init__(self, store: Store, nursery: trio.Nursery) -> None:
        self._directory = SessionDirectory(store)
        self._nursery = nursery
        self._peers: dict[str, LocalPeer] = {}
        self._announcements: dict[str, SessionAnnouncement] = {}
        #: The streams of events, by session.
        self._watched: dict[str, set[trio.CancelScope]] = {}
        self._starting = trio.Lock()
        self._listening: Listening | None = None
        self._socket = ""
        self._process = ""

    async def announce(self, session_id: str, peer: LocalPeer, *, endpoint: str, created: float) -> None:
        """Answer for a session from now on, and let others know, soon.

        Args:
            session_id: of the session.
            peer: who answers.
            endpoint: the daemon, as it is shown.
            created: seconds since the epoch.

        Raises:
            StateError, EndpointError: there is nowhere to listen; the user must act.
        """
        await self._listen()
        announcement = SessionAnnouncement(
            session_id=session_id,
            # A path may have bytes that are no text.
            endpoint=endpoint.encode("utf-8", "backslashreplace").decode(),
            created=created,
            socket=self._socket,
            pid=os.getpid(),
            process=self._process,
        )
        self._peers[session_id] = peer
        self._announcements[session_id] = announcement
        self._directory.announce(announcement)

    def withdraw(self, session_id: str) -> None:
        """Answer for a session no longer; doing it again does nothing.

        Who watches it sees the end: that of `LocalPeer.events`, for which there is a moment.
        """
        announcement = self._announcements.pop(session_id, None)
        if announcement is None:
            return
        del self._peers[session_id]
        self._directory.withdraw(announcement)
        for scope in self._watched.pop(session_id, ()):
            scope.deadline = trio.current_time() + limits.GOODBYE_TIMEOUT

    # -- the service ---------------------------------------------------------------------------------------------------

    def register(self, registrar: Registrar) -> None:
        """Add the service's methods."""
        registrar.unary_unary(f"{_SERVICE}/Inspect", self._inspect, InspectRequest)
        registrar.unary_stream(f"{_SERVICE}/Events", self._events, EventsRequest)
        registrar.unary_unary(f"{_SERVICE}/Abort", self._abort, AbortRequest)

    async def _inspect(self, request: InspectRequest, call: ServerCall) -> InspectResponse:
        return InspectResponse(json=_text(self._peer(request.session_id).inspect()))

    async def _events(self, request: EventsRequest, call: ServerCall) -> None:
        peer = self._peer(request.session_id)
        with trio.CancelScope() as scope:
            watched = self._watched.setdefault(request.session_id, set())
            watched.add(scope)
            try:
                async with aclosing(peer.events()) as events:
                    async for event in events:
                        await call.send(Event(json=_text(event)).SerializeToString())
            finally:
                watched.discard(scope)

    async def _abort(self, request: AbortRequest, call: ServerCall) -> AbortResponse:
        await self._peer(request.session_id).abort(request.reason)
        return AbortResponse()

    def _peer(self, session_id: str) -> LocalPeer:
        try:
            return self._peers[session_id]
        except KeyError:
            raise RpcError(StatusCode.NOT_FOUND, f"session {session_id} has ended") from None

    # -- the socket ----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        async with self._starting:
            if self._listening is not None:
                return
            self._process = await trio.to_thread.run_sync(process_token)
            path, listener = await trio.to_thread.run_sync(_open_socket)
            self._socket = path
            try:
                self._listening = await self._nursery.start(serve_listener, listener, self)
            except BaseException:
                _unlink(path)
                raise

    def stop(self) -> None:
        """Withdraw all sessions, and end; answers that are being given get a moment."""
        for session_id in list(self._announcements):
            self.withdraw(session_id)
        if self._listening is not None:
            _unlink(self._socket)
            self._listening.stop(grace=2 * limits.GOODBYE_TIMEOUT)


def _open_socket() -> tuple[str, trio.SocketListener]:
    path = str(runtime_directory() / f"{secrets.token_hex(8)}.sock")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(path)
        # Before it listens: nobody can be connected already.
        os.chmod(path, 0o600)
        listening.listen(limits.ACCEPT_BACKLOG)
        return path, trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    except BaseException:
        listening.close()
        _unlink(path)
        raise


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _text(value: Mapping[str, object]) -> str:
    return json.dumps(value, default=str)


@asynccontextmanager
async def open_local_server(store: Store) -> AsyncIterator[LocalServer]:
    """Answer for sessions of this process while the block runs; nothing listens before the first is announced."""
    async with open_nursery() as nursery:
        server = LocalServer(store, nursery)
        try:
            yield server
        finally:
            server.stop()


class LocalSession:
    """A session of another process. Made by `open_local_session`.

    Its methods raise SessionError where the session has ended, or its process does not answer.
    """

    def __init__(self, announcement: SessionAnnouncement, channel: Channel) -> None:
        self.announcement = announcement
        self._channel = channel

    async def inspect(self) -> dict[str, Any]:
        """Return what the session is like now."""
        request = InspectRequest(session_id=self.announcement.session_id)
        with _explained(self.announcement):
            answer = await self._channel.unary(
                f"{_SERVICE}/Inspect", request, InspectResponse, timeout=limits.LOCAL_TIMEOUT
            )
        found: dict[str, Any] = json.loads(answer.json)
        return found

    async def lives(self) -> bool:
        """Return whether it has not ended: its process knows at once, the store of announcements a moment later.

        One that was lost, or closed, is answered for up to the end of its block, and does not live any more.
        """
        try:
            found = await self.inspect()
        except SessionError as error:
            if isinstance(error.__cause__, RpcError) and error.__cause__.code is StatusCode.NOT_FOUND:
                return False
            raise
        info = found.get("info")
        return not (isinstance(info, dict) and info.get("status") in _ENDED)

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield what happens on it until it ends; close the iterator (``aclosing``) to stop."""
        request = EventsRequest(session_id=self.announcement.session_id)
        with _explained(self.announcement):
            async with aclosing(self._channel.unary_stream(f"{_SERVICE}/Events", request, Event)) as events:
                async for event in events:
                    yield json.loads(event.json)

    async def abort(self, reason: str = "") -> None:
        """Have the session end what it is doing."""
        request = AbortRequest(session_id=self.announcement.session_id, reason=reason)
        with _explained(self.announcement):
            await self._channel.unary(f"{_SERVICE}/Abort", request, AbortResponse, timeout=limits.LOCAL_TIMEOUT)


@contextmanager
def _explained(announcement: SessionAnnouncement) -> Iterator[None]:
    try:
        yield
    except RpcError as error:
        raise _no_answer(announcement, error.message or error.code.name) from error


def _no_answer(announcement: SessionAnnouncement, reason: str) -> SessionError:
    return SessionError(f"session {announcement.session_id} of process {announcement.pid} does not answer: {reason}")


@asynccontextmanager
async def open_local_session(announcement: SessionAnnouncement) -> AsyncIterator[LocalSession]:
    """Connect to the process that holds a session, for the length of the block.

    Raises:
        SessionError: it does not answer.
    """
    try:
        with trio.fail_after(limits.LOCAL_TIMEOUT):
            stream = await trio.open_unix_socket(announcement.socket)
    except (OSError, trio.TooSlowError) as error:
        raise _no_answer(announcement, str(error) or "too slow") from error
    async with open_channel(stream) as channel:
        yield LocalSession(announcement, channel)

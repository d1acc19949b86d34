"""Recording sessions: who listens to their connections, and keeps what is said.

::

    async with record_sessions() as recorder:
        await build(".", secrets={"token": b"..."})
    await recorder.recording.save("build.recording")

A recorder hears of the sessions it is told to `Recorder.watch`, or of all that are made inside of `record_sessions`.
Each attachment of one is a connection of the recording. Secrets that pass are learned on the way, whatever the mode;
they and those that the sessions' services know are hidden when the recording is read; see
`mobysession.session.recorder.hiding`.
"""

from __future__ import annotations

import logging
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Literal
from weakref import WeakSet

import trio

from mobysession import limits
from mobysession.concurrency import open_nursery
from mobysession.errors import UsageError
from mobysession.recording import (
    CLIENT,
    DAEMON,
    AnswerBegan,
    CallBegan,
    CallOver,
    ConnectionBegan,
    DaemonDone,
    End,
    Frame,
    Header,
    Message,
    Recording,
    RunChanged,
)
from mobysession.redaction import Redactor
from mobysession.session.recorder.frames import FrameLog
from mobysession.session.recorder.hiding import Hiding, hidden_records, is_secret
from mobysession.session.recorder.spool import Spool
from mobysession.session.session import new_session_listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

    from mobysession.errors import StatusCode
    from mobysession.recording import Metadata, Record
    from mobysession.rpc.call import Call
    from mobysession.session.session import Session

__all__ = ["Recorder", "RecordingMode", "record_session", "record_sessions"]

RecordingMode = Literal["full", "lightweight"]

_log = logging.getLogger("mobysession.session")
#: Where the answer to a request has a secret: the method, and the name of the field.
_SECRET_FIELDS: Final = {
    "/moby.buildkit.secrets.v1.secrets/getsecret": "data",
    "/moby.filesync.v1.auth/credentials": "Secret",
    "/moby.filesync.v1.auth/fetchtoken": "Token",
}


class Recorder:
    """Keeps what is said on the sessions it watches, until `stop`.

    Args:
        mode: ``full`` keeps all that is said, ``lightweight`` calls with their sizes and times.
        frames: keep the frames of HTTP/2 too, of connections that begin while it records.
        command: of the build that is recorded, in words.
    """

    def __init__(self, mode: RecordingMode = "full", *, frames: bool = False, command: Iterable[str] = ()) -> None:
        self.mode = mode
        self.frames = frames
        #: The run of a managed session that goes on; 0 outside of one.
        self.run = 0
        self.calls = count(1)
        self._command = tuple(command)
        self._created = time.time()
        self._began = time.monotonic()
        self._spool = Spool()
        self._secrets = Redactor()
        self._known: frozenset[bytes] = frozenset()
        #: More secrets passed than can be remembered, so that nothing can be told from one.
        self._is_blind = False
        self._sessions: WeakSet[Session] = WeakSet()
        self._connections = count(1)
        self.is_stopped = False

    @property
    def mode(self) -> RecordingMode:
        """``full`` or ``lightweight``; may be changed at any time, for what comes then."""
        return self._mode

    @mode.setter
    def mode(self, mode: RecordingMode) -> None:
        if mode not in ("full", "lightweight"):
            raise UsageError(f"a recording is full or lightweight, not {mode!r}")
        self._mode = mode

    @property
    def recording(self) -> Recording:
        """What was recorded so far, without secrets; each iteration over it sees what there is then."""
        header = Header(created=self._created, mode=self.mode, frames=self.frames, command=self._command)
        return Recording(Hiding(self._forms()).texts_of(header), self._records)

    def watch(self, session: Session) -> None:
        """Record a session, from now on or when it is attached.

        Raises:
            UsageError: another recorder does.
        """
        if session.observe is not None:
            raise UsageError(f"session {session.id} is recorded already")
        self._sessions.add(session)
        session.observe = self._connected

    def stop(self) -> None:
        """Record no more; what there is, is kept."""
        self.is_stopped = True
        for session in tuple(self._sessions):
            self.learn_all(session)
            session.observe = None
        self._sessions.clear()
        self._spool.finish()

    async def keep_writing(self) -> None:
        """Keep the memory it takes bounded, until cancelled."""
        await self._spool.keep_writing()

    # -- what the connections tell -------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the seconds since it began."""
        return time.monotonic() - self._began

    def add(self, record: Record) -> bool:
        """Keep a record; False where it could not be, or not as a whole."""
        return not self.is_stopped and self._spool.add(record)

    def run_changed(self, run: int, state: Literal["began", "ended"]) -> None:
        """Take the beginning or the end of a run."""
        self.run = run if state == "began" else 0
        self.add(RunChanged(at=self.now(), run=run, state=state))

    def learn(self, value: str | bytes) -> None:
        """Hide a value in all that was recorded, and will be."""
        self._secrets.add(value)
        self._mind(self._secrets)

    def _connected(self, session: Session, attached: bool) -> _Connection:
        self.learn_all(session)
        connection = _Connection(self, session, next(self._connections), frames=self.frames and not attached)
        names = session.advertised or session.methods
        self.add(
            ConnectionBegan(
                at=self.now(),
                connection=connection.number,
                session_id=session.id,
                name=session.name,
                methods=tuple(sorted(names)),
            )
        )
        return connection

    def learn_all(self, session: Session) -> None:
        """Hide what the services of a session know to be secret; some find it out on the way."""
        self._known = self._known.union(*(redactor.forms for redactor in session.redactors))
        for redactor in session.redactors:
            self._mind(redactor)

    def _mind(self, redactor: Redactor) -> None:
        """Give up all bodies once a redactor may have forgotten a value that is to be hidden in them."""
        if len(redactor) >= limits.REDACTED_VALUES and not self._is_blind:
            _log.warning("the recording has no bodies: there are more secrets than can be told from them")
            self._is_blind = True

    def _forms(self) -> frozenset[bytes]:
        for session in tuple(self._sessions):
            self.learn_all(session)
        return self._known.union(self._secrets.forms)

    def _records(self) -> Iterator[Record]:
        last = 0.0
        for record in hidden_records(self._plain_records, self._forms()):
            last = record.at
            yield record
        yield End(at=last)

    def _plain_records(self) -> Iterator[Record]:
        for record in self._spool:
            if self._is_blind and isinstance(record, Message):
                yield replace(record, body=None)
            elif self._is_blind and isinstance(record, Frame):
                yield replace(record, payload=None)
            else:
                yield record


class _Connection:
    """Hears of one connection of a session."""

    def __init__(self, recorder: Recorder, session: Session, number: int, *, frames: bool) -> None:
        self.session = session
        self.number = number
        self.recorder = recorder
        self._frames = FrameLog(recorder, number) if frames else None

    def call_started(self, call: Call, metadata: Sequence[tuple[str, str | bytes]]) -> _Call | None:
        """Begin to record a call."""
        recorder = self.recorder
        if recorder.is_stopped:
            return None
        number = next(recorder.calls)
        recorder.add(
            CallBegan(
                at=recorder.now(),
                call=number,
                connection=self.number,
                stream=call.stream_id,
                method=call.method,
                metadata=_metadata(metadata),
                run=recorder.run,
            )
        )
        recorder.learn_all(self.session)
        return _Call(self, number, call.method)

    def bytes_received(self, data: bytes) -> None:
        """Keep the frames."""
        if self._frames is not None:
            self._frames.received(data)

    def bytes_sent(self, pieces: Sequence[Any]) -> None:
        """Keep the frames."""
        if self._frames is not None:
            self._frames.sent(b"".join(pieces))


class _Call:
    """Hears of one call."""

    def __init__(self, connection: _Connection, number: int, method: str) -> None:
        self._connection = connection
        self._recorder = connection.recorder
        self._number = number
        self._method = method.lower()
        self._counts = {DAEMON: [0, 0], CLIENT: [0, 0]}
        #: All messages are in the recording, except where they are secret.
        self._is_whole = True

    def initial_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """Keep what the answer begins with."""
        self._recorder.add(AnswerBegan(at=self._recorder.now(), call=self._number, metadata=_metadata(metadata)))

    def received(self, messages: Sequence[bytes]) -> None:
        """Keep messages of the daemon's."""
        for message in messages:
            self._say(DAEMON, message)

    def received_all(self) -> None:
        """Keep that the daemon has said all."""
        self._recorder.add(DaemonDone(at=self._recorder.now(), call=self._number))

    def sent(self, messages: Sequence[Any]) -> None:
        """Keep messages of ours."""
        for message in messages:
            if self._method in _SECRET_FIELDS:
                _learn_from(self._recorder, self._method, bytes(message))
            self._say(CLIENT, message)

    def ended(
        self, code: StatusCode, message: str, details: bytes, trailers: Sequence[tuple[str, str | bytes]]
    ) -> None:
        """Keep the end."""
        self._recorder.learn_all(self._connection.session)
        (messages_received, received), (messages_sent, sent) = self._counts[DAEMON], self._counts[CLIENT]
        self._recorder.add(
            CallOver(
                at=self._recorder.now(),
                call=self._number,
                code=code.name,
                message=message,
                details=bytes(details),
                trailers=_metadata(trailers),
                received=received,
                sent=sent,
                messages_received=messages_received,
                messages_sent=messages_sent,
                whole=self._is_whole,
            )
        )

    def _say(self, sender: str, message: Any) -> None:
        recorder, size = self._recorder, len(message)
        counts = self._counts[sender]
        counts[0] += 1
        counts[1] += size
        if recorder.mode != "full":
            self._is_whole = False
            return
        secret = is_secret(self._method, sender)
        record = Message(
            at=recorder.now(),
            call=self._number,
            sender=sender,
            size=size,
            body=None if secret else bytes(message),
            hidden=((0, size),) if secret and size else (),
        )
        self._is_whole = recorder.add(record) and self._is_whole


def _learn_from(recorder: Recorder, method: str, message: bytes) -> None:
    from google.protobuf.message import DecodeError

    from mobysession._pb import auth_pb2, secrets_pb2

    kinds = (secrets_pb2.GetSecretResponse, auth_pb2.CredentialsResponse, auth_pb2.FetchTokenResponse)
    kind: Any = dict(zip(_SECRET_FIELDS, kinds, strict=True))[method]
    try:
        recorder.learn(getattr(kind.FromString(message), _SECRET_FIELDS[method]))
    except DecodeError:
        # Of a service that somebody else wrote: then all of it is one.
        recorder.learn(message)


def _metadata(metadata: Sequence[tuple[str, str | bytes]]) -> Metadata:
    return tuple((key, value) for key, value in metadata)


@asynccontextmanager
async def record_session(
    session: Session, mode: RecordingMode = "full", *, frames: bool = False
) -> AsyncIterator[Recorder]:
    """Record a session for the length of the block; what was recorded is kept as ``recorder.recording``.

    Args:
        session: attached or not.
        mode, frames: as `Recorder`.

    Raises:
        UsageError: it is recorded already.
    """
    recorder = Recorder(mode, frames=frames)
    recorder.watch(session)
    async with _writing(recorder):
        yield recorder


@asynccontextmanager
async def record_sessions(
    mode: RecordingMode = "full", *, frames: bool = False, command: Iterable[str] = ()
) -> AsyncIterator[Recorder]:
    """Record every session that is made inside of the block, by a build or otherwise; see `record_session`."""
    recorder = Recorder(mode, frames=frames, command=command)
    token = new_session_listener.set(partial(_watch_new, recorder, new_session_listener.get(None)))
    try:
        async with _writing(recorder):
            yield recorder
    finally:
        new_session_listener.reset(token)


def _watch_new(recorder: Recorder, outer: Callable[[Session], None] | None, session: Session) -> None:
    # The innermost has it: a connection has one observer.
    if not recorder.is_stopped:
        recorder.watch(session)
    elif outer is not None:
        outer(session)


@asynccontextmanager
async def _writing(recorder: Recorder) -> AsyncIterator[None]:
    async with open_nursery() as nursery:
        nursery.start_soon(recorder.keep_writing)
        try:
            yield
        finally:
            recorder.stop()
            nursery.cancel_scope.cancel()
    await trio.lowlevel.cancel_shielded_checkpoint()

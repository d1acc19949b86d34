"""Every error that mobysession raises, by who must act.

::

    MobysessionError                    the root; has ``message``, ``hint`` and ``exit_status``
    +-- UsageError                      the caller: an argument or a combination of arguments is wrong
    |   +-- BakeError                   whoever wrote it: a bake file makes no sense; file and line
    +-- EndpointError                   the user: a host string, a variable or a docker context is wrong
    +-- ConfigError                     the user: a variable that a session's defaults are read from is wrong
    +-- TransportError                  the network, between us and the daemon
    |   +-- ConnectError                nothing could be dialled: no socket, no permission, refused, unknown host
    |   |   +-- TLSError                the two sides do not agree on TLS
    |   |   +-- ProxyRefused            an HTTP proxy on the way said no; ``status``
    |   +-- ConnectionLost              an open connection broke or was closed by the other side
    |   +-- HandshakeError              what answered does not speak HTTP/1.1 as a Docker daemon does
    |   |   +-- HandshakeTimeout        nothing was answered in time
    |   |   +-- UpgradeRefused          the daemon said no; ``status`` and its own words
    |   |       +-- SessionIdInUse      because this session ID is registered already
    +-- ProtocolError                   HTTP/2 or gRPC was violated
    |   +-- LocalProtocolError          by the calling code: a bug on this side
    |   +-- RemoteProtocolError         by the other side
    +-- RpcError                        a gRPC call ended with a status other than OK
    +-- ApiError                        the Engine API answered a request with an error
    |   +-- UnsupportedByEngine         this engine does not have what was asked for
    +-- SessionError                    a session could not be opened or kept
    |   +-- SessionNotReady             attached, but the daemon never spoke HTTP/2
    |   +-- SessionLost                 it was ready and then went away
    |   +-- SessionsError               a raw stream could not be had from the daemon, whatever the reason
    |   +-- SessionAlive                it cannot be resumed: the one of this ID still lives
    |   +-- SessionOver                 it was closed, or has failed, and cannot be used any more
    |   +-- RunInterrupted              a run was interrupted on request
    +-- ProviderError                   something that a build was to be given could not be given
    |   +-- SecretError                 a secret: unknown, unreadable, too large
    |   +-- SshError                    an SSH agent or a key: missing, unreadable, encrypted
    |   +-- CredentialError             registry credentials: the helper or the configuration failed
    |   +-- ContextError                a directory or a file of the build context
    +-- OutputError                     what a build sends cannot be written on this side
    |   +-- DiskFull                    the file system or the quota is full
    |   +-- OutputLimitExceeded         it is larger than a limit allows
    +-- StateError                      what this client remembers cannot be read or written
    |   +-- StateCorrupt                its database is damaged, or is none of ours
    |   +-- StateTooNew                 a newer mobysession made it
    +-- RecordingError                  a recording cannot be read or written
    |   +-- RecordingTooNew             a newer mobysession wrote it
    +-- BuildFailed                     the engine could not build; see its attributes
    +-- EngineError                     a private engine for a demo or a test could not be started

A message is one line that names the thing; the hint, where the fix is known, is a second one. Causes are chained, never
wrapped twice, and wire codes are attributes.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ApiError",
    "BakeError",
    "BuildFailed",
    "ConfigError",
    "ConnectError",
    "ConnectionLost",
    "ContextError",
    "CredentialError",
    "DiskFull",
    "EndpointError",
    "EngineError",
    "HandshakeError",
    "HandshakeTimeout",
    "LocalProtocolError",
    "MobysessionError",
    "OutputError",
    "OutputLimitExceeded",
    "ProtocolError",
    "ProviderError",
    "ProxyRefused",
    "RecordingError",
    "RecordingTooNew",
    "RemoteProtocolError",
    "RpcError",
    "RunInterrupted",
    "SecretError",
    "SessionAlive",
    "SessionError",
    "SessionIdInUse",
    "SessionLost",
    "SessionNotReady",
    "SessionOver",
    "SessionsError",
    "SshError",
    "StateCorrupt",
    "StateError",
    "StateTooNew",
    "StatusCode",
    "TLSError",
    "TransportError",
    "UnsupportedByEngine",
    "UpgradeRefused",
    "UsageError",
]


class StatusCode(enum.IntEnum):
    """gRPC's status codes (grpc/grpc doc/statuscodes.md)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class MobysessionError(Exception):
    """The root of all errors raised on purpose.

    Args:
        message: one line naming what failed; also ``str()`` of the error.
        hint: what the reader can do about it, one or two sentences; None where nothing is known to help.
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MobysessionError, ValueError):
    """An argument, or a combination of arguments, makes no sense. The caller must change it."""

    exit_status = 2


class BakeError(UsageError):
    """A bake file, or what several say together, makes no sense. Whoever wrote it must change it.

    Args:
        file: the file; empty where several are meant, or none.
        line: of the place in it, from 1; 0 where that is not known.
    """

    def __init__(self, message: str, *, hint: str | None = None, file: str = "", line: int = 0) -> None:
        place = f"{file}:{line}" if file and line else file
        super().__init__(f"{place}: {message}" if place else message, hint=hint)
        self.file = file
        self.line = line


class EndpointError(MobysessionError):
    """A host string, an environment variable or a docker context does not name a usable endpoint."""


class ConfigError(MobysessionError):
    """A variable that the defaults of sessions are read from has a value that makes no sense.

    Args:
        variable: its name.
    """

    def __init__(self, message: str, *, variable: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.variable = variable


class TransportError(MobysessionError):
    """Something between us and the daemon failed."""


class ConnectError(TransportError):
    """No connection could be made to the endpoint."""


class TLSError(ConnectError):
    """The endpoint was reached, but the two sides do not agree on TLS."""


class ProxyRefused(ConnectError):
    """An HTTP proxy on the way to the endpoint answered, and not with a connection.

    Args:
        status: the HTTP status of its answer; 0 where it did not answer in HTTP.
    """

    def __init__(self, message: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class ConnectionLost(TransportError):
    """An open connection broke, or the other side closed it while it was still needed."""


class HandshakeError(TransportError):
    """Something answered, but not as a Docker daemon answers HTTP/1.1."""


class HandshakeTimeout(HandshakeError):
    """The connection was accepted, and then nothing was answered in time."""


class UpgradeRefused(HandshakeError):
    """The daemon answered the upgrade with something other than ``101`` and ``h2c``.

    Args:
        status: the HTTP status, e.g. 400.
        reason: what the daemon said in the body, or the reason phrase where the body was empty.
    """

    def __init__(self, message: str, *, status: int, reason: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reason = reason


class SessionIdInUse(UpgradeRefused):
    """The daemon already has a session of this ID. It lets go of a dead one within about 10 seconds."""


class ProtocolError(MobysessionError):
    """HTTP/2 or gRPC was violated.

    Args:
        error_code: the HTTP/2 error code to send (RFC 9113 section 7); 1 is PROTOCOL_ERROR.
    """

    def __init__(self, message: str, *, error_code: int = 1, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.error_code = error_code


class LocalProtocolError(ProtocolError):
    """The calling code asked for something the protocol forbids: a bug on this side."""

    exit_status = 70


class RemoteProtocolError(ProtocolError):
    """The other side violated the protocol."""


class RpcError(MobysessionError):
    """A gRPC call ended with a status other than OK; raised by a handler, it is the answer.

    Args:
        code: the status.
        message: the status message; may be empty.
        details: the ``google.rpc.Status`` of ``grpc-status-details-bin``, serialized; empty when there was none.
        method: the method that was called, where known.
        trailers: the trailing metadata.
    """

    def __init__(
        self,
        code: StatusCode,
        message: str = "",
        *,
        details: bytes = b"",
        method: str | None = None,
        trailers: Sequence[tuple[str, str | bytes]] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.details = details
        self.method = method
        self.trailers = tuple(trailers)

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}" if self.message else self.code.name


class ApiError(MobysessionError):
    """The Engine API answered a request with an error status.

    Args:
        status: the HTTP status.
    """

    def __init__(self, message: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class UnsupportedByEngine(ApiError):
    """This engine does not have what was asked for; the message names the version that has it."""

    def __init__(self, message: str, *, status: int = 501, hint: str | None = None) -> None:
        super().__init__(message, status=status, hint=hint)


class SessionError(MobysessionError):
    """A session could not be opened, used or kept."""


class SessionNotReady(SessionError):
    """The daemon accepted the session and then did not speak HTTP/2 in time."""


class SessionLost(SessionError):
    """A session that had been ready went away while it was still needed; the cause is chained.

    Attributes:
        in_flight: methods of the calls that were running, health checks left out.
        first: which connection was seen to end first, ``session`` or ``control``, the one on which the build was asked
            for; None where there was no such build.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, in_flight: Sequence[str] = (), first: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.in_flight = tuple(in_flight)
        self.first = first


class SessionsError(SessionError):
    """The raw stream of a session could not be had; why is the cause, whose message, hint and exit status it has."""


class SessionAlive(SessionError):
    """A session cannot be resumed, because the one of this ID still lives.

    Args:
        session_id: the session's.
        pid: of the process in which it lives.
    """

    def __init__(self, message: str, *, session_id: str, pid: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.session_id = session_id
        self.pid = pid


class SessionOver(SessionError):
    """The session was closed, or has failed, and cannot be used any more; the failure is the cause."""


class RunInterrupted(SessionError):
    """A run was interrupted on request.

    Args:
        reason: as it was given; None where none was.
    """

    def __init__(self, message: str, *, reason: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class ProviderError(MobysessionError):
    """Something that the build was to be given could not be given."""


class SecretError(ProviderError):
    """A secret is unknown, unreadable or too large. The message names its ID and never its value."""


class SshError(ProviderError):
    """An SSH agent or a private key cannot be used. The message names the agent's ID or the file."""


class CredentialError(ProviderError):
    """Registry credentials could not be looked up: a helper or the configuration file failed."""


class ContextError(ProviderError):
    """A context directory, or a file in it, cannot be used."""


class OutputError(MobysessionError):
    """What a build sends cannot be written on this side. The user must act.

    Args:
        path: what could not be written; None where it is no file.
    """

    def __init__(self, message: str, *, path: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class DiskFull(OutputError):
    """The file system, or the user's quota on it, has no room for an output."""


class OutputLimitExceeded(OutputError):
    """An output is larger than a limit allows.

    Args:
        limit: the name of the limit, as it is set.
        value: what it is set to.
    """

    def __init__(
        self, message: str, *, limit: str, value: int, path: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, path=path, hint=hint)
        self.limit = limit
        self.value = value


class StateError(MobysessionError):
    """What this client remembers between processes cannot be read or written. The user must act."""


class StateCorrupt(StateError):
    """The database is damaged, or is none of ours; it is left as it is."""


class StateTooNew(StateError):
    """A newer version of mobysession made the database; it is left as it is."""


class RecordingError(MobysessionError):
    """A file is no recording, or is damaged, or cannot be read or written. The user must act."""


class RecordingTooNew(RecordingError):
    """A newer version of mobysession wrote the recording."""


class BuildFailed(MobysessionError):
    """The engine could not build.

    Attributes:
        step: name of the step that failed, as shown by the progress; None when no step did.
        exit_code: exit code of its process; None when it was not a process that failed.
        log: the last lines the step wrote, oldest first.
        dockerfile: path of the Dockerfile as the engine names it; None when the engine named no place.
        lines: first and last line of that place, 1-based, inclusive; None as above.
        excerpt: those lines with their surroundings and marks, ready to print; empty as above.
        code: the gRPC status of the solve; UNKNOWN for an ordinary failure.
        stage: name or number of the stage that the step is of; None when no step failed, it is of none, or that is not
            known.
        details: the ``google.rpc.Status`` with BuildKit's typed errors, serialized; empty when there was none. What is
            in it says `mobysession.buildkit.solve_errors.decode_details`.
    """

    def __init__(
        self,
        message: str,
        *,
        step: str | None = None,
        exit_code: int | None = None,
        log: Sequence[str] = (),
        dockerfile: str | None = None,
        lines: tuple[int, int] | None = None,
        excerpt: str = "",
        code: StatusCode = StatusCode.UNKNOWN,
        stage: str | None = None,
        details: bytes = b"",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.step = step
        self.exit_code = exit_code
        self.log = tuple(log)
        self.dockerfile = dockerfile
        self.lines = lines
        self.excerpt = excerpt
        self.code = code
        self.stage = stage
        self.details = details


class EngineError(MobysessionError):
    """A private engine could not be started, prepared or stopped."""

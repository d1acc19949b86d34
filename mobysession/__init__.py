"""A Docker-daemon session client: BuildKit builds from Python, without the docker CLI.

::

    import trio
    from mobysession.build import build

    async def main():
        result = await build(".", tags=["demo"], secrets={"token": fetch_token})
        print(result.image_id)

    trio.run(main)

Blocking code uses `mobysession.sync`, asyncio code `mobysession.aio`. Names load on first use, so that importing the
package costs next to nothing.
"""

from __future__ import annotations

from mobysession._version import __version__

# Not from typing, which alone takes as long to import as the interpreter takes to start; type checkers know the name.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from types import ModuleType

    from mobysession import aio, bake, build, sync
    from mobysession.build import BuildOptions, BuildResult, Ulimit
    from mobysession.buildkit.control import Control, open_control
    from mobysession.errors import (
        ApiError,
        BakeError,
        BuildFailed,
        ConfigError,
        ConnectError,
        ConnectionLost,
        ContextError,
        CredentialError,
        DiskFull,
        EndpointError,
        EngineError,
        HandshakeError,
        HandshakeTimeout,
        LocalProtocolError,
        MobysessionError,
        OutputError,
        OutputLimitExceeded,
        ProtocolError,
        ProviderError,
        ProxyRefused,
        RecordingError,
        RecordingTooNew,
        RemoteProtocolError,
        RpcError,
        RunInterrupted,
        SecretError,
        SessionAlive,
        SessionError,
        SessionIdInUse,
        SessionLost,
        SessionNotReady,
        SessionOver,
        SessionsError,
        SshError,
        StateCorrupt,
        StateError,
        StateTooNew,
        StatusCode,
        TLSError,
        TransportError,
        UnsupportedByEngine,
        UpgradeRefused,
        UsageError,
    )
    from mobysession.events import AccessDecided, CallEnded, CallStarted, SessionEnded, SessionEvent, SessionReady
    from mobysession.recording import Recording, read_recording
    from mobysession.rpc.grpcio import GrpcioServicer
    from mobysession.rpc.inspection import CallInspection, FrameSeen, Inspection
    from mobysession.rpc.keepalive import Keepalive
    from mobysession.rpc.listener import Listening, serve_listener
    from mobysession.rpc.registrar import Attachable, Cardinality, Codec, Registrar
    from mobysession.services.auth import Auth
    from mobysession.services.content import Content
    from mobysession.services.credentials import Credentials, DockerCredentials
    from mobysession.services.exporter import BuiltResult, Exporter, FoundExporter
    from mobysession.services.filesend import DirectoryTarget, FileSend, FileTarget, ReceivedOutput
    from mobysession.services.filesync import FileSync
    from mobysession.services.oci_layout import OciLayout
    from mobysession.services.policy import Allow, Ask, Convert, Deny, Policy
    from mobysession.services.reflection import Reflection
    from mobysession.services.secrets import (
        SecretCache,
        SecretCommand,
        SecretEnv,
        SecretFile,
        SecretKeyring,
        SecretRequest,
        Secrets,
    )
    from mobysession.services.ssh import Ssh
    from mobysession.services.ssh_agents import SshAgent, SshKeys, SshStream
    from mobysession.services.upload import Upload
    from mobysession.session import Attachment, Dialer, Session, open_session
    from mobysession.session.access import Access, AccessRequest
    from mobysession.session.announced import announced
    from mobysession.session.managed import (
        ApprovalAsked,
        ApprovalSettled,
        Channel,
        Counters,
        EventsMissed,
        ManagedEvent,
        ManagedSession,
        MethodInfo,
        Operation,
        QueueChanged,
        RunHandle,
        SchedulerState,
        SessionClosed,
        SessionConfig,
        SessionCreated,
        SessionFailed,
        SessionIdResolved,
        SessionInfo,
        SessionInspection,
        SessionManager,
        SessionSnapshot,
        current_session,
    )
    from mobysession.session.recorder.recorder import Recorder, record_session, record_sessions
    from mobysession.session.sessions import Sessions
    from mobysession.session.terminal import TerminalApproval
    from mobysession.session.tracing import Tracing
    from mobysession.state.client import ClientState, User
    from mobysession.state.inbox import InboxMessage, InboxStorage
    from mobysession.state.references import DaemonReference
    from mobysession.state.state import REMOVED, Signal, State, StateChange
    from mobysession.state.store import Store, open_store
    from mobysession.transport.api import EngineApi
    from mobysession.transport.endpoint import Endpoint
    from mobysession.transport.tls import TLSConfig

#: Where each public name lives.
_HOMES = {
    "mobysession.build": ("BuildOptions", "BuildResult", "Ulimit"),
    "mobysession.buildkit.control": ("Control", "open_control"),
    "mobysession.errors": (
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
    ),
    "mobysession.events": ("AccessDecided", "CallEnded", "CallStarted", "SessionEnded", "SessionEvent", "SessionReady"),
    "mobysession.recording": ("Recording", "read_recording"),
    "mobysession.rpc.grpcio": ("GrpcioServicer",),
    "mobysession.rpc.inspection": ("CallInspection", "FrameSeen", "Inspection"),
    "mobysession.rpc.keepalive": ("Keepalive",),
    "mobysession.rpc.listener": ("Listening", "serve_listener"),
    "mobysession.rpc.registrar": ("Attachable", "Cardinality", "Codec", "Registrar"),
    "mobysession.services.auth": ("Auth",),
    "mobysession.services.content": ("Content",),
    "mobysession.services.credentials": ("Credentials", "DockerCredentials"),
    "mobysession.services.exporter": ("BuiltResult", "Exporter", "FoundExporter"),
    "mobysession.services.filesend": ("DirectoryTarget", "FileSend", "FileTarget", "ReceivedOutput"),
    "mobysession.services.filesync": ("FileSync",),
    "mobysession.services.oci_layout": ("OciLayout",),
    "mobysession.services.policy": ("Allow", "Ask", "Convert", "Deny", "Policy"),
    "mobysession.services.reflection": ("Reflection",),
    "mobysession.services.secrets": (
        "SecretCache",
        "SecretCommand",
        "SecretEnv",
        "SecretFile",
        "SecretKeyring",
        "SecretRequest",
        "Secrets",
    ),
    "mobysession.services.ssh": ("Ssh",),
    "mobysession.services.ssh_agents": ("SshAgent", "SshKeys", "SshStream"),
    "mobysession.services.upload": ("Upload",),
    "mobysession.session": ("Attachment", "Dialer", "Session", "open_session"),
    "mobysession.session.access": ("Access", "AccessRequest"),
    "mobysession.session.announced": ("announced",),
    "mobysession.session.managed": (
        "ApprovalAsked",
        "ApprovalSettled",
        "Channel",
        "Counters",
        "EventsMissed",
        "ManagedEvent",
        "ManagedSession",
        "MethodInfo",
        "Operation",
        "QueueChanged",
        "RunHandle",
        "SchedulerState",
        "SessionClosed",
        "SessionConfig",
        "SessionCreated",
        "SessionFailed",
        "SessionIdResolved",
        "SessionInfo",
        "SessionInspection",
        "SessionManager",
        "SessionSnapshot",
        "current_session",
    ),
    "mobysession.session.recorder.recorder": ("Recorder", "record_session", "record_sessions"),
    "mobysession.session.sessions": ("Sessions",),
    "mobysession.session.terminal": ("TerminalApproval",),
    "mobysession.session.tracing": ("Tracing",),
    "mobysession.state.client": ("ClientState", "User"),
    "mobysession.state.inbox": ("InboxMessage", "InboxStorage"),
    "mobysession.state.references": ("DaemonReference",),
    "mobysession.state.state": ("REMOVED", "Signal", "State", "StateChange"),
    "mobysession.state.store": ("Store", "open_store"),
    "mobysession.transport.api": ("EngineApi",),
    "mobysession.transport.endpoint": ("Endpoint",),
    "mobysession.transport.tls": ("TLSConfig",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
#: Rooms that are reached as attributes without an import of their own.
_ROOMS = ("aio", "bake", "build", "sync")

__all__ = [
    "Access",
    "AccessDecided",
    "AccessRequest",
    "Allow",
    "ApiError",
    "ApprovalAsked",
    "ApprovalSettled",
    "Ask",
    "BakeError",
    "Attachable",
    "Attachment",
    "Auth",
    "BuildFailed",
    "BuildOptions",
    "BuildResult",
    "BuiltResult",
    "CallEnded",
    "CallInspection",
    "CallStarted",
    "Cardinality",
    "Channel",
    "ClientState",
    "Codec",
    "ConfigError",
    "ConnectError",
    "ConnectionLost",
    "Content",
    "ContextError",
    "Control",
    "Convert",
    "Counters",
    "CredentialError",
    "Credentials",
    "DaemonReference",
    "Deny",
    "Dialer",
    "DirectoryTarget",
    "DiskFull",
    "DockerCredentials",
    "Endpoint",
    "EndpointError",
    "EngineApi",
    "EngineError",
    "EventsMissed",
    "Exporter",
    "FileSend",
    "FileSync",
    "FileTarget",
    "FoundExporter",
    "FrameSeen",
    "GrpcioServicer",
    "HandshakeError",
    "HandshakeTimeout",
    "InboxMessage",
    "InboxStorage",
    "Inspection",
    "Keepalive",
    "Listening",
    "LocalProtocolError",
    "ManagedEvent",
    "ManagedSession",
    "MethodInfo",
    "MobysessionError",
    "OciLayout",
    "Operation",
    "OutputError",
    "OutputLimitExceeded",
    "Policy",
    "ProtocolError",
    "ProviderError",
    "ProxyRefused",
    "QueueChanged",
    "REMOVED",
    "ReceivedOutput",
    "Recorder",
    "Recording",
    "RecordingError",
    "RecordingTooNew",
    "Reflection",
    "Registrar",
    "RemoteProtocolError",
    "RpcError",
    "RunHandle",
    "RunInterrupted",
    "SchedulerState",
    "SecretCache",
    "SecretCommand",
    "SecretEnv",
    "SecretError",
    "SecretFile",
    "SecretKeyring",
    "SecretRequest",
    "Secrets",
    "Session",
    "SessionAlive",
    "SessionClosed",
    "SessionConfig",
    "SessionCreated",
    "SessionEnded",
    "SessionError",
    "SessionEvent",
    "SessionFailed",
    "SessionIdInUse",
    "SessionIdResolved",
    "SessionInfo",
    "SessionInspection",
    "SessionLost",
    "SessionManager",
    "SessionNotReady",
    "SessionOver",
    "SessionReady",
    "SessionSnapshot",
    "Sessions",
    "SessionsError",
    "Signal",
    "Ssh",
    "SshAgent",
    "SshError",
    "SshKeys",
    "SshStream",
    "State",
    "StateChange",
    "StateCorrupt",
    "StateError",
    "StateTooNew",
    "StatusCode",
    "Store",
    "TLSConfig",
    "TLSError",
    "TerminalApproval",
    "Tracing",
    "TransportError",
    "Ulimit",
    "UnsupportedByEngine",
    "UpgradeRefused",
    "Upload",
    "UsageError",
    "User",
    "__version__",
    "aio",
    "announced",
    "bake",
    "build",
    "current_session",
    "open_control",
    "open_session",
    "open_store",
    "read_recording",
    "record_session",
    "record_sessions",
    "serve_listener",
    "sync",
]


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    if name in _ROOMS:
        return _module(f"mobysession.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(_module(home), name)
    globals()[name] = value
    return value


def _module(name: str) -> ModuleType:
    from importlib import import_module  # with what it loads, a third of this package; `--version` gets by without

    return import_module(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

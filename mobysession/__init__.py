"""A Docker-daemon session client: BuildKit builds from Python, without the docker CLI.

::

    import trio
    from mobysession.build import build

    async def main():
        result = await build(".", tags=["demo"], secrets={"token": fetch_token})
        print(result.image_id)

    trio.run(main)

Blocking code uses `mobysession.sync`, asyncio code `mobysession.aio`. Names load on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib

from mobysession._version import __version__

# Not from typing, which alone takes as long to import as the interpreter takes to start; type checkers know the name.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from mobysession import aio, build, sync
    from mobysession.build import BuildOptions, BuildResult, Ulimit
    from mobysession.buildkit.control import Control, open_control
    from mobysession.errors import (
        ApiError,
        BuildFailed,
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
        RemoteProtocolError,
        RpcError,
        SecretError,
        SessionError,
        SessionIdInUse,
        SessionLost,
        SessionNotReady,
        SshError,
        StatusCode,
        TLSError,
        TransportError,
        UnsupportedByEngine,
        UpgradeRefused,
        UsageError,
    )
    from mobysession.events import AccessDecided, CallEnded, CallStarted, SessionEnded, SessionEvent, SessionReady
    from mobysession.rpc.grpcio import GrpcioServicer
    from mobysession.rpc.inspection import CallInspection, FrameSeen, Inspection
    from mobysession.rpc.keepalive import Keepalive
    from mobysession.rpc.listener import Listening, serve_listener
    from mobysession.rpc.registrar import Attachable, Cardinality, Codec, Registrar
    from mobysession.services.auth import Auth
    from mobysession.services.filesync import FileSync
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
    from mobysession.session import Attachment, Dialer, Session, open_session
    from mobysession.session.access import Access, AccessRequest
    from mobysession.session.terminal import TerminalApproval
    from mobysession.transport.api import EngineApi
    from mobysession.transport.endpoint import Endpoint
    from mobysession.transport.tls import TLSConfig

#: Where each public name lives.
_HOMES = {
    "mobysession.build": ("BuildOptions", "BuildResult", "Ulimit"),
    "mobysession.buildkit.control": ("Control", "open_control"),
    "mobysession.errors": (
        "ApiError",
        "BuildFailed",
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
        "RemoteProtocolError",
        "RpcError",
        "SecretError",
        "SessionError",
        "SessionIdInUse",
        "SessionLost",
        "SessionNotReady",
        "SshError",
        "StatusCode",
        "TLSError",
        "TransportError",
        "UnsupportedByEngine",
        "UpgradeRefused",
        "UsageError",
    ),
    "mobysession.events": ("AccessDecided", "CallEnded", "CallStarted", "SessionEnded", "SessionEvent", "SessionReady"),
    "mobysession.rpc.grpcio": ("GrpcioServicer",),
    "mobysession.rpc.inspection": ("CallInspection", "FrameSeen", "Inspection"),
    "mobysession.rpc.keepalive": ("Keepalive",),
    "mobysession.rpc.listener": ("Listening", "serve_listener"),
    "mobysession.rpc.registrar": ("Attachable", "Cardinality", "Codec", "Registrar"),
    "mobysession.services.auth": ("Auth",),
    "mobysession.services.filesync": ("FileSync",),
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
    "mobysession.session": ("Attachment", "Dialer", "Session", "open_session"),
    "mobysession.session.access": ("Access", "AccessRequest"),
    "mobysession.session.terminal": ("TerminalApproval",),
    "mobysession.transport.api": ("EngineApi",),
    "mobysession.transport.endpoint": ("Endpoint",),
    "mobysession.transport.tls": ("TLSConfig",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
#: Rooms that are reached as attributes without an import of their own.
_ROOMS = ("aio", "build", "sync")

__all__ = [
    "Access",
    "AccessDecided",
    "AccessRequest",
    "ApiError",
    "Attachable",
    "Attachment",
    "Auth",
    "BuildFailed",
    "BuildOptions",
    "BuildResult",
    "CallEnded",
    "CallInspection",
    "CallStarted",
    "Cardinality",
    "Codec",
    "ConnectError",
    "ConnectionLost",
    "ContextError",
    "Control",
    "CredentialError",
    "Dialer",
    "DiskFull",
    "Endpoint",
    "EndpointError",
    "EngineApi",
    "EngineError",
    "FileSync",
    "FrameSeen",
    "GrpcioServicer",
    "HandshakeError",
    "HandshakeTimeout",
    "Inspection",
    "Keepalive",
    "Listening",
    "LocalProtocolError",
    "MobysessionError",
    "OutputError",
    "OutputLimitExceeded",
    "ProtocolError",
    "ProviderError",
    "Reflection",
    "Registrar",
    "RemoteProtocolError",
    "RpcError",
    "SecretCache",
    "SecretCommand",
    "SecretEnv",
    "SecretError",
    "SecretFile",
    "SecretKeyring",
    "SecretRequest",
    "Secrets",
    "Session",
    "SessionEnded",
    "SessionError",
    "SessionEvent",
    "SessionIdInUse",
    "SessionLost",
    "SessionNotReady",
    "SessionReady",
    "Ssh",
    "SshAgent",
    "SshError",
    "SshKeys",
    "SshStream",
    "StatusCode",
    "TLSConfig",
    "TLSError",
    "TerminalApproval",
    "TransportError",
    "Ulimit",
    "UnsupportedByEngine",
    "UpgradeRefused",
    "UsageError",
    "__version__",
    "aio",
    "build",
    "open_control",
    "open_session",
    "serve_listener",
    "sync",
]


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    if name in _ROOMS:
        return importlib.import_module(f"mobysession.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

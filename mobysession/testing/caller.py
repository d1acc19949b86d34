"""The daemon's handle on one session: what the client exposed, and the calls that a build makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_plus

import trio

from mobysession._pb import auth_pb2, health_pb2, secrets_pb2
from mobysession.errors import MobysessionError, RpcError, StatusCode
from mobysession.filesync import packets
from mobysession.testing.tree_receiver import TreeReceiver

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from google.protobuf.message import Message

    from mobysession.testing.peer import Peer, Response
    from mobysession.testing.tree_receiver import ReceivedEntry, ReceivedTree

__all__ = ["CallRecord", "FakeCaller"]

_DIFF_COPY: Final = "/moby.filesync.v1.FileSync/DiffCopy"
_GET_SECRET: Final = "/moby.buildkit.secrets.v1.Secrets/GetSecret"  # a method's name
_CREDENTIALS: Final = "/moby.filesync.v1.Auth/Credentials"
_TOKEN_AUTHORITY: Final = "/moby.filesync.v1.Auth/GetTokenAuthority"  # a method's name
_CHECK: Final = "/grpc.health.v1.Health/Check"


@dataclass(frozen=True)
class CallRecord:
    """One call that the daemon made: method, and how it ended. What was said is not kept: it may be a secret."""

    method: str
    code: StatusCode
    message: str = ""


class FakeCaller:
    """One attached session, as the daemon sees it. Made by `FakeDaemon`.

    Attributes:
        id, name, shared_key: as the client gave them.
        methods: what it exposes, in lower case, as engines keep it.
        channel: the HTTP/2 connection, for calls of other services: ``await caller.channel.unary(...)``.
        calls: what was called so far and has ended, in that order; health checks are only counted.
        last_activity: trio's time of the latest end of a call.
        health_checks: how many checks the session passed.
        closed: set when the session is over; ``reason`` says why.
        tunnelled: it came by Control.Session, not by ``POST /session``.
    """

    def __init__(
        self,
        channel: Peer,
        *,
        session_id: str,
        name: str = "",
        shared_key: str = "",
        methods: Iterable[str] = (),
        tunnelled: bool = False,
    ) -> None:
        self.id = session_id
        self.name = name
        self.shared_key = shared_key
        self.methods = tuple(method.lower() for method in methods)
        self.channel = channel
        self.tunnelled = tunnelled
        self.calls: list[CallRecord] = []
        self.last_activity = trio.current_time()
        self.health_checks = 0
        self.closed = trio.Event()
        self.reason = ""

    def __repr__(self) -> str:
        return f"<FakeCaller {self.id}>"

    def supports(self, method: str) -> bool:
        """Tell whether the client exposed ``method`` ("/package.Service/Method", in any case)."""
        return method.lower() in self.methods

    async def get_secret(self, secret_id: str) -> bytes:
        """Return a secret; RpcError NOT_FOUND when the client has none of this ID."""
        request = secrets_pb2.GetSecretRequest(ID=secret_id)
        return (await self.unary(_GET_SECRET, request, secrets_pb2.GetSecretResponse)).data

    async def credentials(self, host: str) -> tuple[str, str]:
        """Return user and secret for a registry; both empty: anonymous."""
        answer = await self.unary(_CREDENTIALS, auth_pb2.CredentialsRequest(Host=host), auth_pb2.CredentialsResponse)
        return answer.Username, answer.Secret

    async def token_authority(self, host: str, salt: bytes) -> bytes | None:
        """Return the key by which the client signs for a registry itself; None when it leaves that to the daemon."""
        name = host.encode()
        # Field 1: host, field 2: salt; the answer's field 1: the key. Each is shorter than 128 bytes.
        request = b"\x0a" + bytes((len(name),)) + name + b"\x12" + bytes((len(salt),)) + salt
        try:
            async with self.channel.open_call(_TOKEN_AUTHORITY) as call:
                await call.send(request)
                await call.end()
                answer = await call.receive() or b""
                await call.receive()
        except RpcError as error:
            self._record(_TOKEN_AUTHORITY, error.code, error.message)
            if error.code in (StatusCode.UNIMPLEMENTED, StatusCode.UNAVAILABLE):
                return None
            raise
        self._record(_TOKEN_AUTHORITY, StatusCode.OK)
        return answer[2:]

    async def health(self, *, timeout: float | None = 30.0) -> None:
        """Ask for the session's health once, beside the schedule; RpcError when the check fails. Not recorded."""
        await self.channel.unary(
            _CHECK, health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse, timeout=timeout
        )

    async def unary(
        self, method: str, request: Message, response: type[Response], *, timeout: float | None = None
    ) -> Response:
        """Call any unary method and keep a record of it."""
        try:
            answer = await self.channel.unary(method, request, response, timeout=timeout)
        except RpcError as error:
            self._record(method, error.code, error.message)
            raise
        self._record(method, StatusCode.OK)
        return answer

    async def diffcopy(
        self,
        dir_name: str,
        destination: str | os.PathLike[str],
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        follow_paths: Sequence[str] = (),
        wanted: Callable[[ReceivedEntry], bool] | None = None,
    ) -> ReceivedTree:
        """Receive a directory of the client's into ``destination``, which is made where it is missing.

        Args:
            dir_name: the name under which the client offers it.
            destination: directory of this machine.
            include, exclude, follow_paths: filters, which the client applies.
            wanted: tells whether an entry's content is asked for; None: always. Must not wait.

        Raises:
            RpcError: the client refused or failed; FAILED_PRECONDITION when it exposes no directories at all.
            RemoteProtocolError: it broke the rules of the transfer.

        Cancel: the call is reset; what was written stays.
        """
        if not self.supports(_DIFF_COPY):
            raise RpcError(StatusCode.UNKNOWN, "no local sources enabled")
        root = Path(destination)
        await trio.to_thread.run_sync(lambda: root.mkdir(parents=True, exist_ok=True))
        metadata = [
            ("dir-name", dir_name),
            *_encoded("include-patterns", include),
            *_encoded("exclude-patterns", exclude),
            *_encoded("followpaths", follow_paths),
        ]
        try:
            tree = await self._receive(TreeReceiver(root, wanted), metadata)
        except RpcError as error:
            self._record(_DIFF_COPY, error.code, error.message)
            raise
        self._record(_DIFF_COPY, StatusCode.OK)
        return tree

    async def _receive(self, receiver: TreeReceiver, metadata: Sequence[tuple[str, str]]) -> ReceivedTree:
        try:
            async with self.channel.open_call(_DIFF_COPY, metadata=metadata) as call:
                # Until the status: a bad one fails the transfer even behind both FINs.
                while messages := await call.receive_batch():
                    try:
                        answers = await trio.to_thread.run_sync(receiver.take, messages)
                    except (MobysessionError, OSError) as error:
                        await call.send(packets.error_packet(str(error)))
                        raise
                    if answers:
                        await call.send_batch(answers)
        finally:
            receiver.close()
        if not receiver.finished:
            raise RpcError(StatusCode.UNKNOWN, "unexpected EOF", method=_DIFF_COPY)
        return receiver.tree

    def _record(self, method: str, code: StatusCode, message: str = "") -> None:
        self.calls.append(CallRecord(method, code, message))
        self.last_activity = trio.current_time()


def _encoded(key: str, values: Sequence[str]) -> list[tuple[str, str]]:
    """Return the metadata of one key as BuildKit from 0.12 on sends it: all values escaped where one has to be."""
    if all(value.isascii() for value in values):
        return [(key, value) for value in values]
    return [*((key, quote_plus(value, safe="")) for value in values), (f"{key}-encoded", "1")]

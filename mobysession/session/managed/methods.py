"""The methods of a session, seen from this side: described, found by name or alias, and called.

A call from this side goes the way of every call: through gRPC, over a socket pair, to the same handlers. It is not
judged: rules and approvals are for the daemon. What a method is for says its service with an attribute ``audience``:
``daemon``, which is what it is without, ``client`` (the daemon is not told of it), or ``both``.
"""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import trio

from mobysession.concurrency import open_nursery
from mobysession.errors import RpcError, UsageError
from mobysession.rpc.client import open_channel
from mobysession.rpc.registrar import Cardinality, Registrar
from mobysession.rpc.server import open_server
from mobysession.session.managed.messages import json_schema, make_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from google.protobuf.message import Message

    from mobysession.rpc.client import Channel, ClientCall
    from mobysession.rpc.registrar import Attachable, Method

__all__ = ["Audience", "Methods", "MethodInfo", "audience_of"]

Audience = Literal["daemon", "client", "both"]

_ONE_REQUEST = (Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM)


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """One hosted method.

    Attributes:
        name: ``/package.Service/Method``.
        alias: the shortest of ``Method``, ``Service.Method`` and ``package.Service.Method`` that is no other's too.
        cardinality: how many messages each side sends.
        audience: who is to call it.
        schema: JSON schema of its request; None where its handler takes raw messages of no known type.
    """

    name: str
    alias: str
    cardinality: Cardinality
    audience: Audience
    schema: dict[str, Any] | None = field(default=None, repr=False, compare=False)


def audience_of(service: object) -> Audience:
    """Return for whom a service is; UsageError where it says something else."""
    audience: Audience = getattr(service, "audience", "daemon")
    if audience not in ("daemon", "client", "both"):
        raise UsageError(f"{type(service).__name__} is for {audience!r}, which is neither daemon, client nor both")
    return audience


class Prepared(NamedTuple):
    """A call that can be made."""

    method: Method
    messages: list[bytes]


class Methods:
    """The methods of some services; of those with the same method, the services of a later layer count."""

    def __init__(self, session_id: str, *layers: Sequence[Attachable]) -> None:
        self._audiences: dict[str, Audience] = {}
        methods: dict[str, Method] = {}
        for layer in layers:
            registrar = Registrar(session_id)
            for service in layer:
                known = len(registrar.methods)
                service.register(registrar)
                self._audiences.update(dict.fromkeys(registrar.methods[known:], audience_of(service)))
            methods.update((method.name, method) for method in registrar)
        self._registrar = Registrar(session_id)
        for method in methods.values():
            self._registrar.add(method)

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return self._registrar.methods

    def describe(self) -> tuple[MethodInfo, ...]:
        """Return all of them, in the order in which they are hosted."""
        aliases = self._aliases()
        return tuple(
            MethodInfo(
                name=method.name,
                alias=aliases[method.name],
                cardinality=method.cardinality,
                audience=self._audiences[method.name],
                schema=None if method.request is None else json_schema(method.request),
            )
            for method in self._registrar
        )

    def _aliases(self) -> dict[str, str]:
        choices = {name: _choices(name) for name in self._registrar.methods}
        uses = Counter(choice for several in choices.values() for choice in several)
        return {name: next((c for c in several if uses[c] == 1), name) for name, several in choices.items()}

    def _find(self, name: str) -> Method:
        method = self._registrar.find(name)
        if method is None:
            wanted = [full for full, alias in self._aliases().items() if alias == name or name in _choices(full)]
            method = self._registrar.find(wanted[0]) if len(wanted) == 1 else None
        if method is None:
            known = ", ".join(sorted(self._aliases().values())) or "none"
            raise UsageError(f"no method {name!r} is hosted here", hint=f"There are {known}.")
        return method

    def prepare(self, name: str, request: object) -> Prepared:
        """Return a call of a method that can be made; UsageError where there is no such method or it does not fit."""
        method = self._find(name)
        return Prepared(method, _requests(method, request))

    async def call(self, prepared: Prepared) -> Any:
        """Make a call and return its answer; see `ManagedSession.dispatch`."""
        method = prepared.method
        answers: list[bytes] = []
        async with self._open_channel() as channel, channel.open_call(method.name) as call, open_nursery() as both:
            both.start_soon(_send, call, prepared.messages)
            try:
                while batch := await call.receive_batch():
                    answers += batch
            finally:
                both.cancel_scope.cancel()
        decoded = [_decoded(method, answer) for answer in answers]
        return decoded[0] if method.cardinality.one_answer and decoded else decoded

    @asynccontextmanager
    async def _open_channel(self) -> AsyncIterator[Channel]:
        ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
        async with open_server(theirs, self._registrar), open_channel(ours) as channel:
            yield channel


async def _send(call: ClientCall, messages: list[bytes]) -> None:
    # A call that was answered meanwhile has failed in nothing: its answer says what became of it.
    with suppress(RpcError):
        await call.send_batch(messages)
        await call.end()


def _choices(name: str) -> tuple[str, str, str]:
    _, service, method = name.split("/")
    return method, f"{service.rpartition('.')[2]}.{method}", f"{service}.{method}"


def _requests(method: Method, request: object) -> list[bytes]:
    if method.cardinality in _ONE_REQUEST:
        return [_serialized(method, request)]
    if isinstance(request, (str, bytes, dict)) or not hasattr(request, "__iter__"):
        raise UsageError(f"{method.name} takes a list of requests")
    return [_serialized(method, one) for one in request]


def _serialized(method: Method, request: object) -> bytes:
    if method.request is None:
        if not isinstance(request, (bytes, bytearray, memoryview)):
            raise UsageError(f"{method.name} takes raw messages: bytes")
        return bytes(request)
    return make_message(method.request, request).SerializeToString()


def _decoded(method: Method, answer: bytes) -> Message | bytes:
    kind = None if method.request is None else _answer_type(method.name, method.request)
    return answer if kind is None else kind.FromString(answer)


def _answer_type(name: str, request: type[Message]) -> type[Message] | None:
    """Return what a method answers with; None where the .proto file of its request does not say."""
    from google.protobuf.message_factory import GetMessageClass

    _, service, method = name.split("/")
    try:
        described: Any = request.DESCRIPTOR.file.pool.FindServiceByName(service).methods_by_name[method]
    except KeyError:
        return None
    return GetMessageClass(described.output_type)

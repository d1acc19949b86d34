"""What a session hosts: methods by name, with their shape, their codec and their handler.

The list of methods that a session advertises is read off the registrar, so that the header and the behaviour cannot
drift apart (the thought is moby/buildkit's, session/session.go).
"""

from __future__ import annotations

import enum
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

from google.protobuf.message import DecodeError

from mobysession.errors import RpcError, StatusCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from google.protobuf.message import Message

    from mobysession.rpc.server import ServerCall

__all__ = ["Attachable", "Cardinality", "Codec", "CodecChoice", "Method", "Registrar"]

Request = TypeVar("Request", bound="Message")
#: See `Registrar.guard`.
Guard: TypeAlias = "Callable[[ServerCall, str, Message | None], Awaitable[None]]"


class Cardinality(enum.Enum):
    """How many messages each side sends; the first half is the request."""

    UNARY_UNARY = "unary-unary"
    UNARY_STREAM = "unary-stream"
    STREAM_UNARY = "stream-unary"
    STREAM_STREAM = "stream-stream"

    @property
    def one_answer(self) -> bool:
        """True where there is one answer, and not a stream of them, which may have no end."""
        return self in (Cardinality.UNARY_UNARY, Cardinality.STREAM_UNARY)


class Codec(NamedTuple):
    """How the messages of a method are read and written; None hands their bytes through as they are."""

    decode: Callable[[bytes], Any] | None = None
    encode: Callable[[Any], bytes] | None = None


#: A codec, or what chooses one for each call by the request's metadata.
CodecChoice: TypeAlias = "Codec | Callable[[Sequence[tuple[str, str | bytes]]], Codec]"


class Method(NamedTuple):
    """One hosted method; ``handler`` reads and writes raw messages of the call it is given."""

    name: str
    cardinality: Cardinality
    handler: Callable[[ServerCall], Awaitable[None]]
    #: What a request is, where that is known: by its descriptor the service can describe itself (reflection).
    request: type[Message] | None = None


@runtime_checkable
class Attachable(Protocol):
    """A service that a session can carry. One method is the whole contract."""

    def register(self, registrar: Registrar) -> None:
        """Add the service's methods to ``registrar``."""


class Registrar:
    """The methods of one session, by their names ``/package.Service/Method``."""

    def __init__(self, session_id: str = "") -> None:
        #: Of the session that hosts the methods; empty where they are hosted otherwise.
        self.session_id = session_id
        #: Called before the handler of each method that is added from now on, with the call, the method's name and,
        #: where the request is one message that was decoded here, that message. It refuses a call by raising.
        self.guard: Guard | None = None
        self._methods: dict[str, Method] = {}
        self._lowered: dict[str, Method] = {}
        #: What lies over these methods for a while, the latest last.
        self._overlays: list[Registrar] = []

    @property
    def methods(self) -> tuple[str, ...]:
        """The names to advertise, in the order of registration."""
        return tuple(self._methods) if not self._overlays else tuple(self._all())

    def __iter__(self) -> Iterator[Method]:
        """Yield the methods in the order of registration."""
        return iter(self._all().values())

    def find(self, name: str) -> Method | None:
        """Return the method called ``name``, in any case: the daemon lower-cases what was advertised."""
        for overlay in reversed(self._overlays):
            if (method := overlay.find(name)) is not None:
                return method
        return self._methods.get(name) or self._lowered.get(name.lower())

    @contextmanager
    def overlaid(self, other: Registrar) -> Iterator[None]:
        """Host the methods of ``other`` too for the length of the block, in place of those of the same names."""
        self._overlays.append(other)
        try:
            yield
        finally:
            self._overlays.remove(other)

    def _all(self) -> dict[str, Method]:
        methods = self._methods
        for overlay in self._overlays:
            methods = methods | overlay._all()
        return methods

    def add(self, method: Method) -> None:
        """Host ``method``.

        Raises:
            UsageError: the name is malformed, or hosted already.
        """
        self._host(method if self.guard is None else _guarded(method, self.guard))

    def _host(self, method: Method) -> None:
        if method.name.count("/") != 2 or not method.name.startswith("/"):
            raise UsageError(f"{method.name!r} is no gRPC method: it must look like /package.Service/Method")
        if method.name in self._methods:
            raise UsageError(
                f"{method.name} is served already on this session", hint="Allow each service once per session."
            )
        self._methods[method.name] = method
        self._lowered[method.name.lower()] = method

    def stream(
        self,
        name: str,
        handler: Callable[[ServerCall], Awaitable[None]],
        cardinality: Cardinality = Cardinality.STREAM_STREAM,
        request: type[Message] | None = None,
    ) -> None:
        """Host a method whose handler reads and writes raw messages.

        The handler is its own codec: one method may carry messages of several types, chosen call by call, as
        FileSend/DiffCopy does.

        Args:
            request: the type of the requests, where there is one; only for whoever asks what the method is.
        """
        self.add(Method(name, cardinality, handler, request))

    def unary_unary(
        self, name: str, handler: Callable[[Request, ServerCall], Awaitable[Message]], request: type[Request]
    ) -> None:
        """Host a method with one message each way; ``handler`` returns the answer."""
        guard = self.guard

        async def serve(call: ServerCall) -> None:
            message = await receive_one(call, request.FromString)
            if guard is not None:
                await guard(call, name, message)
            response = await handler(message, call)
            await call.send(response.SerializeToString())

        self._host(Method(name, Cardinality.UNARY_UNARY, serve, request))

    def unary_stream(
        self, name: str, handler: Callable[[Request, ServerCall], Awaitable[None]], request: type[Request]
    ) -> None:
        """Host a method with one message in and any number out; ``handler`` sends them through the call."""
        guard = self.guard

        async def serve(call: ServerCall) -> None:
            message = await receive_one(call, request.FromString)
            if guard is not None:
                await guard(call, name, message)
            await handler(message, call)

        self._host(Method(name, Cardinality.UNARY_STREAM, serve, request))


def _guarded(method: Method, guard: Guard) -> Method:
    async def serve(call: ServerCall) -> None:
        await guard(call, method.name, None)
        await method.handler(call)

    return method._replace(handler=serve)


async def receive_one(call: ServerCall, decode: Callable[[bytes], Any]) -> Any:
    """Return the one message of a unary request, decoded.

    Raises:
        RpcError: INTERNAL where there is none, or more than one, or it cannot be decoded.
    """
    message = await call.receive()
    if message is None:
        raise RpcError(StatusCode.INTERNAL, f"{call.method} takes one message and got none")
    if await call.receive() is not None:
        raise RpcError(StatusCode.INTERNAL, f"{call.method} takes one message and got more")
    return decode_request(call.method, message, decode)


def decode_request(method: str, message: bytes, decode: Callable[[bytes], Any]) -> Any:
    """Return ``message`` decoded; RpcError INTERNAL where that fails."""
    try:
        return decode(message)
    except (DecodeError, ValueError) as error:
        raise RpcError(StatusCode.INTERNAL, f"{method}: the request cannot be decoded") from error

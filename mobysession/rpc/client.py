"""The client role: calls that we open, on `/grpc`, on a native socket, on buildkitd."""

from __future__ import annotations

import functools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import trio
from google.protobuf.message import DecodeError

from mobysession import limits
from mobysession.concurrency import open_nursery
from mobysession.errors import MobysessionError, RpcError, StatusCode
from mobysession.protocol import events
from mobysession.protocol.client import ClientConnection
from mobysession.protocol.status import status_from_reset
from mobysession.rpc.call import Call
from mobysession.rpc.connection import Connection
from mobysession.rpc.keepalive import CHANNEL_KEEPALIVE
from mobysession.rpc.places import Places

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

    from google.protobuf.message import Message

    from mobysession.protocol.framing import Buffer
    from mobysession.rpc.keepalive import Keepalive
    from mobysession.rpc.observer import Observer

__all__ = ["Channel", "ClientCall", "open_channel"]

Response = TypeVar("Response", bound="Message")
Waited = TypeVar("Waited")


class ClientCall(Call):
    """A call of ours. Its methods raise `RpcError` once the peer has ended it with a status other than OK.

    Its deadline ends the call and what waits for it, not the block around it: what the caller does besides is the
    caller's, and a scope could not outlive an iterator's ``yield``.
    """

    _connection: Channel

    def __init__(
        self, channel: Channel, stream_id: int, method: str, timeout: float | None = None, left: float | None = None
    ) -> None:
        super().__init__(channel, stream_id, method)
        self._timeout = timeout
        #: Of the timeout a part may be over: the call had to wait for its place.
        self._deadline = float("inf") if left is None else trio.current_time() + max(0.0, left)
        #: None until the peer has begun its response.
        self.initial_metadata: list[tuple[str, str | bytes]] | None = None
        #: Empty until the call has ended.
        self.trailing_metadata: list[tuple[str, str | bytes]] = []
        self._started = trio.Event()
        #: The peer has ended the call with OK.
        self._answered = False

    @property
    def over(self) -> bool:
        """True when the peer has ended the call, or it has failed."""
        return self._answered or self._failure is not None

    async def wait_initial_metadata(self) -> list[tuple[str, str | bytes]]:
        """Return the response's initial metadata; empty for a call that ended without any.

        Raises:
            RpcError: DEADLINE_EXCEEDED.
        """
        await self._in_time(self._started.wait)
        return self.initial_metadata or []

    async def receive_batch(self) -> list[bytes]:
        """Return what has arrived; see `Call.receive_batch`."""
        return await self._in_time(super().receive_batch)

    async def receive(self) -> bytes | None:
        """Return the next message; see `Call.receive`."""
        return await self._in_time(super().receive)

    async def send_batch(self, messages: Sequence[Buffer], *, compress: bool = True) -> None:
        """Queue messages; see `Call.send_batch`."""
        await self._in_time(functools.partial(super().send_batch, messages, compress=compress))

    async def end(self, message: Buffer | None = None) -> None:
        """Half-close the call, behind ``message`` where one is given."""
        if message is not None:
            await self.send(message)
        self._connection.core.end_request(self.stream_id)
        self._connection.writer.wake()
        await trio.lowlevel.checkpoint()

    async def wait_sent(self, most: int = 0) -> None:
        """Wait until at most ``most`` bytes of what was sent are still queued here.

        Raises:
            RpcError: the call failed or was cancelled.
        """
        self.enough_room = min(most, self.enough_room)
        core = self._connection.core
        while self._failure is None and core.queued(self.stream_id) > most:
            await self._in_time(self._wait_for_room)
        if self._failure is not None:
            raise self._failure

    def cancel(self) -> None:
        """Cancel the call at once, if the peer has not ended it."""
        self.fail(RpcError(StatusCode.CANCELLED, "the call was cancelled here", method=self.method))
        self._connection.give_back(self.stream_id)

    async def _in_time(self, wait: Callable[[], Awaitable[Waited]]) -> Waited:
        # A call that is over is not late any more.
        if self._timeout is None or self._answered or self._failure is not None:
            return await wait()
        with trio.move_on_at(self._deadline):
            return await wait()
        late = RpcError(StatusCode.DEADLINE_EXCEEDED, f"no answer within {self._timeout:g} s", method=self.method)
        self.fail(late)
        self._connection.give_back(self.stream_id)
        raise late

    def begin(self, metadata: list[tuple[str, str | bytes]]) -> None:
        """Take the response's initial metadata."""
        if self.observer is not None:
            self.observer.initial_metadata(metadata)
        self.initial_metadata = metadata
        self._started.set()

    def finish(self, ended: events.CallEnded) -> None:
        """Take the status."""
        self.trailing_metadata = ended.trailers
        self._started.set()
        self.observe_end(ended.code, ended.message, ended.details, ended.trailers)
        if ended.code is StatusCode.OK:
            self._answered = True
            self.end_of_messages()
            return
        self.fail(
            RpcError(ended.code, ended.message, details=ended.details, method=self.method, trailers=ended.trailers)
        )

    def fail(self, failure: MobysessionError) -> None:
        """Take the news that the call is over before its time, unless it was answered: then it concerns nobody."""
        if not self._answered:
            super().fail(failure)
            self._started.set()
            code = failure.code if isinstance(failure, RpcError) else StatusCode.UNAVAILABLE
            self.observe_end(code, failure.message)


class Channel(Connection):
    """Calls over one HTTP/2 connection. Made by `open_channel`."""

    core: ClientConnection

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        authority: str,
        max_message: int = limits.MAX_MESSAGE,
        keepalive: Keepalive | None = None,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(stream, ClientConnection(max_message=max_message), keepalive, observer)
        self._authority = authority
        self._places = Places(self.core, self.closed)
        #: What a stream that its user wants header lines on brings along for every call.
        self._metadata: tuple[tuple[str, str | bytes], ...] = getattr(stream, "metadata", ())

    @asynccontextmanager
    async def open_call(
        self,
        method: str,
        *,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        timeout: float | None = None,
        compress: bool = False,
    ) -> AsyncIterator[ClientCall]:
        """Open a call for the length of the block; leaving it before the peer has ended the call cancels the call.

        Where the peer takes no more calls at once, the block begins when one of them has ended; first come, first
        served.

        Args:
            method: "/package.Service/Method".
            timeout: seconds from now on; told to the peer and enforced here, whenever the call is waited for.
            compress: send the messages gzip-compressed; `Call.send_batch` may except some. What the peer sends is
                understood either way.

        Raises:
            RpcError: UNAVAILABLE when no call can be opened, DEADLINE_EXCEEDED when none could be in time.
            LocalProtocolError: a method, an authority, metadata or a timeout that a header field cannot carry.
        """
        left = timeout
        if self._places.must_wait:
            left = await self._places.wait(method, timeout)
        if self.closed.is_set():
            raise _unavailable(self.failure, method)
        stream_id = self.core.start_call(
            method, authority=self._authority, metadata=[*self._metadata, *metadata], timeout=left, compress=compress
        )
        self.writer.wake()
        call = ClientCall(self, stream_id, method, timeout, left)
        self.calls[stream_id] = call
        if self.observer is not None:
            call.observer = self.observer.call_started(call, metadata)
        try:
            yield call
        finally:
            self.calls.pop(stream_id, None)
            call.observe_end(StatusCode.CANCELLED, "the call was left before its end")
            self.give_back(stream_id)

    def give_back(self, stream_id: int) -> None:
        """Cancel a call, unless it is over, and with it its place."""
        self.core.reset(stream_id)
        self.writer.wake()
        self._places.changed()

    def _handle_connection_event(self, event: events.Event) -> None:
        super()._handle_connection_event(event)
        # Settings or a goodbye.
        self._places.changed()

    def _over(self, failure: MobysessionError) -> None:
        super()._over(failure)
        self._places.changed()

    async def unary(
        self,
        method: str,
        request: Message,
        response: type[Response],
        *,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        timeout: float | None = None,
        compress: bool = False,
    ) -> Response:
        """Send one message and return the one that answers it.

        Raises:
            RpcError: the peer's status, or one of our own for a lost connection, a passed deadline, a broken answer.
        """
        async with self.open_call(method, metadata=metadata, timeout=timeout, compress=compress) as call:
            await call.end(request.SerializeToString())
            message = await call.receive()
            if message is None:
                raise RpcError(StatusCode.INTERNAL, "the call ended OK without an answer", method=method)
            # The status follows the message; only then is the answer whole.
            if await call.receive() is not None:
                raise RpcError(StatusCode.INTERNAL, "the call was answered more than once", method=method)
            return decode_response(method, message, response)

    async def unary_stream(
        self,
        method: str,
        request: Message,
        response: type[Response],
        *,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        timeout: float | None = None,
        compress: bool = False,
    ) -> AsyncGenerator[Response, None]:
        """Send one message and yield each that answers; close the iterator (``aclosing``) to cancel the call."""
        async with self.open_call(method, metadata=metadata, timeout=timeout, compress=compress) as call:
            await call.end(request.SerializeToString())
            while messages := await call.receive_batch():
                for message in messages:
                    yield decode_response(method, message, response)

    def handle_call_event(self, event: events.Event) -> None:
        """Feed and end calls."""
        match event:
            case events.InitialMetadata(stream_id, metadata):
                if isinstance(call := self.calls.get(stream_id), ClientCall):
                    call.begin(metadata)
            case events.CallEnded(stream_id):
                if isinstance(call := self.calls.get(stream_id), ClientCall):
                    call.finish(event)
                self._places.changed()
            case events.CallReset(stream_id, error_code):
                if (lost := self.calls.get(stream_id)) is not None:
                    code = status_from_reset(error_code)
                    lost.fail(RpcError(code, f"the call was reset with error {error_code}", method=lost.method))
                self._places.changed()
            case _:
                pass

    def call_lost(self, call: Call, failure: MobysessionError) -> None:
        """Fail a call that cannot be answered any more."""
        call.fail(_unavailable(failure, call.method))


def decode_response(method: str, message: bytes, response: type[Response]) -> Response:
    """Return ``message`` decoded; RpcError INTERNAL where that fails."""
    try:
        return response.FromString(message)
    except DecodeError as error:
        raise RpcError(StatusCode.INTERNAL, "the answer cannot be decoded", method=method) from error


def _unavailable(failure: MobysessionError | None, method: str) -> RpcError:
    reason = failure.message if failure is not None else "the connection was closed"
    error = RpcError(StatusCode.UNAVAILABLE, reason, method=method, hint=failure.hint if failure else None)
    error.__cause__ = failure
    return error


@asynccontextmanager
async def open_channel(
    stream: trio.abc.Stream,
    *,
    authority: str = "localhost",
    max_message: int = limits.MAX_MESSAGE,
    keepalive: Keepalive | None = CHANNEL_KEEPALIVE,
    observer: Observer | None = None,
) -> AsyncIterator[Channel]:
    """Speak gRPC as a client on ``stream``, which the channel owns from now on, while the block runs.

    An answer's message over ``max_message`` bytes ends its call with RESOURCE_EXHAUSTED. With ``keepalive`` a silent
    connection is asked whether it lives, and ended with ConnectionLost where nothing answers; the default asks so
    rarely that every server puts up with it. ``observer`` is called in the loop and must not wait.
    A connection that ends before shows in ``closed`` and ``failure``, and as RpcError UNAVAILABLE in every call.
    """
    async with open_nursery() as nursery:
        channel = Channel(stream, authority=authority, max_message=max_message, keepalive=keepalive, observer=observer)
        nursery.start_soon(channel.run)
        try:
            yield channel
        finally:
            await channel.finish()

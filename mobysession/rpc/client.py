"""The client role: calls that we open, on `/grpc`, on a native socket, on buildkitd."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import trio
from google.protobuf.message import DecodeError

from mobysession.concurrency import open_nursery
from mobysession.errors import MobysessionError, RpcError, StatusCode
from mobysession.protocol import events
from mobysession.protocol.status import status_from_reset
from mobysession.rpc.connection import Call, Connection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from google.protobuf.message import Message

    from mobysession.protocol.framing import Buffer

__all__ = ["Channel", "ClientCall", "open_channel"]

Response = TypeVar("Response", bound="Message")


class ClientCall(Call):
    """A call of ours. Its receiving methods raise `RpcError` once the peer has ended it with a status other than OK."""

    def __init__(self, channel: Channel, stream_id: int, method: str) -> None:
        super().__init__(channel, stream_id, method)
        #: None until the peer has begun its response.
        self.initial_metadata: list[tuple[str, str | bytes]] | None = None
        #: Empty until the call has ended.
        self.trailing_metadata: list[tuple[str, str | bytes]] = []
        self._started = trio.Event()
        #: The peer has ended the call with OK.
        self._answered = False

    async def wait_initial_metadata(self) -> list[tuple[str, str | bytes]]:
        """Return the response's initial metadata; empty for a call that ended without any."""
        await self._started.wait()
        return self.initial_metadata or []

    async def end(self, message: Buffer | None = None) -> None:
        """Half-close the call, behind ``message`` where one is given."""
        if message is not None:
            await self.send(message)
        self._connection.core.end_request(self.stream_id)
        self._connection.wake_writer()
        await trio.lowlevel.checkpoint()

    def begin(self, metadata: list[tuple[str, str | bytes]]) -> None:
        """Take the response's initial metadata."""
        self.initial_metadata = metadata
        self._started.set()

    def finish(self, ended: events.CallEnded) -> None:
        """Take the status."""
        self.trailing_metadata = ended.trailers
        self._started.set()
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


class Channel(Connection):
    """Calls over one HTTP/2 connection. Made by `open_channel`."""

    def __init__(self, stream: trio.abc.Stream, *, authority: str) -> None:
        super().__init__(stream, client_side=True)
        self._authority = authority

    @asynccontextmanager
    async def open_call(
        self, method: str, *, metadata: Sequence[tuple[str, str | bytes]] = (), timeout: float | None = None
    ) -> AsyncIterator[ClientCall]:
        """Open a call for the length of the block; leaving it before the peer has ended the call cancels the call.

        Args:
            method: "/package.Service/Method".
            timeout: seconds; told to the peer and enforced here.

        Raises:
            RpcError: UNAVAILABLE when no call can be opened, DEADLINE_EXCEEDED when ``timeout`` ran out.
            LocalProtocolError: a method, an authority or metadata that a header field cannot carry.
        """
        if self.closed.is_set():
            raise _unavailable(self.failure, method)
        stream_id = self.core.start_call(method, authority=self._authority, metadata=metadata, timeout=timeout)
        self.wake_writer()
        call = ClientCall(self, stream_id, method)
        self.calls[stream_id] = call
        try:
            with trio.move_on_after(float("inf") if timeout is None else timeout) as scope:
                yield call
            if scope.cancelled_caught:
                raise RpcError(StatusCode.DEADLINE_EXCEEDED, f"no answer within {timeout:g} s", method=method)
        finally:
            self.calls.pop(stream_id, None)
            self.core.reset(stream_id)
            self.wake_writer()

    async def unary(
        self,
        method: str,
        request: Message,
        response: type[Response],
        *,
        metadata: Sequence[tuple[str, str | bytes]] = (),
        timeout: float | None = None,
    ) -> Response:
        """Send one message and return the one that answers it.

        Raises:
            RpcError: the peer's status, or one of our own for a lost connection, a passed deadline, a broken answer.
        """
        async with self.open_call(method, metadata=metadata, timeout=timeout) as call:
            await call.end(request.SerializeToString())
            message = await call.receive()
            if message is None:
                raise RpcError(StatusCode.INTERNAL, "the call ended OK without an answer", method=method)
            # The status follows the message; only then is the answer whole.
            if await call.receive() is not None:
                raise RpcError(StatusCode.INTERNAL, "the call was answered more than once", method=method)
            return decode_response(method, message, response)

    async def unary_stream(
        self, method: str, request: Message, response: type[Response], *, timeout: float | None = None
    ) -> AsyncGenerator[Response, None]:
        """Send one message and yield each that answers; close the iterator (``aclosing``) to cancel the call."""
        async with self.open_call(method, timeout=timeout) as call:
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
            case events.CallReset(stream_id, error_code):
                if (lost := self.calls.get(stream_id)) is not None:
                    code = status_from_reset(error_code)
                    lost.fail(RpcError(code, f"the call was reset with error {error_code}", method=lost.method))
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
async def open_channel(stream: trio.abc.Stream, *, authority: str = "localhost") -> AsyncIterator[Channel]:
    """Speak gRPC as a client on ``stream``, which the channel owns from now on, while the block runs.

    A connection that ends before shows in ``closed`` and ``failure``, and as RpcError UNAVAILABLE in every call.
    """
    async with open_nursery() as nursery:
        channel = Channel(stream, authority=authority)
        nursery.start_soon(channel.run)
        try:
            yield channel
        finally:
            await channel.finish()

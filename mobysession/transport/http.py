"""One HTTP/1.1 request on a stream, and its answer, of which body and lines may be endless.

A daemon may answer before it has read the request's body, and may then close: so a body is sent beside the reading, and
that it could not be sent to its end is no failure as long as there is an answer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, suppress
from typing import TYPE_CHECKING

import h11
import trio

from mobysession import limits
from mobysession.errors import ApiError, ConnectionLost, HandshakeError, HandshakeTimeout, TransportError, UsageError
from mobysession.protocol.http1 import (
    AnswerStart,
    encode_fields,
    error_message,
    invalid_answer,
    one_line,
    stranger_hint,
    version_hint,
)
from mobysession.transport.failure import name_failures

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable

    from mobysession.transport.endpoint import Endpoint

__all__ = ["Exchange", "Response"]


class Exchange:
    """A request and its answer.

    Args:
        stream: a connection with nothing in flight; stays the caller's.
        endpoint: where it leads to.
        received: what of the answer was read already; empty bytes, that it was closed; None: nothing was.
    """

    def __init__(self, stream: trio.abc.Stream, endpoint: Endpoint, received: bytes | None = None) -> None:
        self._stream = stream
        self._received = received
        self._endpoint = endpoint
        self.peer = str(endpoint)
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.MAX_HEAD)
        self._name = "the request"
        self._start = AnswerStart(self.peer)
        self._unsent: trio.BrokenResourceError | None = None
        # Infinite while it is our turn, and then the time by which the daemon must have moved.
        self._patience = trio.CancelScope()

    def request_head(
        self,
        method: str,
        target: str,
        fields: Iterable[tuple[str, str]],
        body: bytes | AsyncIterable[bytes] | None,
        *,
        again: bool = False,
    ) -> bytes:
        """Return the head of the request; raises UsageError when it cannot be written.

        With ``again`` the connection is to be used once more behind the answer; see `finish`.
        """
        self._name = f"{method} {target.partition('?')[0]}"
        headers = [(b"Host", self._endpoint.host.encode("ascii", "replace")), *encode_fields(fields)]
        if not again:
            headers.append((b"Connection", b"close"))
        if isinstance(body, bytes):
            headers.append((b"Content-Length", str(len(body)).encode("ascii")))
        elif body is not None:
            headers.append((b"Transfer-Encoding", b"chunked"))
        try:
            request = h11.Request(method=method, target=self._endpoint.target(target), headers=headers)
            return self._h11.send(request) or b""
        except (h11.LocalProtocolError, UnicodeEncodeError):
            raise UsageError(f"{self._name} cannot be written as HTTP/1.1") from None

    async def send(self, head: bytes, body: bytes | AsyncIterable[bytes] | None, patience: float) -> None:
        """Send the request.

        Args:
            head: what ``request_head`` returned.
            body: what it was given.
            patience: seconds that the daemon may take to read on, or to answer after the end.

        Cancel: the request is incomplete, the stream useless.
        """
        try:
            await self._send_all(head, patience)
            if isinstance(body, bytes):
                await self._send_all(self._h11.send(h11.Data(data=body)) or b"", patience)
            elif body is not None:
                await self._send_chunks(body, patience)
            await self._send_all(self._h11.send(h11.EndOfMessage()) or b"", patience)
            self._patience.deadline = trio.current_time() + patience
        except trio.BrokenResourceError as error:
            self._unsent = error  # whoever closes early has often answered first; reading tells
            self._patience.deadline = trio.current_time() + patience

    async def _send_chunks(self, body: AsyncIterable[bytes], patience: float) -> None:
        async with AsyncExitStack() as stack:
            if isinstance(body, AsyncGenerator):
                await stack.enter_async_context(aclosing(body))
            async for chunk in body:
                await self._send_all(self._h11.send(h11.Data(data=chunk)) or b"", patience)

    async def _send_all(self, data: bytes, patience: float) -> None:
        self._patience.deadline = trio.current_time() + patience
        await self._stream.send_all(data)
        self._patience.deadline = math.inf

    async def receive_head(self) -> Response:
        """Wait for the head of the answer.

        Raises:
            HandshakeTimeout: the daemon did not move in time.
            HandshakeError: what answered does not speak HTTP/1.1.
            ConnectionLost: the connection broke.
        """
        with self._patience:
            while True:
                event = await self._next_event()
                if isinstance(event, h11.Response):
                    return Response(self, event)
        raise self._start.failure() or HandshakeTimeout(
            f"{self.peer} accepted the connection and did not answer {self._name} in time",
            hint="Check that a Docker daemon listens at this address, and that it is not stuck.",
        )

    async def receive_chunk(self) -> bytes:
        """Wait for the next piece of the answer's body; empty at its end."""
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                if event.data:
                    return bytes(event.data)
            else:
                return b""

    async def finish(self) -> bool:
        """Read the rest of a short answer; return whether the connection can be used for another request."""
        size = 0
        while size <= limits.MAX_REFUSAL_BODY and (chunk := await self.receive_chunk()):
            size += len(chunk)
        done = self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
        return done and not self._h11.trailing_data[0]

    async def _next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise self._broken() from error
            if event is not h11.NEED_DATA:
                return event
            for piece in self._start.feed(await self._receive()):
                self._h11.receive_data(piece)

    async def _receive(self) -> bytes:
        if self._received is not None:
            received, self._received = self._received, None
            return received
        with name_failures(self._endpoint):
            try:
                return bytes(await self._stream.receive_some(limits.READ_SIZE))
            except trio.BrokenResourceError as error:
                raise self._unsent or error from (self._unsent or error).__cause__

    def _broken(self) -> TransportError:
        if self._h11.trailing_data[1]:
            where = "in the middle of its answer" if self._start.heard else "without an answer"
            return ConnectionLost(
                f"{self.peer} closed the connection {where} to {self._name}",
                hint="Check that a Docker daemon listens at this address; if so, its log may say more.",
            )
        return invalid_answer(self.peer, self._name)


class Response:
    """An answer whose head has arrived.

    Attributes:
        status: the HTTP status.
        reason: the reason phrase.
        headers: the header lines, names in lower case.
    """

    def __init__(self, exchange: Exchange, head: h11.Response) -> None:
        self._exchange = exchange
        self.status = head.status_code
        self.reason = one_line(head.reason.decode("latin-1"))
        self.headers = tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers)

    def header(self, name: str, default: str = "") -> str:
        """Return the first value of a header line."""
        name = name.lower()
        return next((value for key, value in self.headers if key == name), default)

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, in pieces of any size; raises ConnectionLost when it does not end properly."""
        return _Chunks(self._exchange)

    def lines(self, limit: int = limits.MAX_TRACE_LINE) -> AsyncIterator[bytes]:
        """Yield the lines of the body without their ends; the last need not have one.

        Raises:
            HandshakeError: a line is longer than ``limit`` bytes.
        """
        return _Lines(self._exchange, limit)

    async def read(self, limit: int = limits.MAX_MESSAGE, *, timeout: float = math.inf) -> bytes:
        """Return the rest of the body.

        Raises:
            HandshakeError: it is longer than ``limit`` bytes.
            HandshakeTimeout: it was not complete within ``timeout`` seconds.
        """
        body = bytearray()
        with trio.move_on_after(timeout):
            await self._collect(body, limit)
            if len(body) > limit:
                raise HandshakeError(f"the answer of {self._exchange.peer} is longer than {limit} bytes")
            return bytes(body)
        raise HandshakeTimeout(f"{self._exchange.peer} did not finish its answer within {timeout:g} seconds")

    async def _collect(self, body: bytearray, limit: int) -> None:
        while len(body) <= limit and (chunk := await self._exchange.receive_chunk()):
            body += chunk

    async def error(self, doing: str) -> ApiError:
        """Read the body of an error and return it as the error to raise.

        Args:
            doing: what was asked for, to begin the message with.
        """
        reason = await self.explanation()
        message = f"{doing}: {self._exchange.peer} answered with status {self.status}: {reason}"
        hint = version_hint(reason) or stranger_hint(self.status, self.headers)
        return ApiError(message, status=self.status, hint=hint)

    async def explanation(self) -> str:
        """Read the body of an error and return what it says, in one line."""
        body = bytearray()
        # An explanation that is cut off is better than none.
        with trio.move_on_after(limits.HANDSHAKE_TIMEOUT), suppress(TransportError):
            await self._collect(body, limits.MAX_REFUSAL_BODY)
        said = error_message(bytes(body), self.header("content-type"), peer=self._exchange.peer)
        return said or self.reason or "no reason given"


class _Chunks(AsyncIterator[bytes]):
    """The pieces of a body: no generator, so that leaving the loop early leaves nothing to clean up."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def __anext__(self) -> bytes:
        chunk = await self._exchange.receive_chunk()
        if not chunk:
            raise StopAsyncIteration
        return chunk


class _Lines(AsyncIterator[bytes]):
    """The lines of a body; the pieces of a long one are joined once, when it is complete."""

    def __init__(self, exchange: Exchange, limit: int) -> None:
        self._exchange = exchange
        self._limit = limit
        self._complete: deque[bytes] = deque()
        self._pieces: list[bytes] = []
        self._size = 0

    async def __anext__(self) -> bytes:
        while not self._complete:
            chunk = await self._exchange.receive_chunk()
            if chunk:
                self._feed(chunk)
            elif self._size:
                self._complete.append(self._join())
            else:
                raise StopAsyncIteration
        return self._complete.popleft()

    def _feed(self, chunk: bytes) -> None:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._add(end)
            self._complete.append(self._join().removesuffix(b"\r"))
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._limit:
            raise HandshakeError(f"a line in the answer of {self._exchange.peer} is longer than {self._limit} bytes")

    def _join(self) -> bytes:
        line = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return line

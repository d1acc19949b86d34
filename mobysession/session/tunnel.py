"""A session's byte stream inside a gRPC call: BuildKit's ``Control.Session``.

The call carries ``BytesMessage`` both ways. What their data is when it is put together is what a hijacked socket would
carry; where one message ends and the next begins means nothing. What the session says of itself is metadata, the same
keys as in ``POST /session`` in lower case. The daemon speaks first, at once, so that the beginning of its answer is the
proof that it has taken the session. It takes an ID that is registered already, and replaces the older session.

What is written waits in the queue of the call's connection, ahead of which the session's own writer runs only a little:
a health check must not stand behind megabytes of a build context there.

Source: moby/buildkit session/grpchijack (dial.go, hijack.go), control/control.go.
"""

from __future__ import annotations

import operator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from mobysession import limits
from mobysession.errors import (
    ConnectionLost,
    HandshakeError,
    HandshakeTimeout,
    MobysessionError,
    RpcError,
    StatusCode,
    UpgradeRefused,
)
from mobysession.rpc.opening import open_ready_channel
from mobysession.services.bytes_message import decode_bytes_message, encode_bytes_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mobysession.protocol.session_headers import SessionHeaders
    from mobysession.rpc.client import Channel, ClientCall

__all__ = ["TunnelBroken", "TunnelStream", "open_tunnel"]

T = TypeVar("T")

_METHOD: Final = "/moby.buildkit.v1.Control/Session"
_PROXY_HINT: Final = (
    "The daemon's log says more. A proxy in between must pass HTTP/2, or upgraded connections, through."
)
#: What a status means as one of HTTP (grpc-gateway's table), for who asks a refusal for its status.
_HTTP_STATUS: Final = {
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.UNAUTHENTICATED: 401,
}


class TunnelBroken(ConnectionLost, trio.BrokenResourceError):
    """The call that carries a session has failed; for readers of the stream, the stream is broken."""


class TunnelStream(trio.abc.HalfCloseableStream):
    """The bytes that a call of `BytesMessage` carries. Made by `open_tunnel`."""

    def __init__(self, call: ClientCall) -> None:
        self._call = call
        self._received = b""
        self._at_end = False
        self._eof_sent = False
        self._closed = False
        #: Who waits to receive and to send; at most one of each.
        self._receiving: trio.CancelScope | None = None
        self._sending: trio.CancelScope | None = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read what came, of one message or several; empty at the end. Cancel: nothing is lost.

        Raises:
            TunnelBroken: the daemon ended the call otherwise than in order, or the connection below broke.
        """
        # What is no whole number is refused at once, and not only when something has come.
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving is not None:
            raise trio.BusyResourceError("another task is receiving from this tunnel")
        with trio.CancelScope() as self._receiving:
            try:
                await self._refuse_closed()
                while not self._received and not self._at_end:
                    messages = await self._failing(self._call.receive_batch)
                    self._at_end = not messages
                    self._received = b"".join(map(_data, messages))
                data, self._received = self._received[:max_bytes], self._received[max_bytes or len(self._received) :]
                return data
            finally:
                self._receiving = None
        raise trio.ClosedResourceError("the tunnel was closed meanwhile")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of it. Cancel: any part may have been sent; raises TunnelBroken as `receive_some` does."""
        if self._sending is not None:
            raise trio.BusyResourceError("another task is sending on this tunnel")
        with trio.CancelScope() as self._sending:
            try:
                await self._refuse_closed()
                if self._eof_sent:
                    raise trio.ClosedResourceError("the end was sent on this tunnel")
                with memoryview(data) as whole:
                    for start in range(0, len(whole), limits.TUNNEL_CHUNK):
                        if self._call.over and self._call.failure is None:
                            raise TunnelBroken("the daemon has ended the call that carried the session")
                        message = encode_bytes_message(whole[start : start + limits.TUNNEL_CHUNK])
                        await self._failing(self._call.send, message)
                        await self._failing(self._call.wait_sent, limits.TUNNEL_AHEAD)
                return
            finally:
                self._sending = None
        raise trio.ClosedResourceError("the tunnel was closed meanwhile")

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until ``send_all`` might not block."""
        if self._sending is not None:
            raise trio.BusyResourceError("another task is sending on this tunnel")
        with trio.CancelScope() as self._sending:
            try:
                await self._refuse_closed()
                await self._failing(self._call.wait_sent, limits.TUNNEL_AHEAD)
                return
            finally:
                self._sending = None
        raise trio.ClosedResourceError("the tunnel was closed meanwhile")

    async def send_eof(self) -> None:
        """Half-close the call: nothing more will be sent."""
        if self._sending is not None:
            raise trio.BusyResourceError("another task is sending on this tunnel")
        await self._refuse_closed()
        await self._end()

    async def aclose(self) -> None:
        """Half-close the call and read it to its end, for at most `limits.GOODBYE_TIMEOUT`, so that it ends in order.

        Cancel: the call is cancelled instead.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        for scope in (self._receiving, self._sending):
            if scope is not None:
                scope.cancel()
        ended = False
        try:
            with trio.move_on_after(limits.GOODBYE_TIMEOUT):
                await self._end()
                while not self._at_end:
                    self._at_end = not await self._failing(self._call.receive_batch)
                ended = True
        except trio.BrokenResourceError:
            ended = True
        finally:
            if not ended:
                self._call.cancel()

    async def _end(self) -> None:
        if not self._eof_sent:
            self._eof_sent = True
            await self._failing(self._call.end)
        await trio.lowlevel.checkpoint()

    async def _refuse_closed(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError("the tunnel was closed")

    async def _failing(self, act: Callable[..., Awaitable[T]], *arguments: object) -> T:
        try:
            return await act(*arguments)
        except RpcError as error:
            raise TunnelBroken(f"the call that carries the session ended: {error}", hint=error.hint) from error


def _data(message: bytes) -> bytes | memoryview:
    try:
        return decode_bytes_message(message)
    except MobysessionError as error:
        raise TunnelBroken(error.message) from error


@asynccontextmanager
async def open_tunnel(
    stream: trio.abc.Stream,
    headers: SessionHeaders,
    *,
    accepted: str,
    timeout: float = limits.HANDSHAKE_TIMEOUT,
) -> AsyncIterator[tuple[TunnelStream, Channel]]:
    """Open a session's stream inside a gRPC connection, for the length of the block.

    Args:
        stream: where gRPC is to be spoken, as its client; owned from now on.
        headers: what the session says of itself.
        accepted: what had gone well before, for errors.
        timeout: seconds until the daemon must have begun to speak in the call.

    Yields: the stream, and the connection that carries it.

    Raises:
        HandshakeTimeout: the daemon did not speak HTTP/2, or not in the call, in time.
        UpgradeRefused: it refused the call.
        HandshakeError: the connection ended instead.

    Cancel: the call is cancelled and the connection closed.
    """
    async with open_ready_channel(stream, accepted=accepted, hint=_PROXY_HINT) as carrier:
        metadata = [(key.lower(), value) for key, value in headers.fields()]
        try:
            async with carrier.open_call(_METHOD, metadata=metadata) as call:
                await _wait_taken(call, accepted, timeout)
                tunnel = TunnelStream(call)
                try:
                    yield tunnel, carrier
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.aclose_forcefully(tunnel)
        except RpcError as error:  # the connection was lost before a call could be opened
            if error.method != _METHOD:
                raise
            raise HandshakeError(f"{accepted}, and lost it: {error.message}", hint=_PROXY_HINT) from error


async def _wait_taken(call: ClientCall, accepted: str, timeout: float) -> None:
    with trio.move_on_after(timeout) as waiting:
        await call.wait_initial_metadata()
    if waiting.cancelled_caught:
        raise HandshakeTimeout(f"{accepted} and then did not answer {_METHOD} within {timeout:g} s", hint=_PROXY_HINT)
    failure = call.failure
    if call.initial_metadata is not None or not isinstance(failure, RpcError):
        return
    if failure.code in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED):
        raise HandshakeError(f"{accepted} and then closed it: {failure.message}", hint=_PROXY_HINT) from failure
    raise UpgradeRefused(
        f"{accepted} and refused the session in it: {failure}",
        status=_HTTP_STATUS.get(failure.code, 500),
        reason=failure.message,
        hint="Attach by hijack (--attach hijack), or look into the daemon's log.",
    ) from failure

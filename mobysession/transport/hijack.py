"""A request that becomes a byte stream: ``POST /session`` and ``POST /grpc``.

The upgrade itself is ``mobysession.protocol.handshake``; this is its waiting. What came with the ``101`` is replayed
before anything else is read, and whatever goes wrong, the stream is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from mobysession import limits
from mobysession.protocol.handshake import UpgradeHandshake
from mobysession.transport.dial import dial
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.failure import name_failures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mobysession.protocol.handshake import Upgraded

__all__ = ["HalfCloseableHijackedStream", "HijackedStream", "hijack"]


class HijackedStream(trio.abc.Stream):
    """What an upgraded connection carries, from the first byte after the ``101`` on.

    Attributes:
        transport_stream: the connection below.
        status_line: the daemon's, e.g. ``HTTP/1.1 101 Switching Protocols``.
        headers: its header lines, names in lower case.
    """

    def __init__(self, transport_stream: trio.abc.Stream, upgraded: Upgraded) -> None:
        self.transport_stream = transport_stream
        self.status_line = upgraded.status_line
        self.headers = upgraded.headers
        self._leftover = upgraded.leftover
        self._closed = False

    @property
    def plain_socket(self) -> trio.SocketStream | None:
        """The socket that takes what is written as it is; None where TLS or a program stands between."""
        return self.transport_stream if isinstance(self.transport_stream, trio.SocketStream) else None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read, the leftover first. Cancel: nothing is lost."""
        if not self._leftover or self._closed:
            return bytes(await self.transport_stream.receive_some(max_bytes))
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        await trio.lowlevel.checkpoint()
        data, self._leftover = self._leftover[:max_bytes], self._leftover[max_bytes or len(self._leftover) :]
        return data or bytes(await self.transport_stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of it. Cancel: any part may have been sent."""
        await self.transport_stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until ``send_all`` might not block."""
        await self.transport_stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the connection; the daemon takes it for the end of the session. Cancel: it is closed all the same."""
        self._closed = True
        await self.transport_stream.aclose()


class HalfCloseableHijackedStream(HijackedStream, trio.abc.HalfCloseableStream):
    """The same over a connection that can be closed in one direction."""

    transport_stream: trio.abc.HalfCloseableStream

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        await self.transport_stream.send_eof()


async def hijack(
    over: Endpoint | trio.abc.Stream,
    target: str,
    headers: Iterable[tuple[str, str]] = (),
    *,
    endpoint: Endpoint | None = None,
    timeout: float = limits.HANDSHAKE_TIMEOUT,
    protocol: str = "h2c",
    body: bytes = b"",
) -> HijackedStream:
    """Ask the daemon to upgrade a connection to ``h2c``, and take the connection over.

    Args:
        over: where to dial, or a stream that was dialled already and has nothing in flight; it is ours from now on.
        target: path of the request, e.g. ``/session``.
        headers: header lines to send, in this order, repeated names on lines of their own.
        endpoint: where ``over`` leads to when it is a stream: its path prefix, its headers and its name in errors.
        timeout: seconds for the answer, once connected.
        protocol: what to upgrade to instead.
        body: of the request.

    Returns: the upgraded stream, which the caller owns.

    Raises:
        ConnectError: nothing could be dialled; TLSError when TLS is why.
        UpgradeRefused: the daemon said no, in its own words; SessionIdInUse when the ID is taken.
        HandshakeError: what answered is not a Docker daemon; HandshakeTimeout when nothing did in time.
        ConnectionLost: the connection broke before the answer.
        UsageError: the target or a header cannot be sent.

    Cancel: the connection is closed.
    """
    stream: trio.abc.Stream | None = None
    if isinstance(over, Endpoint):
        endpoint = over
    else:
        stream = over
    try:
        handshake, timeout = _handshake(endpoint, target, headers, timeout, protocol=protocol, body=body)
        if stream is None:
            assert endpoint is not None
            stream = await dial(endpoint)
        with name_failures(endpoint), trio.move_on_after(timeout):
            upgraded = await _shake_hands(stream, handshake)
            kind = HalfCloseableHijackedStream if isinstance(stream, trio.abc.HalfCloseableStream) else HijackedStream
            return kind(stream, upgraded)
        raise handshake.timed_out(timeout)
    except BaseException:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        raise


def _handshake(
    endpoint: Endpoint | None,
    target: str,
    headers: Iterable[tuple[str, str]],
    timeout: float,
    *,
    protocol: str,
    body: bytes,
) -> tuple[UpgradeHandshake, float]:
    if endpoint is None:
        return UpgradeHandshake(target, headers, protocol=protocol, body=body), timeout
    fields = [*endpoint.headers, *headers]
    handshake = UpgradeHandshake(
        endpoint.target(target), fields, host=endpoint.host, peer=str(endpoint), protocol=protocol, body=body
    )
    return handshake, endpoint.answer_timeout(timeout)


async def _shake_hands(stream: trio.abc.Stream, handshake: UpgradeHandshake) -> Upgraded:
    unsent: trio.BrokenResourceError | None = None
    try:
        await stream.send_all(handshake.data_to_send())
    except trio.BrokenResourceError as error:
        unsent = error  # whoever refuses early may have said why before it closed
    while True:
        try:
            data = await stream.receive_some(limits.READ_SIZE)
        except trio.BrokenResourceError as error:
            raise unsent or error from (unsent or error).__cause__
        upgraded = handshake.receive_data(bytes(data))
        if upgraded is not None:
            return upgraded

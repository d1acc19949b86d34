"""gRPC without HTTP/1.1 before it: spoken at once on an engine's own socket (29.2 and later) and on buildkitd's.

On unix sockets and plain ports HTTP/2 begins without a word (prior knowledge), in TLS it is agreed on by ALPN. An older
engine answers HTTP/2's preface with an error of HTTP/1.1 and closes. What it has is told by the ``Api-Version`` of
``HEAD /_ping``, which leaves the connection fit for the upgrade that older engines want instead.

Source: moby/moby daemon/command/daemon.go and api/docs/CHANGELOG.md (1.53); engines 20.10.24 and 28.5.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from mobysession.errors import (
    ConnectionLost,
    EndpointError,
    HandshakeError,
    HandshakeTimeout,
    MobysessionError,
    TLSError,
    TransportError,
    UpgradeRefused,
)
from mobysession.transport.address import TCPAddress
from mobysession.transport.api import ping_on
from mobysession.transport.dial import dial
from mobysession.transport.hijack import hijack

if TYPE_CHECKING:
    from mobysession.transport.endpoint import Endpoint

__all__ = ["NATIVE_SINCE", "Introduced", "dial_grpc", "dial_native", "introduce", "is_hidden"]

#: The Engine API version since which an engine speaks gRPC on its own socket.
NATIVE_SINCE: Final = (1, 53)
#: HTTP statuses by which something says that a path is not there. Others are the engine's own trouble, and a 403 is
#: somebody's decision, which is not ours to get around by another door.
_HIDDEN: Final = frozenset({404, 405, 501})


class Introduced:
    """A connection on which a daemon has said what it is.

    Attributes:
        stream: fit for one request or upgrade; None where the daemon closed it, or is no engine.
        api: the engine's newest API version, or the one that is pinned where that is older; None where it did not say.
        failure: why what answered is no engine; None where it may be one.
    """

    def __init__(
        self, stream: trio.abc.Stream | None, api: tuple[int, int] | None, failure: TransportError | None = None
    ) -> None:
        self.stream = stream
        self.api = api
        self.failure = failure

    @property
    def has_native(self) -> bool:
        """True where the engine's version says that it speaks gRPC on its own socket."""
        return self.api is not None and self.api >= NATIVE_SINCE

    async def close(self) -> None:
        """Close the connection, if it is still ours; never waits."""
        stream, self.stream = self.stream, None
        if stream is not None:
            # A checkpoint of a cancelled caller would take the place of the error that is on its way.
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)


async def introduce(endpoint: Endpoint) -> Introduced:
    """Dial an endpoint and ask what is there.

    Raises:
        ConnectError: nothing accepts connections there.
        HandshakeTimeout: what does, said nothing.

    Cancel: nothing stays open.
    """
    try:
        stream = await dial(endpoint)
    except TLSError as failure:  # a buildkitd takes nothing but h2 (ALPN)
        return Introduced(None, None, failure)
    try:
        ping, reusable = await ping_on(stream, endpoint)
    except BaseException as error:
        await Introduced(stream, None).close()
        if isinstance(error, (HandshakeError, ConnectionLost)) and not isinstance(error, HandshakeTimeout):
            return Introduced(None, None, error)
        raise
    introduced = Introduced(stream, ping and min(ping.api, endpoint.pinned_api or ping.api))
    if not reusable:
        await introduced.close()
    return introduced


async def dial_native(endpoint: Endpoint) -> trio.abc.Stream:
    """Open a stream on which HTTP/2 is spoken at once, as its client; the caller owns it.

    Raises:
        EndpointError: the address has a path, which only HTTP/1.1 has a place for; the user must change it.
        ConnectError: nothing accepts connections there; TLSError when TLS failed.
        HandshakeError: TLS stands, and the other side did not agree to HTTP/2 in it.

    Cancel: nothing stays open.
    """
    address = endpoint.address
    if isinstance(address, TCPAddress) and address.prefix:
        raise EndpointError(
            f"gRPC cannot be spoken to {endpoint} at once: its address has a path",
            hint="Leave the path out, or attach by hijack or tunnel (--attach hijack).",
        )
    stream = await dial(endpoint, alpn=("h2",))
    if isinstance(stream, trio.SSLStream) and stream.selected_alpn_protocol() != "h2":
        await Introduced(stream, None).close()
        raise HandshakeError(
            f"{endpoint} does not speak HTTP/2 in TLS (ALPN)",
            hint="Engines do from 29.2 on, and buildkitd; for older engines attach by hijack (--attach hijack).",
        )
    if endpoint.headers:
        from mobysession.transport.headed import HeadedStream  # only for who has some: start-up

        return HeadedStream(stream, endpoint.headers)
    return stream


async def dial_grpc(endpoint: Endpoint, *, native: bool | None = None) -> trio.abc.Stream:
    """Open a stream on which the daemon serves gRPC: at once, or behind ``POST /grpc``; the caller owns it.

    Args:
        endpoint: where to.
        native: at once; False: behind the upgrade; None: as the daemon says that it has it.

    Raises:
        UpgradeRefused: this engine has no ``/grpc`` (before 19.03, or behind a proxy that hides it).
        TransportError: see `dial_native` and `mobysession.transport.hijack`.

    Cancel: nothing stays open.
    """
    if native or endpoint.is_buildkitd:
        return await dial_native(endpoint)
    if native is not None:
        return await hijack(endpoint, "/grpc", ())
    introduced = await introduce(endpoint)
    if introduced.failure is not None or introduced.has_native:
        await introduced.close()
        return await dial_native(endpoint)
    if introduced.stream is None:
        return await hijack(endpoint, "/grpc", ())
    return await hijack(introduced.stream, "/grpc", (), endpoint=endpoint)


def is_hidden(refusal: MobysessionError) -> bool:
    """Tell whether a refusal says that the path is not there: then another way may be."""
    return isinstance(refusal, UpgradeRefused) and refusal.status in _HIDDEN

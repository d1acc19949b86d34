"""The ways in. A session gets its byte stream from a dialer and cannot tell which one it was.

=============  =========================================================================================================
``hijack``     ``POST /session`` on the engine's socket, taken over after the 101: every engine so far
``tunnel``     BuildKit's ``Control.Session`` behind a hijacked ``POST /grpc``: engines from 19.03 on
``native``     ``Control.Session`` in gRPC that is spoken at once on the engine's socket: from 29.2 on, where the
               other two are announced to go
``buildkitd``  the same on a buildkitd's own address
=============  =========================================================================================================

Left to choose (``auto``), the engine is asked for its API version on the connection that the session then takes, and
the newest way goes first: native from 1.53 on, else hijack; the tunnel where a proxy hides ``/session``. What worked is
remembered for the endpoint as long as the process lives.

Source: moby/buildkit session/manager.go (HandleHTTPRequest), control/control.go (Session); moby/moby api/docs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from mobysession import limits
from mobysession.errors import (
    ConnectError,
    HandshakeError,
    MobysessionError,
    RemoteProtocolError,
    SessionIdInUse,
    TransportError,
    UpgradeRefused,
    UsageError,
)
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.hijack import hijack
from mobysession.transport.native import dial_grpc, dial_native, introduce, is_hidden

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobysession.protocol.session_headers import SessionHeaders
    from mobysession.rpc.client import Channel
    from mobysession.transport.native import Introduced

__all__ = ["ATTACH_WAYS", "Attachment", "Dialer", "EndpointDialer", "hijack_dialer"]

_log = logging.getLogger("mobysession.session")

#: What can be asked for.
ATTACH_WAYS: Final = ("auto", "hijack", "tunnel", "native", "buildkitd")
#: Those on which gRPC is spoken at once.
_AT_ONCE: Final = frozenset({"native", "buildkitd"})

_AT_ONCE_HINTS: Final = {
    "native": "Engines do from 29.2 (API 1.53) on; for older ones attach by hijack (--attach hijack).",
    "buildkitd": "Check that a buildkitd listens there; to an engine, attach by auto (--attach auto).",
}

_FORBIDDEN: Final = 403
_FORBIDDEN_HINT: Final = "If only /session is forbidden, and you may use /grpc, attach by tunnel (--attach tunnel)."

#: The way that worked last, by endpoint, the latest last.
_worked: dict[Endpoint, str] = {}


class Attachment(NamedTuple):
    """A session's byte stream and how it was got.

    ``way`` names the dialer; ``status_line`` and ``headers`` are what the daemon answered, empty where nothing was
    asked in HTTP/1.1. ``carrier`` is the gRPC connection that the stream runs in; None where it is no stream of gRPC.
    """

    stream: trio.abc.Stream
    way: str
    status_line: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    carrier: Channel | None = None


#: Takes what the session says of itself and gives, for the length of a block, its stream, on which the daemon is about
#: to speak HTTP/2. The session closes the stream; what lies below it, the dialer.
Dialer = Callable[["SessionHeaders"], AbstractAsyncContextManager[Attachment]]


def hijack_dialer(endpoint: Endpoint) -> Dialer:
    """Return the dialer that hijacks ``POST /session`` on ``endpoint``.

    Raises, when entered:
        ConnectError, HandshakeError, UpgradeRefused, SessionIdInUse: see `mobysession.transport.hijack`.
    """
    return EndpointDialer(endpoint, "hijack")


class EndpointDialer:
    """Dials an endpoint, by the way that is asked for or by the newest that it has.

    Args:
        endpoint: where the daemon is; None: `mobysession.state.active.find_endpoint`, or with ``buildkitd``
            `Endpoint.buildkitd`.
        attach: one of `ATTACH_WAYS`.

    Raises:
        UsageError: there is no such way, or not to a buildkitd.
    """

    def __init__(self, endpoint: Endpoint | None = None, attach: str = "auto") -> None:
        if attach not in ATTACH_WAYS:
            raise UsageError(f"there is no way {attach!r} to attach", hint=f"Choose one of {', '.join(ATTACH_WAYS)}.")
        if isinstance(endpoint, str):
            raise UsageError("an endpoint is no text", hint=f"Give Endpoint.parse({endpoint!r}).")
        if endpoint is None:
            endpoint = Endpoint.buildkitd() if attach == "buildkitd" else Endpoint.from_env()
            if endpoint.is_default:
                from mobysession.state.active import stand_in  # only for who names none: start-up

                endpoint = stand_in(endpoint).endpoint
        elif attach == "buildkitd":
            endpoint = endpoint.as_buildkitd()
        elif endpoint.is_buildkitd and attach != "auto":
            raise UsageError(f"a buildkitd cannot be attached to by {attach}", hint="Choose auto or buildkitd.")
        self.endpoint = endpoint
        self._asked = "buildkitd" if endpoint.is_buildkitd else attach
        #: The way that is taken, or about to be; None while that is not known.
        self.way: str | None = None if self._asked == "auto" else self._asked
        self._chosen = trio.Event()
        if self.way is not None:
            self._chosen.set()

    @asynccontextmanager
    async def __call__(self, headers: SessionHeaders) -> AsyncIterator[Attachment]:
        """Attach a session; see `Dialer`.

        Raises:
            ConnectError: nothing accepts connections there.
            UpgradeRefused: the daemon said no, in its own words; SessionIdInUse when the ID is taken.
            HandshakeError: what answered is no daemon, or does not have the way that was asked for.
            ConnectionLost: the connection broke.

        Cancel: what was dialled is closed.
        """
        async with AsyncExitStack() as stack:
            if self._asked == "auto":
                yield await self._attach_by_the_newest(stack, headers)
            else:
                yield await self._enter(stack, self._asked, headers)

    async def dial_grpc(self) -> trio.abc.Stream:
        """Return a stream for the Control API, by the same way as the session that is being attached meanwhile.

        It waits until that is known. The caller owns the stream.

        Raises:
            TransportError: see `mobysession.transport.native.dial_grpc`.

        Cancel: nothing stays open.
        """
        await self._chosen.wait()
        return await dial_grpc(self.endpoint, native=self.way in _AT_ONCE)

    # -- choosing ------------------------------------------------------------------------------------------------------

    async def _attach_by_the_newest(self, stack: AsyncExitStack, headers: SessionHeaders) -> Attachment:
        known = _worked.get(self.endpoint)
        if known is not None:
            try:
                return await self._enter(stack, known, headers)
            except (SessionIdInUse, ConnectError):
                raise
            except TransportError as error:
                _log.info("%s attached by %s before and does not now: %s", self.endpoint, known, error.message)
                del _worked[self.endpoint]
        introduced = await introduce(self.endpoint)
        try:
            attachment = await self._try_in_turn(introduced, stack, headers)
        finally:
            await introduced.close()
        _remember(self.endpoint, attachment.way)
        return attachment

    async def _try_in_turn(self, introduced: Introduced, stack: AsyncExitStack, headers: SessionHeaders) -> Attachment:
        if introduced.failure is not None:
            try:
                return await self._enter(stack, "buildkitd", headers)
            except TransportError as error:
                introduced.failure.add_note(f"as a buildkitd: {error.message}")
                raise introduced.failure from introduced.failure.__cause__
        ways = ("native", "hijack", "tunnel") if introduced.has_native else ("hijack", "tunnel")
        first: MobysessionError | None = None
        for way in ways:
            try:
                return await self._enter(stack, way, headers, introduced)
            except MobysessionError as error:
                first = first or error
                if not _may_go_on(way, error):
                    break
                _log.info("attaching by %s: %s", way, error.message)
        assert first is not None
        raise first from first.__cause__

    async def _enter(
        self, stack: AsyncExitStack, way: str, headers: SessionHeaders, introduced: Introduced | None = None
    ) -> Attachment:
        # /grpc is behind both of the others; whether gRPC can be spoken at once is only known when it was.
        if way not in _AT_ONCE:
            self._choose(way)
        try:
            attachment = await stack.enter_async_context(self._attach(way, headers, introduced))
        except HandshakeError as error:
            if way in _AT_ONCE and isinstance(error.__cause__, RemoteProtocolError):
                # An engine before 29.2, or something that is none, has answered in its own language.
                raise HandshakeError(
                    f"{self.endpoint} does not speak gRPC at once", hint=_AT_ONCE_HINTS[way]
                ) from error.__cause__
            if way == "hijack" and isinstance(error, UpgradeRefused) and error.status == _FORBIDDEN:
                error.hint = " ".join(filter(None, [error.hint, _FORBIDDEN_HINT]))
            raise
        self._choose(way)
        return attachment

    def _choose(self, way: str) -> None:
        self.way = way
        self._chosen.set()

    # -- the ways ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _attach(
        self, way: str, headers: SessionHeaders, introduced: Introduced | None = None
    ) -> AsyncIterator[Attachment]:
        endpoint = self.endpoint
        if way == "hijack":
            stream = await hijack(_take(introduced) or endpoint, "/session", headers.fields(), endpoint=endpoint)
            try:
                yield Attachment(stream, way, stream.status_line, tuple(stream.headers))
            finally:
                # A checkpoint of a cancelled caller would take the place of the error that is on its way.
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(stream)
            return
        from mobysession.session.tunnel import open_tunnel  # only where /session is not it: start-up

        if way == "tunnel":
            upgraded = await hijack(endpoint, "/grpc", ())
            accepted = f"{endpoint} accepted POST /grpc"
            async with open_tunnel(upgraded, headers, accepted=accepted) as (tunnel, carrier):
                yield Attachment(tunnel, way, upgraded.status_line, tuple(upgraded.headers), carrier)
            return
        accepted = f"{endpoint} accepted the connection"
        async with open_tunnel(await dial_native(endpoint), headers, accepted=accepted) as (tunnel, carrier):
            yield Attachment(tunnel, way, carrier=carrier)


def _take(introduced: Introduced | None) -> trio.abc.Stream | None:
    """Return the connection on which the daemon has said what it is; it is the caller's from now on."""
    if introduced is None:
        return None
    stream, introduced.stream = introduced.stream, None
    return stream


def _may_go_on(way: str, error: MobysessionError) -> bool:
    """Tell whether another way may lead where this one did not."""
    if way == "native":  # what stands in between may pass on nothing but HTTP/1.1, whatever the engine has
        return True
    return is_hidden(error) and not isinstance(error, SessionIdInUse)


def _remember(endpoint: Endpoint, way: str) -> None:
    _worked.pop(endpoint, None)
    _worked[endpoint] = way
    if len(_worked) > limits.REMEMBERED_ENDPOINTS:
        del _worked[next(iter(_worked))]

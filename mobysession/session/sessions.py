"""The smallest surface: a connection to the daemon, upgraded, and nothing else.

What comes out is the raw byte stream behind the 101, on which the daemon is about to speak HTTP/2 as a client. Whoever
takes it brings an HTTP/2 and a gRPC of their own; everything above that is `mobysession.session.session`.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypeAlias

import trio

from mobysession.errors import MobysessionError, SessionsError
from mobysession.identity import new_id
from mobysession.protocol.session_headers import SessionHeaders
from mobysession.state.active import find_endpoint
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.hijack import hijack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from mobysession.transport.hijack import HijackedStream
    from mobysession.transport.tls import TLSConfig

__all__ = ["Agent", "Sessions"]

#: Dials the daemon: returns a connection on which nothing has been asked yet, or yields it for the length of a block.
Agent: TypeAlias = "Callable[[], Awaitable[trio.abc.Stream] | AbstractAsyncContextManager[trio.abc.Stream]]"


class Sessions:
    """Raw session streams to one daemon; made by `from_connection_options`, `from_agent` or `default`."""

    def __init__(self, target: Endpoint | Agent) -> None:
        self._target = target

    def __repr__(self) -> str:
        return f"Sessions({self._target})" if isinstance(self._target, Endpoint) else "Sessions(an agent)"

    @classmethod
    def from_connection_options(
        cls,
        host: str | None = None,
        *,
        context: str | None = None,
        tls: TLSConfig | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Sessions:
        """Dial the daemon that the options name; blocking where files have to be read.

        Args:
            host: as ``DOCKER_HOST`` has it: ``unix://``, ``tcp://``, ``ssh://``.
            context: name of a docker context, instead of a host.
            tls: how to speak TLS; only addresses of tcp have it.
            headers: header lines for the request.

        Raises:
            SessionsError: they name no daemon, or two; the user must change them.
        """
        with _named():
            if host is not None and context is None:
                return cls(Endpoint.parse(host, tls=tls, headers=tuple(headers)))
            return cls(find_endpoint(host=host, context=context))

    @classmethod
    def from_agent(cls, dial: Agent) -> Sessions:
        """Take each connection from ``dial``: an async function that returns a stream, or a context manager of one."""
        return cls(dial)

    @classmethod
    def default(cls) -> Sessions:
        """Dial what the environment says, as the docker CLI does, or else the active daemon; blocking: it reads files.

        Raises:
            SessionsError: it names no usable daemon; the user must mend it.
        """
        with _named():
            return cls(find_endpoint())

    @asynccontextmanager
    async def session(
        self, session_id: str | None = None, *, name: str = "", shared_key: str = "", methods: Sequence[str] = ()
    ) -> AsyncIterator[HijackedStream]:
        """Give the upgraded byte stream for the length of the block, and close it at its end.

        Args:
            session_id: unique on the daemon; made anew when None.
            name: a label; ``shared_key``: see `mobysession.identity.shared_key`.
            methods: the methods ("/package.Service/Method") that the caller is going to serve; a daemon also wants
                ``/grpc.health.v1.Health/Check``.

        Raises:
            SessionsError: whatever went wrong before there was a stream, as its cause. What the stream raises later are
                trio's own errors.

        Cancel: the connection is closed.
        """
        async with self._dialled() as dialled:
            with _named():
                said = SessionHeaders(
                    session_id=session_id if session_id is not None else new_id(),
                    name=name,
                    shared_key=shared_key,
                    methods=tuple(methods),
                )
                stream = await hijack(dialled, "/session", said.fields())
            try:
                yield stream
            finally:
                # A checkpoint of a cancelled caller would take the place of the error that is on its way.
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(stream)

    @asynccontextmanager
    async def _dialled(self) -> AsyncIterator[Endpoint | trio.abc.Stream]:
        if isinstance(self._target, Endpoint):
            yield self._target
            return
        async with AsyncExitStack() as stack:
            try:
                dialled = self._target()
                if isinstance(dialled, AbstractAsyncContextManager):
                    stream = await stack.enter_async_context(dialled)
                else:
                    stream = await dialled
            except MobysessionError as error:
                raise _translated(error) from error
            except Exception as error:
                raise SessionsError(f"the agent could not dial: {error}") from error
            yield stream


@contextmanager
def _named() -> Iterator[None]:
    """Raise whatever goes wrong in the block as a `SessionsError`."""
    try:
        yield
    except MobysessionError as error:
        raise _translated(error) from error


def _translated(error: MobysessionError) -> SessionsError:
    translated = SessionsError(error.message, hint=error.hint)
    translated.exit_status = error.exit_status
    return translated

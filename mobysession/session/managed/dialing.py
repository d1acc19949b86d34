"""From a configuration to the dialer of its sessions: an endpoint, a program, or what the caller brings."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from mobysession.errors import UsageError
from mobysession.session.attach import Attachment, EndpointDialer
from mobysession.state.active import find_endpoint
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.hijack import hijack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobysession.protocol.session_headers import SessionHeaders
    from mobysession.session.attach import Dialer
    from mobysession.session.managed.config import SessionConfig
    from mobysession.transport.command import CommandStream

__all__ = ["DIALING", "CommandDialer", "make_dialer"]

#: The fields of a configuration that say where the daemon is and how it is reached.
DIALING: Final = frozenset({"endpoint", "tls", "attach", "dialer", "dial_command", "dial_args", "dial_env"})


async def make_dialer(config: SessionConfig) -> tuple[Dialer, str]:
    """Return what dials for ``config``, and the daemon in words.

    Raises:
        UsageError: two ways to the daemon are given.
        EndpointError, StateError: the environment, or what is remembered, names no usable daemon.

    Cancel: the thread that reads files is waited for.
    """
    await trio.lowlevel.checkpoint()
    if config.dialer is not None:
        if config.endpoint is not None or config.dial_command is not None:
            raise UsageError("a dialer is a way to the daemon already")
        return config.dialer, "a dialer"
    if config.dial_command is not None:
        if config.attach not in ("auto", "hijack"):
            raise UsageError(f"a dial command cannot be attached to by {config.attach}")
        return CommandDialer(config), config.dial_command
    endpoint = config.endpoint
    if endpoint is None:
        # Where the environment is asked, files are read.
        find = Endpoint.buildkitd if config.attach == "buildkitd" else find_endpoint
        endpoint = await trio.to_thread.run_sync(find)
    if config.tls is not None:
        endpoint = replace(endpoint, tls=config.tls)
    dialer = EndpointDialer(endpoint, config.attach)
    return dialer, str(dialer.endpoint)


class CommandDialer:
    """Attaches by ``POST /session`` through a program whose stdin and stdout lead to the daemon's socket."""

    def __init__(self, config: SessionConfig) -> None:
        assert config.dial_command is not None
        self._argv = (config.dial_command, *config.dial_args)
        self._env = {**os.environ, **config.dial_env} if config.dial_env else None

    @asynccontextmanager
    async def __call__(self, headers: SessionHeaders) -> AsyncIterator[Attachment]:
        """Attach a session; see `mobysession.session.attach.Dialer`.

        Raises:
            ConnectError: the program cannot be started, or says that it did not get through.
            UpgradeRefused, HandshakeError: see `mobysession.transport.hijack`.

        Cancel: the program is ended.
        """
        stream = await hijack(await self._open(), "/session", headers.fields())
        try:
            yield Attachment(stream, "hijack", stream.status_line, tuple(stream.headers))
        finally:
            # A checkpoint of a cancelled caller would take the place of the error that is on its way.
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def dial_grpc(self) -> trio.abc.Stream:
        """Return a stream for the Control API, which the caller owns; errors as when a session is attached."""
        return await hijack(await self._open(), "/grpc")

    async def _open(self) -> CommandStream:
        from mobysession.transport.command import open_command

        return await open_command(self._argv, name=f"the daemon behind {self._argv[0]}", env=self._env)

"""``ssh://``: the daemon of another host, through the ``ssh`` binary here and the docker CLI there.

``docker system dial-stdio`` copies between its stdin and stdout and the daemon's socket. Each connection is an ssh of
its own, unless the user's configuration shares one (ControlMaster). A buildkitd is reached with ``buildctl dial-stdio``
in the same way. (docker/cli cli/connhelper, moby/buildkit client/connhelper/ssh)

Where the other host has no such command, its socket is forwarded to here instead (``streamlocal``). That it has none
shows only when the first answer is waited for: so what was written until then is kept, and written again. As long as
the process lives, the host is remembered.
"""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING, Final

import trio

from mobysession import limits
from mobysession.errors import ConnectError
from mobysession.transport.command import CommandNotConnected, open_command

if TYPE_CHECKING:
    from mobysession.transport.address import SSHAddress

__all__ = ["SSHStream", "dial_ssh", "ssh_argv", "ssh_options", "ssh_target"]

_log = logging.getLogger("mobysession.transport")

_HINT = (
    "Try: ssh {target} docker version. The key must need no typing, and the docker CLI there must be 18.09 or newer."
)
_BUILDKITD_HINT = "Try: ssh {target} buildctl debug workers. The key must need no typing, and buildctl must be on PATH."
#: The status of a shell that does not find a command (POSIX), and what others say, and a docker before 18.09.
_NOT_FOUND: Final = 127
_NOT_FOUND_WORDS: Final = ("is not recognized as", "is not a docker command", "unknown command")
#: Hosts that were found to have no such command; False for the docker CLI, True for buildctl.
_without: set[tuple[SSHAddress, bool]] = set()


def ssh_argv(address: SSHAddress, remote: str | None = None, *, buildkitd: bool = False) -> list[str]:
    """Return the command line that reaches a daemon.

    Args:
        address: where to, and as whom.
        remote: the command there, quoted for a shell; None: the docker CLI's ``dial-stdio``.
        buildkitd: buildctl's instead of that.
    """
    if remote is None and buildkitd:
        addr = ["--addr", f"unix://{address.socket}"] if address.socket else []
        remote = shlex.join(["buildctl", *addr, "dial-stdio"])
    elif remote is None:
        host = f"--host=unix://{address.socket}" if address.socket else None
        remote = shlex.join(filter(None, ["docker", host, "system", "dial-stdio"]))
    return [*ssh_options(address), "-T", "--", address.host, remote]


def ssh_options(address: SSHAddress) -> list[str]:
    """Return the beginning of the command line: as whom, to which port, and how long to wait."""
    return [
        "ssh",
        *(["-l", address.user] if address.user else []),
        *(["-p", str(address.port)] if address.port else []),
        f"-o ConnectTimeout={limits.CONNECT_TIMEOUT:.0f}",
    ]


async def dial_ssh(address: SSHAddress, *, name: str, buildkitd: bool = False) -> trio.abc.HalfCloseableStream:
    """Start ssh; whether it gets through, the first read tells.

    Raises:
        ConnectError: there is no ssh here; the user must install it.

    Cancel: nothing runs.
    """
    if (address, buildkitd) in _without:
        return await _forward(address, name, buildkitd)
    hint = (_BUILDKITD_HINT if buildkitd else _HINT).format(target=ssh_target(address))
    stream = await open_command(ssh_argv(address, buildkitd=buildkitd), name=name, hint=hint)
    return SSHStream(stream, address, name=name, buildkitd=buildkitd)


async def _forward(address: SSHAddress, name: str, buildkitd: bool) -> trio.abc.HalfCloseableStream:
    from mobysession.transport.streamlocal import dial_forwarded  # only where it is needed: start-up

    return await dial_forwarded(address, name=name, buildkitd=buildkitd)


class SSHStream(trio.abc.HalfCloseableStream):
    """The stdio of a command on another host, or, where it is not there, the socket that it would have led to."""

    def __init__(
        self, stream: trio.abc.HalfCloseableStream, address: SSHAddress, *, name: str, buildkitd: bool
    ) -> None:
        self.transport_stream = stream
        self._address = address
        self._name = name
        self._buildkitd = buildkitd
        #: What was written before anything was read; None from then on, or where it has become too much.
        self._kept: bytearray | None = bytearray()
        self._ended = False
        self._failure: CommandNotConnected | None = None
        self._turn = trio.Lock()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read; raises as `mobysession.transport.command.CommandStream` does. Cancel: nothing is lost."""
        if self._failure is not None:
            raise self._failure
        stream = self.transport_stream
        try:
            data = await stream.receive_some(max_bytes)
        except CommandNotConnected as error:
            async with self._turn:
                if self._failure is not None:
                    raise self._failure from error
                if self.transport_stream is stream:
                    await self._go_around(error)
            data = await self.transport_stream.receive_some(max_bytes)
        self._kept = None
        return bytes(data)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of it. Cancel: any part may have been sent."""
        if self._failure is not None:
            raise self._failure
        if self._kept is None:
            await self.transport_stream.send_all(data)
            return
        async with self._turn:
            if self._kept is not None:
                self._kept = self._kept + data if len(self._kept) + len(data) <= limits.REMOTE_REPLAY else None
            try:
                await self.transport_stream.send_all(data)
            except CommandNotConnected as error:
                await self._go_around(error)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until ``send_all`` might not block."""
        await self.transport_stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        self._ended = True
        await self.transport_stream.send_eof()

    async def aclose(self) -> None:
        """Close it. Cancel: it is closed all the same."""
        await self.transport_stream.aclose()

    async def _go_around(self, error: CommandNotConnected) -> None:
        """Forward the socket instead and say again what was said; raise ``error`` where that makes no sense."""
        kept, self._kept = self._kept, None
        missing = error.status == _NOT_FOUND or any(words in error.message for words in _NOT_FOUND_WORDS)
        if kept is None or not missing:
            raise error
        _log.info("%s; forwarding its socket instead", error.message)
        try:
            forwarded = await _forward(self._address, self._name, self._buildkitd)
        except ConnectError as other:
            both = f"{error.message}; instead, {other.message.removeprefix(f'{self._name}: ')}"
            self._failure = CommandNotConnected(both, hint=" ".join(filter(None, [error.hint, other.hint])))
            raise self._failure from error
        old, self.transport_stream = self.transport_stream, forwarded
        await old.aclose()
        if len(_without) < limits.REMEMBERED_ENDPOINTS:
            _without.add((self._address, self._buildkitd))
        await self.transport_stream.send_all(kept)
        if self._ended:
            await self.transport_stream.send_eof()


def ssh_target(address: SSHAddress) -> str:
    """Return what to say to ssh by hand, to get where the command goes."""
    port = f"-p {address.port} " if address.port is not None else ""
    user = f"{address.user}@" if address.user is not None else ""
    return f"{port}{user}{address.host}"

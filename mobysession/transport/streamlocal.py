"""A unix socket of another host, forwarded to here by ssh: nothing but sshd is needed there.

``ssh -N -L HERE:THERE`` listens on a socket in a directory that only this user can enter. ssh runs its ``LocalCommand``
when it has logged in and listens: it says a word, so that nobody has to look again and again whether the socket is
there. Sharing a connection (ControlMaster) would leave the listening to another process, and the word unsaid.

``ssh -W`` would need no socket here, but knows only ports (OpenSSH 9.2).
(ssh(1), ssh_config(5); openssh-portable PROTOCOL section 2.4, direct-streamlocal)
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Final

import trio

from mobysession import limits
from mobysession.errors import ConnectError
from mobysession.transport.address import DEFAULT_SOCKET
from mobysession.transport.command import CommandLost, CommandNotConnected, open_command
from mobysession.transport.failure import reason_of
from mobysession.transport.ssh import ssh_options

if TYPE_CHECKING:
    from mobysession.transport.address import SSHAddress
    from mobysession.transport.command import CommandStream

__all__ = ["ForwardedStream", "dial_forwarded", "forward_argv"]

_BUILDKITD_SOCKET: Final = "/run/buildkit/buildkitd.sock"
#: How the forwarded socket is called here.
_SOCKET: Final = "daemon.sock"
_HINT: Final = (
    "Without that command there, sshd must forward sockets (AllowStreamLocalForwarding), and the daemon listen at"
    " {socket}; another path goes behind the host: ssh://HOST/PATH."
)
_OPTIONS: Final = ("ControlPath=none", "ExitOnForwardFailure=yes", "PermitLocalCommand=yes", "LocalCommand=echo ready")


def forward_argv(address: SSHAddress, here: str, there: str) -> list[str]:
    """Return the command line that forwards a socket and says a word when it does."""
    forward = ":".join(path.replace("\\", "\\\\").replace(":", "\\:") for path in (here, there))
    options = [word for option in _OPTIONS for word in ("-o", option)]
    return [*ssh_options(address), "-nNT", *options, "-L", forward, "--", address.host]


async def dial_forwarded(address: SSHAddress, *, name: str, buildkitd: bool = False) -> ForwardedStream:
    """Forward the daemon's socket and connect to it; whether the daemon is there, the first read tells.

    Raises:
        CommandNotConnected: ssh did not get through, or must not forward.
        ConnectError: there is no ssh here, or no place for its socket.

    Cancel: nothing runs, nothing stays on the disk.
    """
    there = address.socket or (_BUILDKITD_SOCKET if buildkitd else DEFAULT_SOCKET)
    hint = _HINT.format(socket=there)
    folder = await trio.to_thread.run_sync(_make_folder, name)
    command: CommandStream | None = None
    try:
        here = os.path.join(folder, _SOCKET)
        command = await open_command(forward_argv(address, here, there), name=name, hint=hint)
        with trio.move_on_after(limits.CONNECT_TIMEOUT):
            if await command.receive_some():
                # What is on stderr by now, such as a banner, says nothing of how the connection ends.
                greeting = command.last_words()
                stream = await _connect(here, name=name, hint=hint)
                return ForwardedStream(stream, command, folder, greeting, name=name, hint=hint)
        words = command.last_words() or "it did not say why"
        raise CommandNotConnected(f"{name}: ssh did not forward {there}: {words}", hint=hint)
    except BaseException:
        with trio.CancelScope(shield=True):
            if command is not None:
                await trio.aclose_forcefully(command)
            await trio.to_thread.run_sync(_remove, folder)
        raise


async def _connect(path: str, *, name: str, hint: str) -> trio.SocketStream:
    try:
        return await trio.open_unix_socket(path)
    except OSError as error:
        words = f"ssh forwards a socket to here, and it cannot be connected to: {reason_of(error)}"
        raise CommandNotConnected(f"{name}: {words}", hint=hint) from error


def _make_folder(name: str) -> str:
    try:
        folder = tempfile.mkdtemp(prefix="mobysession-ssh-")
    except OSError as error:
        raise ConnectError(
            f"{name}: no directory can be made for the forwarded socket: {reason_of(error)}",
            hint="Set TMPDIR to a directory that you can write to.",
        ) from error
    if len(os.fsencode(folder)) + 1 + len(_SOCKET) > limits.MAX_SOCKET_PATH:
        os.rmdir(folder)
        raise ConnectError(
            f"{name}: {folder} has too long a path for a forwarded socket", hint="Set TMPDIR to a shorter one."
        )
    return folder


def _remove(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)


class ForwardedStream(trio.abc.HalfCloseableStream):
    """A connection to a forwarded socket, and the ssh that forwards it; made by `dial_forwarded`."""

    def __init__(
        self, stream: trio.SocketStream, command: CommandStream, folder: str, greeting: str, *, name: str, hint: str
    ) -> None:
        self._stream = stream
        self._command = command
        self._folder: str | None = folder
        self._name = name
        self._hint = hint
        self._delivered = False
        self._greeting = greeting

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read. Cancel: nothing is lost.

        Raises:
            CommandNotConnected: ssh could not connect to the socket there.
            CommandLost: it was lost later.
        """
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except trio.BrokenResourceError as error:
            raise self._failure("was broken") from error
        if data:
            self._delivered = True
        elif not self._delivered or self._complaint():
            # ssh accepts first and tries then; what it found it says on stderr.
            raise self._failure("was closed")
        return data

    def _failure(self, how: str) -> CommandLost | CommandNotConnected:
        words = self._complaint() or "ssh did not say why"
        failure = CommandLost if self._delivered else CommandNotConnected
        return failure(f"{self._name}: the forwarded connection {how}: {words}", hint=self._hint)

    def _complaint(self) -> str:
        return self._command.last_words().removeprefix(self._greeting).strip()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of it. Cancel: any part may have been sent."""
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as error:
            raise self._failure("was broken") from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until ``send_all`` might not block."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the connection and end ssh. Cancel: the same, at once."""
        try:
            await self._stream.aclose()
            await self._command.aclose()
        finally:
            if self._folder is not None:
                folder, self._folder = self._folder, None
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(self._command)
                    await trio.to_thread.run_sync(_remove, folder)

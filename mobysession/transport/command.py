"""A byte stream through a child process: what it reads and writes is what the socket at its other end carries.

The child gets a session of its own, so that Ctrl-C in the terminal does not take the connection away before we have
closed it. Of its stderr the end is kept: that is where a remote shell, ssh or docker say what went wrong. The pipe for
it does not block, so that a talkative child loses words and not time.
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from mobysession import limits
from mobysession.errors import ConnectError, ConnectionLost
from mobysession.protocol.http1 import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["CommandLost", "CommandNotConnected", "CommandStream", "open_command"]

_GRACE = 0.2  # seconds for the child to pass on what was written last
_SHOWN = 1000  # bytes of its last words that fit into a message
_REAP = 1.0  # seconds until a killed child is given up: it hangs in the kernel then


class CommandNotConnected(ConnectError, trio.BrokenResourceError):
    """The command failed before it delivered a byte; for readers of a stream, the stream is broken.

    ``status`` is what it ended with, negative for a signal; None where that is not known.
    """

    status: int | None = None


class CommandLost(ConnectionLost, trio.BrokenResourceError):
    """The command failed in the middle; for readers of a stream, the stream is broken. ``status`` as above."""

    status: int | None = None


async def open_command(
    argv: Sequence[str], *, name: str, hint: str | None = None, env: Mapping[str, str] | None = None
) -> CommandStream:
    """Start a command and return the stream to it, which the caller owns.

    That it runs does not mean that it got through to anything: the first read tells.

    Args:
        argv: the program, found on PATH, and its arguments.
        name: what it leads to, for messages.
        hint: what a user can do when it fails.
        env: its environment; None: ours.

    Raises:
        ConnectError: it cannot be started; the message says why, the hint what the user can do.

    Cancel: it is not running.
    """
    pipes: list[int] = []
    try:
        for _ in range(3):
            pipes.extend(os.pipe())
        child_stdin, stdin, stdout, child_stdout, stderr, child_stderr = pipes
        os.set_blocking(stderr, False)
        os.set_blocking(child_stderr, False)
        process = await trio.lowlevel.open_process(
            argv, stdin=child_stdin, stdout=child_stdout, stderr=child_stderr, start_new_session=True, env=env
        )
    except OSError as error:
        _close(pipes)
        raise ConnectError(f"{name}: cannot run {argv[0]}: {error.strerror}", hint=_remedy(argv[0], error)) from error
    except BaseException:
        _close(pipes)
        raise
    _close([child_stdin, child_stdout, child_stderr])
    return CommandStream(process, stdin, stdout, stderr, name=name, hint=hint)


def _remedy(program: str, error: OSError) -> str | None:
    if error.errno == errno.ENOENT:
        return f"Install {program}."
    if error.errno == errno.EACCES:
        return f"Make {program} executable for you."
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "Close files, or raise the limit of open files (ulimit -n)."
    return None


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class CommandStream(trio.abc.HalfCloseableStream):
    """The two ends of a running command; made by ``open_command``."""

    def __init__(
        self, process: trio.Process, stdin: int, stdout: int, stderr: int, *, name: str, hint: str | None
    ) -> None:
        self._process = process
        self._stdin = trio.lowlevel.FdStream(stdin)
        self._stdout = trio.lowlevel.FdStream(stdout)
        self._stderr: int | None = stderr
        self._said = b""
        self._name = name
        self._hint = hint
        self._delivered = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read what the command wrote.

        Raises:
            CommandNotConnected: it failed, and its stderr says why.
            CommandLost: the same, after it had delivered something.
        """
        data = bytes(await self._stdout.receive_some(max_bytes))
        if data:
            self._delivered = True
            self._listen()
        else:
            await self._check()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write to the command; raises as ``receive_some`` does."""
        try:
            await self._stdin.send_all(data)
        except trio.BrokenResourceError:
            await self._check()
            raise

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until ``send_all`` might not block."""
        await self._stdin.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Close its stdin; what it still has to say can be read."""
        await self._stdin.aclose()

    async def aclose(self) -> None:
        """Close both ends and see the command off: a moment, SIGTERM, COMMAND_EXIT_TIMEOUT seconds, SIGKILL.

        Cancel: it is killed at once.
        """
        self._stdin.close()
        self._stdout.close()
        try:
            for patience, farewell in ((_GRACE, signal.SIGTERM), (limits.COMMAND_EXIT_TIMEOUT, signal.SIGKILL)):
                with trio.move_on_after(patience):
                    await self._process.wait()
                self._signal(farewell)
        finally:
            self._signal(signal.SIGKILL)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _REAP):
                await self._process.wait()
            if self._stderr is not None:
                os.close(self._stderr)
                self._stderr = None

    def last_words(self) -> str:
        """Return the end of what it has written to stderr, in one line; empty where it has not."""
        self._listen()
        return one_line(self._said[-_SHOWN:].decode("utf-8", "replace"))

    def _signal(self, number: signal.Signals) -> None:
        # The whole group: ssh may have started a proxy command.
        if self._process.returncode is None:
            with suppress(OSError):
                os.killpg(self._process.pid, number)

    def _listen(self) -> None:
        while self._stderr is not None:
            try:
                heard = os.read(self._stderr, limits.COMMAND_STDERR)
            except OSError:
                return
            if not heard:
                return
            self._said = (self._said + heard)[-limits.COMMAND_STDERR :]

    async def _check(self) -> None:
        """Raise when the command has failed; give it a moment to end, for what it says last says why."""
        with trio.move_on_after(limits.COMMAND_EXIT_TIMEOUT):
            await self._process.wait()
        status = self._process.returncode
        if not status:
            return
        failure = CommandLost if self._delivered else CommandNotConnected
        words = self.last_words() or "it did not say why"
        ended = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
        error = failure(f"{self._name}: the command {ended}: {words}", hint=self._hint)
        error.status = status
        raise error

"""Cancelling at every checkpoint: nothing hangs, nothing stays open, and what was finished is whole."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
import trio

from mobysession.transport.api import EngineApi
from mobysession.transport.command import open_command
from mobysession.transport.dial import dial
from mobysession.transport.hijack import hijack

if TYPE_CHECKING:
    from mobysession.transport.endpoint import Endpoint
    from tests.transport.conftest import Certificates, Daemon, Serve


def has_children() -> bool:
    """Whether a process of ours runs, or has ended and was not seen off."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


Operation = Callable[["Endpoint"], Awaitable[object]]
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 2\r\n\r\n{}"


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope before the n-th step of the task that entered it."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, steps: int) -> None:
        self._task = task
        self._scope = scope
        self._left = steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count down."""
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


async def open_and_close(endpoint: Endpoint) -> None:
    async with await dial(endpoint):
        pass


async def hijack_and_read(endpoint: Endpoint) -> None:
    async with await hijack(endpoint, "/session") as stream:
        await stream.receive_some()


async def ask(endpoint: Endpoint) -> None:
    await EngineApi(endpoint).version()


async def at_every_step(endpoint: Endpoint, operation: Operation, most: int) -> int:
    """Run the operation until it gets through; return how many times it was cancelled before."""
    for steps in range(1, most):
        before = len(os.listdir("/proc/self/fd"))
        with trio.fail_after(5), trio.CancelScope() as scope:
            instrument = CancelAtStep(trio.lowlevel.current_task(), scope, steps)
            trio.lowlevel.add_instrument(instrument)
            try:
                await operation(endpoint)
            finally:
                trio.lowlevel.remove_instrument(instrument)
        if not scope.cancelled_caught:
            return steps
        with trio.fail_after(5):
            while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110 - the server closes its end when it sees ours
                await trio.sleep(0.001)
    pytest.fail("never got through")


@pytest.mark.parametrize("operation", [open_and_close, hijack_and_read, ask])
async def test_on_a_socket(serve: Serve, daemon: Daemon, operation: Operation) -> None:
    """Over a unix socket every step can be the last."""
    answer = ACCEPTED + b"x" if operation is hijack_and_read else OK
    async with serve(daemon.answer(answer[:20], answer[20:])) as endpoint:
        assert await at_every_step(endpoint, operation, 100) > 2


@pytest.mark.parametrize("operation", [open_and_close, hijack_and_read, ask])
async def test_in_tls(serve_tcp: Serve, daemon: Daemon, certificates: Certificates, operation: Operation) -> None:
    """Over TLS the handshake and the loading of files have steps of their own."""
    answer = ACCEPTED + b"x" if operation is hijack_and_read else OK
    server = certificates.server(demand=True)
    async with serve_tcp(daemon.answer(answer), tls=certificates.client(), server=server) as endpoint:
        assert await at_every_step(endpoint, operation, 100) > 4


async def test_of_a_command(serve: Serve, daemon: Daemon) -> None:
    """Starting, using and closing a command can be cancelled at every step; no process stays."""

    async def use(_: Endpoint) -> None:
        async with await open_command(["cat"], name="cat") as stream:
            await stream.send_all(b"x")
            await stream.receive_some()

    async with serve(daemon.answer()) as endpoint:
        assert await at_every_step(endpoint, use, 100) > 4
    assert not has_children()

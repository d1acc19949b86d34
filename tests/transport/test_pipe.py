"""Named pipes of Windows, as far as they are not Windows: the port below is a socket pair."""

from __future__ import annotations

import os
import socket

import pytest
import trio
import trio.testing

from mobysession import errors
from mobysession.transport.dial import dial
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.pipe import PipeStream, dial_pipe

PATH = r"\\.\pipe\docker_engine"


def failure(number: int) -> OSError:
    error = OSError(0, f"error {number} of Windows")
    error.winerror = number  # type: ignore[attr-defined]  # where Windows has it
    return error


class Port:
    """Windows with one pipe: ``refusals`` are what opening it says first."""

    def __init__(self, *refusals: int) -> None:
        self.opened: list[str] = []
        self.refusals = list(refusals)
        self.far, self._near = socket.socketpair()
        self._near.setblocking(False)
        self._broken: int | None = None

    def open(self, path: str) -> int:
        self.opened.append(path)
        if self.refusals:
            raise failure(self.refusals.pop(0))
        return self._near.fileno()

    async def read(self, handle: int, buffer: bytearray) -> int:
        try:
            await trio.lowlevel.wait_readable(handle)
        except trio.ClosedResourceError:
            raise failure(995) from None
        data = os.read(handle, len(buffer))
        if not data:
            raise failure(self._broken or 109)
        buffer[: len(data)] = data
        return len(data)

    async def write(self, handle: int, data: bytes | memoryview) -> int:
        await trio.lowlevel.wait_writable(handle)
        if self._broken is not None:
            raise failure(self._broken)
        return os.write(handle, data[:3])

    def close(self, handle: int) -> None:
        trio.lowlevel.notify_closing(handle)
        self.end()

    def end(self) -> None:
        self._near.close()
        self.far.close()

    def break_with(self, number: int) -> None:
        self._broken = number
        self.far.close()


async def open_pipe(port: Port) -> PipeStream:
    return await dial_pipe(PATH, name="npipe:////./pipe/docker_engine (--host)", port=port)


async def test_a_pipe_is_a_stream() -> None:
    """Bytes go both ways, also where a write takes only a part; the other side's closing is the end."""
    port = Port()
    async with await open_pipe(port) as stream:
        assert port.opened == [PATH]
        await stream.send_all(b"hello world")
        assert port.far.recv(100) == b"hello world"
        port.far.send(b"answer")
        assert await stream.receive_some(3) == b"ans"
        assert await stream.receive_some() == b"wer"
        await stream.wait_send_all_might_not_block()
        with pytest.raises(ValueError, match="max_bytes"):
            await stream.receive_some(0)
        port.far.close()
        assert await stream.receive_some() == b""
    for use in (stream.receive_some(), stream.send_all(b"x"), stream.wait_send_all_might_not_block()):
        with pytest.raises(trio.ClosedResourceError):
            await use
    await stream.aclose()


async def test_closing_wakes_a_reader() -> None:
    """Who waits for bytes hears that the pipe was closed."""
    stream = await open_pipe(Port())

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()


async def test_a_pipe_that_breaks_is_a_broken_stream() -> None:
    """The words of Windows are in the error."""
    port = Port()
    async with await open_pipe(port) as stream:
        port.break_with(59)
        with pytest.raises(trio.BrokenResourceError, match="error 59 of Windows"):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="error 59 of Windows"):
            await stream.send_all(b"x")


async def test_a_busy_pipe_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """Its places are free again soon; one that stays busy is given up."""
    port = Port(231, 231)
    async with await open_pipe(port):
        assert len(port.opened) == 3
    stuck = Port(*[231] * 10_000)
    with pytest.raises(errors.ConnectError, match="busy for 30 seconds"):
        await open_pipe(stuck)
    stuck.end()


@pytest.mark.parametrize(
    ("number", "words", "hint"), [(2, "no pipe", "running"), (5, "no permission", "docker-users"), (53, "error 53", "")]
)
async def test_a_pipe_that_cannot_be_opened_is_told(number: int, words: str, hint: str) -> None:
    """The endpoint is named, and what the user can do."""
    port = Port(number)
    with pytest.raises(errors.ConnectError, match=words) as caught:
        await open_pipe(port)
    port.end()
    assert "npipe:////./pipe/docker_engine (--host)" in str(caught.value)
    assert hint in (caught.value.hint or "")


@pytest.mark.skipif(os.name == "nt", reason="there are pipes there")
async def test_elsewhere_there_are_no_pipes() -> None:
    """The address is understood, and dialling it says what to name instead."""
    with pytest.raises(errors.ConnectError, match="on Windows only") as caught:
        await dial(Endpoint.parse("npipe:////./pipe/docker_engine"))
    assert "unix://" in (caught.value.hint or "")

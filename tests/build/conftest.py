"""A directory to build, and builds on the fake daemon."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio

from mobysession.concurrency import open_nursery
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Answering = Callable[["HttpAnswer"], AbstractAsyncContextManager[Endpoint]]

DOCKERFILE = """\
FROM scratch
COPY hello.txt /hello.txt
RUN --mount=type=secret,id=token cat /run/secrets/token
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Give a build context: a Dockerfile that copies a file and mounts a secret."""
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / "hello.txt").write_text("hello")
    return directory


class HttpAnswer:
    """A server that reads one request a connection and sends these pieces, then closes unless told to stay."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.stay = False
        self.requests: list[bytes] = []

    def json_lines(self, *lines: bytes, whole: bool = True) -> None:
        """Answer 200 with these lines, a chunk each; not ``whole``: without the end of the answer."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = [b"%x\r\n%s\r\n\r\n" % (len(line) + 2, line) for line in lines]
        self.pieces = [head, *chunks, *([b"0\r\n\r\n"] if whole else [])]

    def error(self, status: bytes, body: bytes) -> None:
        """Answer with an error."""
        fields = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.pieces = [b"HTTP/1.1 " + status + b"\r\n" + fields + body]

    async def handle(self, stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += bytes(await stream.receive_some())
            self.requests.append(head)
            with suppress(trio.BrokenResourceError):
                for piece in self.pieces:
                    await stream.send_all(piece)
            if self.stay:
                with suppress(trio.BrokenResourceError):
                    await stream.receive_some()


@pytest.fixture
def answer() -> HttpAnswer:
    """Give the answer of a server, to be filled in."""
    return HttpAnswer()


@pytest.fixture
def answering() -> Answering:
    """Give ``answering(answer)``, a context manager that gives the endpoint."""
    return _answering


@asynccontextmanager
async def _answering(answer: HttpAnswer) -> AsyncIterator[Endpoint]:
    """Let ``answer`` listen on a unix socket for the length of the block."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/docker.sock"
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await sock.bind(path)
        sock.listen()
        async with open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, answer.handle, [trio.SocketListener(sock)])
            yield Endpoint.parse(f"unix://{path}")
            nursery.cancel_scope.cancel()

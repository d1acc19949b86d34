"""Upload: the daemon fetches a stream of ours as if it were at a URL.

A build whose context, or Dockerfile, is a stream names a URL that only this session can answer,
``http://buildkit-session/<id>``. The daemon's HTTP source knows the host, and calls ``Pull`` instead of fetching. A
stream can be read once, so each upload is answered once; a tar becomes the context, anything else the Dockerfile.

Source: moby/buildkit session/upload.
"""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

import trio

from mobysession import limits
from mobysession.errors import ContextError, RpcError, StatusCode, UsageError
from mobysession.identity import new_id
from mobysession.services.bytes_message import encode_bytes_message

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall

__all__ = ["PULL", "Body", "Readable", "Upload"]

PULL: Final = "/moby.upload.v1.Upload/Pull"
_URL: Final = "http://buildkit-session/"


@runtime_checkable
class Readable(Protocol):
    """A binary file object: anything with ``read``; ``read1`` is preferred where it is there."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, at least one; none at the end."""


#: What can be uploaded: bytes; a file by its path; a binary file object, a trio stream or pieces from an asynchronous
#: iterable, which are left to the caller to close.
Body: TypeAlias = bytes | str | os.PathLike[str] | Readable | trio.abc.ReceiveStream | AsyncIterable[bytes]


class Upload:
    """Give the daemon streams, each once.

    Attributes:
        sent: bytes sent of each upload, by its URL; what was not asked for is not in it.
    """

    def __init__(self) -> None:
        self._bodies: dict[str, Body] = {}
        self.sent: dict[str, int] = {}

    def add(self, body: Body) -> str:
        """Offer ``body`` and return its URL, to be named in a build on this session.

        Raises:
            UsageError: it is nothing that can be read; the caller must change it.
        """
        _check(body)
        upload_id = new_id()
        self._bodies[upload_id] = body
        return _URL + upload_id

    def register(self, registrar: Registrar) -> None:
        """Host the one method of the service."""
        registrar.stream(PULL, self._pull)

    async def _pull(self, call: ServerCall) -> None:
        upload_id = _base_name(next(iter(call.values("urlpath")), ""))
        body = self._bodies.pop(upload_id, None)
        if body is None:
            raise RpcError(StatusCode.UNKNOWN, f"no http response from session for {upload_id}")
        url = _URL + upload_id
        self.sent[url] = 0
        async with aclosing(_pieces(body)) as pieces:
            async for piece in pieces:
                await call.send(encode_bytes_message(piece))
                self.sent[url] += len(piece)


def _check(body: object) -> None:
    if isinstance(body, io.TextIOBase):
        raise UsageError("a text file cannot be uploaded: open it in binary mode")
    if not isinstance(body, bytes | str | os.PathLike | Readable | trio.abc.ReceiveStream | AsyncIterable):
        raise UsageError(
            f"{type(body).__name__} cannot be uploaded",
            hint="Give bytes, a path, a binary file object, a trio stream or an asynchronous iterable of bytes.",
        )


def _base_name(path: str) -> str:
    """Return the last component as Go's path.Base does: ``.`` of nothing, ``/`` of slashes only."""
    return (path.rstrip("/").rpartition("/")[2] or "/") if path else "."


async def _pieces(body: Body) -> AsyncGenerator[memoryview, None]:
    """Yield the content in pieces that fit into a message."""
    async with _opened(body) as pieces:
        async for piece in pieces:
            view = memoryview(piece)
            for start in range(0, len(view), limits.UPLOAD_CHUNK):
                yield view[start : start + limits.UPLOAD_CHUNK]


@asynccontextmanager
async def _opened(body: Body) -> AsyncIterator[AsyncIterable[bytes | bytearray]]:
    if isinstance(body, bytes):
        yield _once(body)
    elif isinstance(body, str | os.PathLike):
        try:
            file = await trio.to_thread.run_sync(io.FileIO, os.fspath(body))
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise _cannot_read(repr(os.fspath(body)), error) from error
        with file:
            async with aclosing(_read(file, repr(os.fspath(body)), abandon=False)) as pieces:
                yield pieces
    elif isinstance(body, AsyncIterable):  # a trio stream is one too
        yield body
    else:
        # A pipe may never have more to say: on cancellation the thread is left alone, the build is not.
        async with aclosing(_read(body, "what is to be uploaded", abandon=True)) as pieces:
            yield pieces


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _read(file: Readable, name: str, *, abandon: bool) -> AsyncGenerator[bytes, None]:
    # A read that returns what there is keeps a slow pipe flowing.
    read: Callable[[int], bytes] = getattr(file, "read1", None) or file.read
    while True:
        try:
            piece = await trio.to_thread.run_sync(read, limits.UPLOAD_CHUNK, abandon_on_cancel=abandon)
        except OSError as error:
            raise _cannot_read(name, error) from error
        if not piece:
            return
        yield piece


def _cannot_read(name: str, error: Exception) -> ContextError:
    reason = (error.strerror or type(error).__name__).lower() if isinstance(error, OSError) else str(error)
    return ContextError(f"{name} cannot be read: {reason}")

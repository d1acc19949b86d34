"""The Upload service, called as a daemon calls it, and the message in which streams travel."""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from mobysession import limits
from mobysession.errors import ContextError, RemoteProtocolError, RpcError, StatusCode, UsageError
from mobysession.services.bytes_message import decode_bytes_message, encode_bytes_message
from mobysession.services.upload import PULL, Upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from mobysession.rpc.client import Channel
    from tests.services.conftest import Ended

    OpenService = Callable[..., AbstractAsyncContextManager[Channel]]


async def pull(channel: Channel, url: str) -> list[bytes]:
    """Fetch an upload as a daemon does, which never closes its side; return its pieces."""
    path = url.removeprefix("http://buildkit-session")
    pieces: list[bytes] = []
    async with channel.open_call(PULL, metadata=[("urlpath", path), ("urlhost", "buildkit-session")]) as call:
        while messages := await call.receive_batch():
            pieces += [bytes(decode_bytes_message(message)) for message in messages]
    return pieces


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        await trio.lowlevel.checkpoint()
        yield content[start : start + 1000]


@pytest.mark.parametrize("kind", ["bytes", "path", "file", "raw", "iterable", "stream"])
async def test_a_stream_is_pulled_once(tmp_path: Path, open_service: OpenService, kind: str) -> None:
    """Whatever it comes from, all of it arrives; a second pull is refused, as the reference does it."""
    content = os.urandom(10_000)
    (tmp_path / "file").write_bytes(content)
    ours, theirs = trio.testing.memory_stream_one_way_pair()
    bodies: dict[str, Any] = {
        "bytes": content,
        "path": tmp_path / "file",
        "file": io.BytesIO(content),
        "raw": io.FileIO(tmp_path / "file"),
        "iterable": _pieces(content),
        "stream": theirs,
    }
    service = Upload()
    url = service.add(bodies[kind])
    async with open_service(service) as channel, trio.open_nursery() as nursery:
        if kind == "stream":
            nursery.start_soon(_send, ours, content)
        assert b"".join(await pull(channel, url)) == content
        with pytest.raises(RpcError, match="no http response from session for " + url.rpartition("/")[2]) as caught:
            await pull(channel, url)
    assert caught.value.code is StatusCode.UNKNOWN
    assert service.sent == {url: 10_000}
    bodies["raw"].close()


async def _send(stream: trio.abc.SendStream, content: bytes) -> None:
    async with stream:
        await stream.send_all(content)


async def test_large_bodies_go_in_messages_that_daemons_take(open_service: OpenService) -> None:
    """No message is over 3 MiB, and an empty body is none at all."""
    service = Upload()
    large, empty = service.add(b"x" * (2 * limits.UPLOAD_CHUNK + 5)), service.add(b"")
    async with open_service(service) as channel:
        assert [len(piece) for piece in await pull(channel, large)] == [limits.UPLOAD_CHUNK, limits.UPLOAD_CHUNK, 5]
        assert await pull(channel, empty) == []


@pytest.mark.parametrize(
    ("path", "name"), [("/nope", "nope"), ("/a/b/nope/", "nope"), ("", "."), ("/", "/"), ("nope", "nope")]
)
async def test_what_was_not_offered_is_refused(open_service: OpenService, path: str, name: str) -> None:
    """Uploads are known by the last component of the path."""
    async with open_service(Upload()) as channel:
        with pytest.raises(RpcError, match=f"no http response from session for {name}$"):
            await pull(channel, path)


async def test_a_directory_in_the_path_is_no_hindrance(open_service: OpenService) -> None:
    """Only the base name counts, as in the reference."""
    service = Upload()
    url = service.add(b"x")
    async with open_service(service) as channel:
        assert await pull(channel, "/some/where/" + url.rpartition("/")[2]) == [b"x"]


class Broken(io.RawIOBase):
    """A file that cannot be read."""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("/no/such/file", "'/no/such/file' cannot be read: no such file or directory"),
        ("a\0b", "cannot be read: embedded null byte"),
        ("/", "'/' cannot be read: is a directory"),
        (Broken(), "what is to be uploaded cannot be read: input/output error"),
    ],
)
async def test_what_cannot_be_read_is_named(open_service: OpenService, ended: Ended, body: Any, words: str) -> None:
    """To the daemon and in our own error."""
    service = Upload()
    url = service.add(body)
    async with open_service(service) as channel:
        with pytest.raises(RpcError, match=words):
            await pull(channel, url)
    assert isinstance(ended[0][2], ContextError)


@pytest.mark.parametrize("body", [5, io.StringIO("x"), None])
def test_what_is_no_stream_of_bytes_is_refused_at_once(body: Any) -> None:
    """The caller hears of it, not the daemon."""
    with pytest.raises(UsageError, match="cannot be uploaded"):
        Upload().add(body)


async def test_a_pull_that_is_given_up_leaves_a_blocked_reader_behind(open_service: OpenService) -> None:
    """A pipe that has nothing to say does not hold up the end of the session."""
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe, open(writing, "wb") as writer:  # noqa: ASYNC230 - of pipes that are there
        service = Upload()
        url = service.add(pipe)
        with trio.fail_after(5):
            async with open_service(service) as channel, channel.open_call(PULL, metadata=[("urlpath", url)]) as call:
                writer.write(b"first")
                writer.flush()
                assert bytes(decode_bytes_message((await call.receive()) or b"")) == b"first"
        # The thread waits for this; left alone it would read from whatever gets the number of the pipe next.
        writer.close()
        await trio.lowlevel.checkpoint()


@given(st.binary(max_size=500))
def test_messages_survive(content: bytes) -> None:
    """What is encoded is decoded, and unknown fields around it are skipped."""
    message = encode_bytes_message(content)
    assert decode_bytes_message(message) == content
    noise = b"\x10\x96\x01" + b"\x1a\x03abc" + b"\x25aaaa" + b"\x29aaaaaaaa"
    assert decode_bytes_message(noise + message + noise) == content


@given(st.binary(max_size=30))
def test_any_bytes_are_a_message_or_refused(message: bytes) -> None:
    """Nothing else is raised, whatever a peer sends."""
    with contextlib.suppress(RemoteProtocolError):
        assert len(decode_bytes_message(message)) <= len(message)

"""The FileSend service, called as a daemon calls it."""

from __future__ import annotations

import functools
import io
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from mobysession._pb.fsutil_pb2 import Packet, Stat
from mobysession.errors import (
    DiskFull,
    OutputError,
    OutputLimitExceeded,
    RpcError,
    StatusCode,
    UnsupportedByEngine,
    UsageError,
)
from mobysession.filesync import Directory, ReceiveLimits, send_tree
from mobysession.services.bytes_message import encode_bytes_message
from mobysession.services.filesend import FILE_SEND, DirectoryTarget, FileSend, FileTarget, ReceivedOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from mobysession.rpc.client import Channel
    from tests.services.conftest import Ended

    OpenService = Callable[..., AbstractAsyncContextManager[Channel]]


async def send_file(channel: Channel, *chunks: bytes, metadata: Mapping[str, str] = {}) -> None:
    """Send an output of chunks to its end, and wait for our OK."""
    async with channel.open_call(FILE_SEND, metadata=list(metadata.items())) as call:
        for chunk in chunks:
            await call.send(encode_bytes_message(chunk))
        await call.end()
        while await call.receive_batch():
            pass


async def send_directory(channel: Channel, directory: Path, *, metadata: Mapping[str, str] = {}) -> None:
    """Send a tree as a daemon does: it never closes its side, and goes away after FIN."""
    async with channel.open_call(FILE_SEND, metadata=list(metadata.items())) as call:
        await send_tree(call, Directory(directory), reset_owner=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Give a small tree."""
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "tree" / "empty").touch()
    return tmp_path / "tree"


# -- where a stream of bytes goes --------------------------------------------------------------------------------------


async def test_a_file_appears_complete(tmp_path: Path, open_service: OpenService) -> None:
    """It is in place before our OK, with the modes of any new file; metadata and size are in the report."""
    target = tmp_path / "out.tar"
    service = FileSend([FileTarget(target)])
    os.umask(mask := os.umask(0))
    async with open_service(service) as channel:
        metadata = {"exporter-md-containerimage.digest": "sha256:1", "exporter-md-image.name": "a", "other": "x"}
        await send_file(channel, b"one ", b"", b"two" * 1000, metadata=metadata)
        assert target.read_bytes() == b"one " + b"two" * 1000
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask
    assert service.received == [
        ReceivedOutput(
            exporter=0,
            path=str(target),
            size=3004,
            metadata={"containerimage.digest": "sha256:1", "image.name": "a"},
            complete=True,
        )
    ]
    assert service.missing == []
    assert os.listdir(tmp_path) == ["out.tar"]


async def test_an_output_that_breaks_off_leaves_the_file_as_it_was(tmp_path: Path, open_service: OpenService) -> None:
    """What was there is untouched, and what had come is gone."""
    target = tmp_path / "out"
    target.write_bytes(b"before")
    begun = trio.Event()
    service = FileSend([FileTarget(str(target))], on_progress=lambda _: begun.set())
    async with open_service(service) as channel, channel.open_call(FILE_SEND) as call:
        await call.send(encode_bytes_message(b"half"))
        await begun.wait()
        assert len(os.listdir(tmp_path)) == 2
    assert os.listdir(tmp_path) == ["out"]
    assert target.read_bytes() == b"before"
    assert service.missing == [0]


async def test_a_file_that_is_replaced_keeps_its_mode_and_its_links(tmp_path: Path, open_service: OpenService) -> None:
    """A link stays one and what it leads to is replaced, permissions included."""
    (tmp_path / "real").write_bytes(b"before")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    async with open_service(FileSend([FileTarget(tmp_path / "link")])) as channel:
        await send_file(channel, b"after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"after"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640


async def test_a_pipe_is_written_to(tmp_path: Path, open_service: OpenService) -> None:
    """What is no file is not replaced by one."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with open_service(FileSend([FileTarget(tmp_path / "pipe")])) as channel:
            await send_file(channel, b"through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert os.listdir(tmp_path) == ["pipe"]


async def test_a_file_object_is_written_and_stays_open(open_service: OpenService) -> None:
    """Everything arrives, in order, and is flushed; a second output for the same object is refused."""
    raw = io.BytesIO()
    buffered = io.BufferedWriter(raw, 10**6)
    async with open_service(FileSend({3: FileTarget(buffered)})) as channel:
        metadata = {"buildkit-attachable-exporter-id": "3"}
        await send_file(channel, *(b"%d," % number for number in range(1000)), metadata=metadata)
        assert raw.getvalue() == b"".join(b"%d," % number for number in range(1000))
        with pytest.raises(RpcError, match="exporter 3 was sent already") as caught:
            await send_file(channel, b"more", metadata=metadata)
        assert caught.value.code is StatusCode.FAILED_PRECONDITION
    assert not buffered.closed


class Grudging(io.RawIOBase):
    """An unbuffered file that takes a few bytes at a time."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.taken += bytes(data)[:7]
        return min(7, len(data))


async def test_an_unbuffered_file_gets_all_of_it(open_service: OpenService) -> None:
    """What was not taken is offered again."""
    target = Grudging()
    async with open_service(FileSend([FileTarget(target)])) as channel:
        await send_file(channel, b"0123456789" * 5)
    assert bytes(target.taken) == b"0123456789" * 5


async def test_a_trio_stream_is_sent_to(open_service: OpenService) -> None:
    """It stays open: it is the caller's."""
    ours, theirs = trio.testing.memory_stream_one_way_pair()
    async with open_service(FileSend([FileTarget(ours)])) as channel:
        await send_file(channel, b"one", b"two")
    assert await theirs.receive_some(100) == b"onetwo"
    await ours.send_all(b"more")


@pytest.mark.parametrize("way", ["sync", "async", "no arguments", "class"])
async def test_a_function_says_where_it_goes(tmp_path: Path, open_service: OpenService, way: str) -> None:
    """It is called with the exporter's metadata when the output comes; what it returns is closed in the end."""
    made: list[Kept] = []

    class Kept(io.BytesIO):
        content = b""

        def __init__(self, metadata: Mapping[str, str] | None = None) -> None:
            super().__init__()
            self.metadata = metadata
            made.append(self)

        def close(self) -> None:
            self.content = self.getvalue()
            super().close()

    async def asynchronous(metadata: Mapping[str, str]) -> Kept:
        await trio.lowlevel.checkpoint()
        return Kept(metadata)

    functions: dict[str, Any] = {
        "sync": lambda metadata: Kept(metadata),
        "async": asynchronous,
        "no arguments": lambda: Kept({"image.name": "x"}),
        "class": Kept,
    }
    service = FileSend([FileTarget(functions[way])])
    async with open_service(service) as channel:
        assert not made
        await send_file(channel, b"content", metadata={"exporter-md-image.name": "x"})
    (kept,) = made
    assert (kept.content, kept.closed) == (b"content", True)
    assert kept.metadata == ({"image.name": "x"} if way in ("sync", "async", "no arguments") else None)


async def test_a_function_may_name_a_path(tmp_path: Path, open_service: OpenService) -> None:
    """As by the digest of the image that comes."""
    target = FileTarget(lambda metadata: tmp_path / metadata["containerimage.digest"])
    async with open_service(FileSend([target])) as channel:
        await send_file(channel, b"x", metadata={"exporter-md-containerimage.digest": "abc"})
    assert (tmp_path / "abc").read_bytes() == b"x"


async def test_a_function_may_decline(open_service: OpenService) -> None:
    """The daemon is told that it is there already, which is a success for images; then none is missing."""
    service = FileSend([FileTarget(lambda: None)])
    async with open_service(service) as channel:
        with pytest.raises(RpcError, match="target already exists") as caught:
            await send_file(channel, b"x")
    assert caught.value.code is StatusCode.ALREADY_EXISTS
    assert (service.received, service.missing) == ([], [])


@pytest.mark.parametrize("taken", [0, -1])
async def test_a_file_object_that_takes_nothing_is_an_error(open_service: OpenService, taken: int) -> None:
    """It is not asked for ever, in a thread that nobody can end."""

    class Full(Grudging):
        def write(self, data: Any) -> int:
            return taken

    async with open_service(FileSend([FileTarget(Full())])) as channel:
        with pytest.raises(RpcError, match=r"cannot be written: its write\(\) takes nothing"):
            await send_file(channel, b"x")


def _fails() -> None:
    raise RuntimeError("a secret")


def _returns(what: Any) -> Callable[[], Any]:
    return lambda: what


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (FileTarget("/nowhere/at/all"), "'/nowhere/at/all' cannot be written: no such file or directory"),
        (FileTarget("/dev"), "'/dev' cannot be written: is a directory"),
        (FileTarget("x\0y"), "cannot be written: embedded null byte"),
        (FileTarget(_fails), "the function for the output of exporter 0 failed with RuntimeError"),
        (FileTarget(_returns(5)), "the output of exporter 0 cannot be written to int"),
        (FileTarget(_returns(io.StringIO())), "the output of exporter 0 cannot be written to StringIO"),
    ],
)
async def test_a_target_that_cannot_be_written_is_named(
    open_service: OpenService, ended: Ended, target: FileTarget, words: str
) -> None:
    """To the daemon and in our own error, which never repeats a stranger's words."""
    async with open_service(FileSend([target])) as channel:
        with pytest.raises(RpcError) as caught:
            await send_file(channel, b"x")
    assert words in caught.value.message
    assert "secret" not in caught.value.message
    assert ended[0][2] is not None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
async def test_a_full_disk_is_told_as_one(open_service: OpenService, ended: Ended) -> None:
    """Also where it shows only when an object is flushed."""
    with open("/dev/full", "wb") as full:  # noqa: ASYNC230 - a device does not block
        service = FileSend([FileTarget("/dev/full"), FileTarget(full)])
        async with open_service(service) as channel:
            for number, name in (("0", "'/dev/full'"), ("1", "the output of exporter 1")):
                with pytest.raises(RpcError, match=f"{name} cannot be written: no space left on device"):
                    await send_file(channel, b"x", metadata={"buildkit-attachable-exporter-id": number})
        full.raw.close()
    assert [type(error) for _, _, error in ended] == [DiskFull, DiskFull]


async def test_an_output_over_its_limit_is_refused(tmp_path: Path, open_service: OpenService, ended: Ended) -> None:
    """The error names the limit; nothing of it stays."""
    async with open_service(FileSend([FileTarget(tmp_path / "x", size=10)])) as channel:
        with pytest.raises(RpcError, match="size is 10 bytes"):
            await send_file(channel, b"x" * 6, b"y" * 6)
    assert isinstance(ended[0][2], OutputLimitExceeded)
    assert os.listdir(tmp_path) == []


# -- which target ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "0"), ("", "0"), ("x", "0"), ("1", "1"), ("+1", "1"), ("1.0", "0"), ("²", "0")],
)
async def test_the_target_is_chosen_by_the_exporters_index(
    tmp_path: Path, open_service: OpenService, value: str | None, expected: str
) -> None:
    """No index, or none that is a number, is the first: engines before BuildKit 0.13 name none."""
    service = FileSend([FileTarget(tmp_path / "0"), FileTarget(tmp_path / "1")])
    async with open_service(service) as channel:
        metadata = {} if value is None else {"buildkit-attachable-exporter-id": value}
        if value != "²":  # no header can hold it; a peer that tries is refused elsewhere
            await send_file(channel, b"x", metadata=metadata)
            assert os.listdir(tmp_path) == [expected]


@pytest.mark.parametrize("value", ["1", "-1", "99999999999"])
async def test_an_exporter_that_was_not_given_is_refused(open_service: OpenService, value: str) -> None:
    """Only what was asked for is taken."""
    async with open_service(FileSend([FileTarget(io.BytesIO())])) as channel:
        with pytest.raises(RpcError, match=f"exporter {value} not found") as caught:
            await send_file(channel, b"x", metadata={"buildkit-attachable-exporter-id": value})
    assert caught.value.code is StatusCode.UNKNOWN


async def test_several_outputs_of_one_solve(tmp_path: Path, tree: Path, open_service: OpenService) -> None:
    """A tree and streams side by side, each to its own target, at the same time."""
    stream = io.BytesIO()
    service = FileSend(
        {0: DirectoryTarget(path=tmp_path / "out"), 1: FileTarget(stream), 2: FileTarget(tmp_path / "file")}
    )
    async with open_service(service) as channel, trio.open_nursery() as nursery:
        for number, content in (("1", b"one"), ("2", b"two")):
            metadata = {"buildkit-attachable-exporter-id": number}
            nursery.start_soon(functools.partial(send_file, channel, content, metadata=metadata))
        nursery.start_soon(send_directory, channel, tree)
    assert (stream.getvalue(), (tmp_path / "file").read_bytes()) == (b"one", b"two")
    assert (tmp_path / "out" / "sub" / "file").read_bytes() == b"x" * 100_000
    assert {output.exporter for output in service.received} == {0, 1, 2}
    assert all(output.complete for output in service.received)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (5, "is a DirectoryTarget or a FileTarget"),
        (FileTarget(5), "cannot go to int"),  # type: ignore[arg-type]  # that is the point
        (FileTarget(io.StringIO()), "cannot go to a text file"),  # type: ignore[arg-type]  # likewise
        (FileTarget(divmod), "takes more than the metadata"),
    ],
)
def test_what_is_no_target_is_refused_at_once(target: Any, words: str) -> None:
    """The caller hears of it when the service is made, not in the middle of a build."""
    with pytest.raises(UsageError, match=words):
        FileSend([target])


# -- trees -------------------------------------------------------------------------------------------------------------


async def test_a_tree_is_merged_into_a_directory(tmp_path: Path, tree: Path, open_service: OpenService) -> None:
    """A missing directory is made for us alone; what is there stays; files are asked for even if they look the same."""
    target = tmp_path / "a" / "b"
    told: list[ReceivedOutput] = []
    service = FileSend([DirectoryTarget(path=target)], on_progress=told.append)
    async with open_service(service) as channel:
        await send_directory(channel, tree)
        assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(target.parent.stat().st_mode) == 0o700
        (target / "more").touch()
        (target / "sub" / "file").write_bytes(b"y" * 100_000)
        stamp = (tree / "sub" / "file").stat().st_mtime_ns
        os.utime(target / "sub" / "file", ns=(stamp, stamp))
        await send_directory(channel, tree)
    assert (target / "sub" / "file").read_bytes() == b"x" * 100_000
    assert sorted(os.listdir(target)) == ["empty", "more", "sub"]
    assert (target / "empty").stat().st_uid == os.geteuid()
    first, second = service.received
    assert (first.path, first.size, first.complete) == (str(target), 100_000, True)
    assert second.tree is not None
    assert (second.tree.entries, second.tree.requested, second.tree.removed) == (3, 2, 0)
    assert told[-1] == second
    assert not told[0].complete


async def test_platforms_arrive_side_by_side(tmp_path: Path, tree: Path, open_service: OpenService) -> None:
    """Streams into one directory do not disturb each other, whether their files have the same names or not."""
    service = FileSend([DirectoryTarget(path=tmp_path / "out")])
    async with open_service(service) as channel, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(send_directory, channel, tree)
    assert (tmp_path / "out" / "sub" / "file").read_bytes() == b"x" * 100_000
    assert sorted(os.listdir(tmp_path / "out")) == ["empty", "sub"]
    assert os.listdir(tmp_path / "out" / "sub") == ["file"]


async def test_deleting_needs_a_daemon_that_sends_everything_at_once(
    tmp_path: Path, tree: Path, open_service: OpenService, ended: Ended
) -> None:
    """Otherwise one platform would delete another's files; a daemon that says it does may."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    service = FileSend([DirectoryTarget(path=tmp_path / "out", delete=True)])
    async with open_service(service) as channel:
        with pytest.raises(RpcError, match="requires a BuildKit daemon with multi-platform local export support"):
            await send_directory(channel, tree)
        assert isinstance(ended[0][2], UnsupportedByEngine)
        assert os.listdir(tmp_path / "out") == ["old"]
        await send_directory(channel, tree, metadata={"buildkit-exporter-multi-platform": "1"})
    assert sorted(os.listdir(tmp_path / "out")) == ["empty", "sub"]
    assert service.received[0].tree is not None
    assert service.received[0].tree.removed == 1


async def test_a_tree_over_a_limit_is_refused(
    tmp_path: Path, tree: Path, open_service: OpenService, ended: Ended
) -> None:
    """The daemon gets the words as an ERR packet and as the status, and we have the error."""
    service = FileSend([DirectoryTarget(path=tmp_path / "out", bounds=ReceiveLimits(entries=1))])
    async with open_service(service) as channel:
        with pytest.raises(RpcError, match=r"error from receiver: .* over a limit of what is received: entries is 1"):
            await send_directory(channel, tree)
    error = ended[0][2]
    assert isinstance(error, OutputLimitExceeded)
    assert error.limit == "entries"


async def test_a_directory_that_is_a_file_is_refused(
    tmp_path: Path, tree: Path, open_service: OpenService, ended: Ended
) -> None:
    """The path is named."""
    (tmp_path / "out").touch()
    async with open_service(FileSend([DirectoryTarget(path=tmp_path / "out")])) as channel:
        with pytest.raises(RpcError, match="out' cannot be written: file exists"):
            await send_directory(channel, tree)
    assert isinstance(ended[0][2], OutputError)


async def test_a_daemon_that_goes_away_after_its_fin_has_not_failed(tmp_path: Path, open_service: OpenService) -> None:
    """It resets the call without reading our status, and everything is on disk before we say FIN."""
    service = FileSend([DirectoryTarget(path=tmp_path / "out")])
    async with open_service(service) as channel, channel.open_call(FILE_SEND) as call:
        await call.send_batch(
            [
                Packet(stat=Stat(path=b"f", mode=0o644)).SerializeToString(),
                b"",
                Packet(type=Packet.PACKET_DATA, data=b"content").SerializeToString(),
                Packet(type=Packet.PACKET_DATA).SerializeToString(),
            ]
        )
        said: list[int] = []
        while Packet.PACKET_FIN not in said:
            said += [Packet.FromString(message).type for message in await call.receive_batch()]
        assert (tmp_path / "out" / "f").read_bytes() == b"content"
        assert service.received[0].complete

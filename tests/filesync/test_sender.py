"""The sender's half of a conversation, packet by packet."""

from __future__ import annotations

import logging
import os
import socket
import threading
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from mobysession import limits
from mobysession._pb.fsutil_pb2 import Packet
from mobysession.errors import ContextError, RemoteProtocolError, RpcError
from mobysession.filesync import Content, Directory, Entry, PacketStream, TransferProgress, TransferReport, send_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

REQ, FIN, ERR = Packet.PACKET_REQ, Packet.PACKET_FIN, Packet.PACKET_ERR


CMDLINE = Path("/proc/self/cmdline").read_bytes()


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


class Many(Directory):
    """A directory that seems to hold more files than it takes to fill a batch."""

    def entries(self, directory: bytes) -> Iterator[Entry]:
        for number in range(1300):
            yield Entry(b"%05d" % number, 0o644, 1)

    def xattrs(self, path: bytes) -> Mapping[str, bytes]:
        return {}

    def fetch(self, path: bytes, offered: int) -> bytes:
        return b"x"


async def test_a_whole_conversation(
    tmp_path: Path, converse: Callable[..., Any], plant: Callable[[Path, object], None]
) -> None:
    """Ids count every entry, contents come in the order of the requests, FIN is answered with FIN."""
    plant(tmp_path / "t", {"a": {"x": b"xx"}, "b": "a/x", "c": b"", "d": b"ddd"})

    async def play(peer: Any) -> None:
        paths = [entry.path for entry in await peer.listing()]
        assert paths == [b"a", b"a/x", b"b", b"c", b"d"]
        await peer.request(4, 1, 3)
        assert await peer.content(4) == b"ddd"
        assert await peer.content(1) == b"xx"
        assert await peer.content(3) == b""
        await peer.part()

    report = await converse(tmp_path / "t", play)
    assert report == TransferReport(
        progress=TransferProgress(entries=5, files=3, offered_bytes=5, requested=3, sent=3, sent_bytes=5, listed=True)
    )


async def test_an_empty_tree(tmp_path: Path, converse: Callable[..., Any]) -> None:
    """The end of the listing is an empty message, also when nothing came before it."""

    async def play(peer: Any) -> None:
        assert await peer.receive_batch() == [b""]
        await peer.part()

    assert (await converse(tmp_path, play)).progress.entries == 0


async def test_requests_are_served_while_the_listing_goes_on(tmp_path: Path, converse: Callable[..., Any]) -> None:
    """A file asked for after the first entries arrives before the listing has ended."""

    async def play(peer: Any) -> None:
        await peer.packet()
        await peer.request(0)
        listed = served = 0
        while (packet := await peer.packet()) != Packet():
            listed += packet.type == Packet.PACKET_STAT
            served += packet.type == Packet.PACKET_DATA
        assert listed == 1299
        assert served == 2
        await peer.part()

    await converse(Many(tmp_path), play)


async def test_requests_are_read_while_nobody_takes_what_is_sent(tmp_path: Path, converse: Callable[..., Any]) -> None:
    """A peer that says everything it has to say before it reads does not block the two sides."""

    async def play(peer: Any) -> None:
        first = await peer.receive_batch()
        # Without a buffer between them each of these waits until the sender has read the one before.
        for entry_id in range(len(first)):
            await peer.request(entry_id)
        seen = len(first)
        ended = 0
        while ended < len(first) or seen < 1301:
            for message in await peer.receive_batch():
                packet = Packet.FromString(message)
                seen += packet.type == Packet.PACKET_STAT
                ended += packet.type == Packet.PACKET_DATA and not packet.data
        await peer.part()

    report = await converse(Many(tmp_path), play)
    assert report.progress.sent == report.progress.requested


@pytest.mark.parametrize(
    "size", [1, 127, 128, 2**14, 128 * 1024, 128 * 1024 + 1, limits.DATA_CHUNK, limits.DATA_CHUNK + 1]
)
async def test_contents_arrive_whole(tmp_path: Path, converse: Callable[..., Any], size: int) -> None:
    """Files of every size arrive byte by byte, in chunks up to the bound and one empty packet."""
    content = os.urandom(size)
    (tmp_path / "f").write_bytes(content)

    async def play(peer: Any) -> None:
        await peer.listing()
        await peer.request(0)
        received = b""
        while (packet := await peer.packet()).data:
            assert len(packet.data) <= limits.DATA_CHUNK
            received += packet.data
        assert received == content
        await peer.part()

    assert (await converse(tmp_path, play)).progress.sent_bytes == size


async def test_a_socket_is_an_empty_file(tmp_path: Path, converse: Callable[..., Any]) -> None:
    """A socket is offered without its type, as the reference does, and arrives empty."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))

        async def play(peer: Any) -> None:
            (entry,) = await peer.listing()
            assert entry.mode & 0x8F280000 == 0
            await peer.request(0)
            assert await peer.content(0) == b""
            await peer.part()

        assert (await converse(tmp_path, play)).warnings == ()


async def test_links_and_patterns_are_applied(
    tmp_path: Path, converse: Callable[..., Any], plant: Callable[[Path, object], None]
) -> None:
    """Followed paths bring what their links lead to, excludes hold for it too."""
    plant(tmp_path / "t", {"link": "real", "real": {"a": b"", "b": b""}, "rest": b""})

    async def play(peer: Any) -> None:
        assert [entry.path for entry in await peer.listing()] == [b"link", b"real", b"real/a"]
        await peer.part()

    await converse(tmp_path / "t", play, follow_paths=["link/a", "link"], exclude=["**/b"])


@pytest.mark.parametrize("ids", [[1], [0, 0], [2], [0xFFFFFFFF]])
async def test_an_invalid_id_is_refused(
    tmp_path: Path, converse: Callable[..., Any], plant: Callable[[Path, object], None], ids: list[int]
) -> None:
    """Unknown, repeated and unrequestable ids are the receiver's fault."""
    plant(tmp_path / "t", {"a": b"", "b": {}})

    async def play(peer: Any) -> None:
        await peer.listing()
        await peer.request(*ids)

    with pytest.raises(RemoteProtocolError, match=f"invalid file id {ids[-1]}"):
        await converse(tmp_path / "t", play)


async def test_the_receivers_failure_is_raised_in_its_words(tmp_path: Path, converse: Callable[..., Any]) -> None:
    """ERR from the receiver ends the transfer."""

    async def play(peer: Any) -> None:
        await peer.listing()
        await peer.say(Packet(type=ERR, data=b"no space left"))

    with pytest.raises(RpcError, match="error from receiver: no space left"):
        await converse(tmp_path, play)


@pytest.mark.parametrize("last_words", [b"", b"\xff\xff"])
async def test_an_early_end_and_garbage_are_the_receivers_fault(
    tmp_path: Path, converse: Callable[..., Any], last_words: bytes
) -> None:
    """A stream that ends before FIN, and a message that is no packet, end the transfer with an error."""

    async def play(peer: Any) -> None:
        await peer.listing()
        if last_words:
            await peer.send_batch([last_words])
        else:
            peer.end()

    with pytest.raises(RemoteProtocolError):
        await converse(tmp_path, play)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), 'd/f" vanished'),
        (lambda path: (path.unlink(), path.mkdir()), 'd/f" was replaced'),
        (lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), 'd/f" was replaced'),
        (replace_by_pipe, 'd/f" was replaced'),
        (lambda path: (path.unlink(), path.parent.rmdir()), 'd/f" vanished'),
        (lambda path: (path.unlink(), path.parent.rmdir(), path.parent.touch()), 'd/f" was replaced'),
    ],
    ids=["vanished", "directory", "link", "pipe", "no-directory", "file-for-directory"],
)
async def test_a_file_that_is_not_there_any_more_fails_the_transfer(
    tmp_path: Path, converse: Callable[..., Any], change: Callable[[Path], object], message: str
) -> None:
    """A file that vanished or became something else is an error that names it, to us and in an ERR packet."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x")
    told = []

    async def play(peer: Any) -> None:
        await peer.listing()
        change(tmp_path / "d" / "f")
        await peer.request(1)
        told.append(await peer.packet())

    with pytest.raises(ContextError, match=message) as caught:
        await converse(tmp_path, play)
    assert told == [Packet(type=ERR, data=caught.value.message.encode())]
    assert caught.value.hint is not None


class Unreadable(Directory):
    """A directory whose files cannot be read, also not by root."""

    def fetch(self, path: bytes, offered: int) -> bytes | Content:
        raise PermissionError(13, "Permission denied")


async def test_an_unreadable_file_fails_the_transfer(tmp_path: Path, converse: Callable[..., Any]) -> None:
    """Where the reference sends an empty file, we say which one cannot be read."""
    (tmp_path / "f").touch()

    async def play(peer: Any) -> None:
        await peer.listing()
        await peer.request(0)
        assert (await peer.packet()).type == ERR

    with pytest.raises(ContextError, match='cannot read "f": permission denied'):
        await converse(Unreadable(tmp_path), play)


class Breaking(Directory):
    """A directory whose files break off with an input/output error."""

    def fetch(self, path: bytes, offered: int) -> bytes | Content:
        return Broken(b"y" * 10)


class Broken(BytesIO):
    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        if not count:
            raise OSError(5, "Input/output error")
        return count


async def test_a_read_error_fails_the_transfer(tmp_path: Path, converse: Callable[..., Any]) -> None:
    """A file that breaks off in the middle is an error, not a short file."""
    (tmp_path / "f").write_bytes(b"y" * 20)

    async def play(peer: Any) -> None:
        await peer.listing()
        await peer.request(0)
        while (await peer.packet()).type != ERR:
            pass

    with pytest.raises(ContextError, match='cannot read "f": input/output error'):
        await converse(Breaking(tmp_path), play)


@pytest.mark.parametrize(
    ("before", "after", "verb"), [(10, 4, "shrank"), (10, 15, "grew"), (0, 3, "grew"), (3, 0, "shrank")]
)
@pytest.mark.parametrize("scale", [1, 100_000])
async def test_a_file_that_changed_arrives_as_read(
    tmp_path: Path,
    converse: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    before: int,
    after: int,
    verb: str,
    scale: int,
) -> None:
    """A file that shrank or grew is sent as it is found, with a warning in the log and the report."""
    before, after = before * scale, after * scale
    (tmp_path / "f").write_bytes(b"1" * before)

    async def play(peer: Any) -> None:
        await peer.listing()
        (tmp_path / "f").write_bytes(b"2" * after)
        await peer.request(0)
        assert await peer.content(0) == b"2" * after
        await peer.part()

    with caplog.at_level(logging.WARNING, "mobysession.filesync"):
        report = await converse(tmp_path, play)
    (warning,) = report.warnings
    assert warning.startswith(f'"f" {verb} from {before} to {after} bytes')
    assert warning in caplog.text


def test_a_file_that_grows_while_it_is_read_ends_where_it_ended(tmp_path: Path) -> None:
    """A large file is read up to the size it had when it was opened, so that somebody who appends to it is no hang."""
    path = tmp_path / "f"
    path.write_bytes(bytes(200_000))
    content = Directory(tmp_path).fetch(b"f", 200_000)
    assert not isinstance(content, bytes)
    path.write_bytes(bytes(300_000))
    buffer = memoryview(bytearray(150_000))
    assert [content.readinto(buffer) for _ in range(3)] == [150_000, 50_000, 0]
    content.close()


async def test_a_pseudo_file_is_sent_as_read(tmp_path: Path, converse: Callable[..., Any]) -> None:
    """A file that claims to have no size is read to its end all the same."""

    class Proc(Directory):
        def fetch(self, path: bytes, offered: int) -> bytes | Content:
            return Directory("/proc/self").fetch(b"cmdline", 0)

    (tmp_path / "f").touch()
    expected = CMDLINE

    async def play(peer: Any) -> None:
        await peer.listing()
        await peer.request(0)
        assert await peer.content(0) == expected
        await peer.part()

    assert len((await converse(Proc(tmp_path), play)).warnings) == 1


async def test_only_so_many_warnings_are_kept(tmp_path: Path, converse: Callable[..., Any]) -> None:
    """The report keeps a hundred warnings and counts the rest."""
    for number in range(103):
        (tmp_path / f"{number:03}").write_bytes(b"12")

    async def play(peer: Any) -> None:
        await peer.listing()
        for number in range(103):
            (tmp_path / f"{number:03}").write_bytes(b"1")
        await peer.request(*range(103))
        for number in range(103):
            assert await peer.content(number) == b"1"
        await peer.part()

    report = await converse(tmp_path, play)
    assert (len(report.warnings), report.omitted_warnings) == (100, 3)


async def test_a_missing_root_and_a_bad_pattern_need_no_conversation(
    tmp_path: Path, converse: Callable[..., Any]
) -> None:
    """What is wrong before the first packet is raised without one."""

    async def play(peer: Any) -> None:
        """Say nothing."""

    with pytest.raises(ContextError, match="does not exist"):
        await converse(tmp_path / "missing", play)
    with pytest.raises(ContextError, match="syntax error in pattern"):
        await converse(tmp_path, play, exclude=["["])


async def test_progress_is_reported(tmp_path: Path, converse: Callable[..., Any]) -> None:
    """The callback hears figures that only grow, and the last ones are those of the report."""
    (tmp_path / "f").write_bytes(b"123")
    heard: list[TransferProgress] = []

    async def play(peer: Any) -> None:
        await peer.listing()
        await peer.request(0)
        assert await peer.content(0) == b"123"
        await trio.testing.wait_all_tasks_blocked()
        await peer.part()

    report = await converse(tmp_path, play, progress=heard.append)
    assert heard[-1] == report.progress
    assert [p.sent_bytes for p in heard] == sorted(p.sent_bytes for p in heard)


async def test_cancellation_leaves_nothing_open(
    tmp_path: Path, packet_pair: Callable[[], tuple[PacketStream, Any]]
) -> None:
    """A transfer cancelled in the middle of a large file closes it, and no thread is at work any more."""
    (tmp_path / "f").write_bytes(bytes(5 * limits.DATA_CHUNK))
    ours, peer = packet_pair()
    before = len(os.listdir("/proc/self/fd"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_tree, ours, Directory(tmp_path))
        await peer.listing()
        await peer.request(0)
        assert (await peer.packet()).data
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(os.listdir("/proc/self/fd")) == before
    assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0


async def test_the_loop_never_touches_the_disk(tmp_path: Path, converse: Callable[..., Any]) -> None:
    """Every method of a source is called in a worker thread."""
    (tmp_path / "f").touch()
    (tmp_path / "l").symlink_to("f")
    threads = set()

    class Watched(Directory):
        def __getattribute__(self, name: str) -> Any:
            if name in ("check", "entries", "readlink", "xattrs", "lookup", "fetch"):
                threads.add(threading.current_thread())
            return super().__getattribute__(name)

    async def play(peer: Any) -> None:
        await peer.listing()
        await peer.request(0)
        await peer.content(0)
        await peer.part()

    await converse(Watched(tmp_path), play, follow_paths=["f", "l"])
    assert threads
    assert threading.current_thread() not in threads

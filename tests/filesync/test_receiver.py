"""The receiver, against our own sender and against a peer with bad manners."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobysession._pb.fsutil_pb2 import Packet, Stat
from mobysession.errors import ContextError, OutputError, RemoteProtocolError, RpcError
from mobysession.filesync import Differ, Directory, ReceiveReport, receive_tree, send_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

DATA = Packet.PACKET_DATA


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Return everything that a transfer keeps of a tree."""
    found: dict[str, tuple[object, ...]] = {}
    firsts: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        info = path.lstat()
        content: object = None
        if stat.S_ISLNK(info.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(info.st_mode):
            content = path.read_bytes()
        first = name if stat.S_ISDIR(info.st_mode) else firsts.setdefault(info.st_ino, name)
        found[name] = (info.st_mode, info.st_mtime_ns, content, first)
    return found


@pytest.fixture
def transfer(packet_pair: Callable[[], Any]) -> Callable[..., Any]:
    """Give a function that sends one directory into another and returns the receiver's report."""

    async def transfer(source: Path, destination: Path, **options: Any) -> ReceiveReport:
        ours, theirs = packet_pair()
        reports = []

        async def receive() -> None:
            reports.append(await receive_tree(theirs, destination, **options))

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await send_tree(ours, Directory(source), reset_owner=False)
        return reports[0]

    return transfer


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Give a source and a destination, both empty."""
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    return tmp_path / "from", tmp_path / "to"


def furnish(root: Path) -> None:
    """Put one of everything into a tree."""
    (root / "dir" / "deep").mkdir(parents=True)
    (root / "dir" / "deep" / "file").write_bytes(os.urandom(300_000))
    (root / "empty").touch()
    (root / "exe").write_bytes(b"#!")
    (root / "exe").chmod(0o6711)
    (root / "readonly").write_bytes(b"x")
    (root / "readonly").chmod(0o400)
    (root / "link").symlink_to("../../etc/passwd")
    os.link(root / "exe", root / "hard")
    os.mkfifo(root / "pipe", 0o640)
    (root / os.fsdecode(b"\xff")).write_bytes(b"stray")
    (root / "dir").chmod(0o1755)
    for path in (*root.rglob("*"),):
        os.utime(path, ns=(0, 1_600_000_000_000_000_001 + len(path.name)), follow_symlinks=False)


async def test_a_tree_arrives_as_it_is(trees: tuple[Path, Path], transfer: Callable[..., Any]) -> None:
    """Contents, modes, times of files, links and directories, and who is linked with whom survive the way."""
    source, destination = trees
    furnish(source)
    report = await transfer(source, destination)
    assert snapshot(destination) == snapshot(source)
    assert (report.entries, report.requested) == (10, 5)


async def test_nothing_is_asked_for_twice(trees: tuple[Path, Path], transfer: Callable[..., Any]) -> None:
    """An unchanged tree is listed and nothing more; without comparison everything is asked for again."""
    source, destination = trees
    furnish(source)
    await transfer(source, destination)
    assert (await transfer(source, destination)).requested == 0
    assert (await transfer(source, destination, differ=Differ.NONE)).requested == 5
    assert snapshot(destination) == snapshot(source)


async def test_changes_arrive(trees: tuple[Path, Path], transfer: Callable[..., Any]) -> None:
    """What changed, vanished, became something else or was unlinked from its twin is put right."""
    source, destination = trees
    furnish(source)
    await transfer(source, destination)
    (source / "empty").write_bytes(b"not any more")
    (source / "dir" / "deep" / "file").unlink()
    (source / "link").unlink()
    (source / "link").mkdir()
    (source / "link" / "inside").touch()
    (source / "pipe").unlink()
    (source / "pipe").symlink_to("exe")
    (source / "hard").unlink()
    (source / "hard").write_bytes(b"#!")
    (source / "hard").chmod(0o6711)
    os.utime(source / "hard", ns=(0, (source / "exe").stat().st_mtime_ns))
    os.link(source / "readonly", source / "twin")
    (source / "new").mkdir()
    report = await transfer(source, destination)
    assert snapshot(destination) == snapshot(source)
    assert report.removed == 1


async def test_a_directory_becomes_a_file_and_back(trees: tuple[Path, Path], transfer: Callable[..., Any]) -> None:
    """The old one goes with all that is in it."""
    source, destination = trees
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "c").touch()
    await transfer(source, destination)
    expected = snapshot(destination)
    (source / "a").rename(source.parent / "aside")
    (source / "a").write_bytes(b"file")
    await transfer(source, destination)
    assert snapshot(destination) == snapshot(source)
    (source / "a").unlink()
    (source.parent / "aside").rename(source / "a")
    await transfer(source, destination)
    assert snapshot(destination) == expected


async def test_merging_keeps_the_rest(trees: tuple[Path, Path], transfer: Callable[..., Any]) -> None:
    """With merge what is not listed stays; without, it goes."""
    source, destination = trees
    (source / "d").mkdir()
    (destination / "d").mkdir()
    (destination / "d" / "old").write_bytes(b"old")
    (destination / "top").touch()
    assert (await transfer(source, destination, merge=True)).removed == 0
    assert (destination / "d" / "old").read_bytes() == b"old"
    assert (await transfer(source, destination)).removed == 2
    assert list(snapshot(destination)) == ["d"]


async def test_an_old_name_of_a_changed_file_keeps_its_content(
    trees: tuple[Path, Path], transfer: Callable[..., Any]
) -> None:
    """A file is replaced, never written into: what else is linked to it is none of the transfer's business."""
    source, destination = trees
    (source / "f").write_bytes(b"new content")
    (destination / "f").write_bytes(b"old")
    os.link(destination / "f", destination.parent / "elsewhere")
    await transfer(source, destination)
    assert (destination / "f").read_bytes() == b"new content"
    assert (destination.parent / "elsewhere").read_bytes() == b"old"


async def test_links_in_the_destination_are_not_followed(
    trees: tuple[Path, Path], transfer: Callable[..., Any]
) -> None:
    """A link where the listing has a directory or a file is replaced; nothing is written behind it."""
    source, destination = trees
    (source / "d").mkdir()
    (source / "d" / "f").write_bytes(b"inside")
    (source / "g").write_bytes(b"inside")
    outside = destination.parent / "outside"
    outside.mkdir()
    (outside / "g").write_bytes(b"untouched")
    (destination / "d").symlink_to(outside)
    (destination / "g").symlink_to(outside / "g")
    await transfer(source, destination)
    assert snapshot(destination) == snapshot(source)
    assert os.listdir(outside) == ["g"]
    assert (outside / "g").read_bytes() == b"untouched"


async def test_the_senders_failure_is_raised_in_its_words(
    trees: tuple[Path, Path], packet_pair: Callable[[], Any]
) -> None:
    """ERR from the sender ends the transfer on both sides."""
    source, destination = trees
    (source / "f").write_bytes(b"x")

    class Unreadable(Directory):
        def fetch(self, path: bytes, offered: int) -> bytes:
            raise PermissionError(13, "Permission denied")

    ours, theirs = packet_pair()
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(RpcError, match='error from sender: cannot read "f": permission denied'):
                await receive_tree(theirs, destination)

        nursery.start_soon(receive)
        with pytest.raises(ContextError):
            await send_tree(ours, Unreadable(source))


CHARACTER_DEVICE = 0x0420_0180


def entry(path: bytes, mode: int = 0o644, **rest: Any) -> Packet:
    return Packet(stat=Stat(path=path, mode=mode, **rest))


@pytest.mark.parametrize(
    ("packets", "message"),
    [
        ([entry(b"../evil")], "escape check"),
        ([entry(b"b"), entry(b"a")], "changes out of order"),
        ([entry(b"l", linkname=b"/etc/passwd")], "invalid link"),
        ([Packet(type=DATA, ID=3, data=b"x")], "invalid file request 3"),
        ([entry(b"a", 0x800001ED), Packet(type=DATA, data=b"x")], "invalid file request 0"),
        ([entry(b"a"), Packet(type=DATA), Packet(type=DATA)], "invalid file request 0"),
        ([entry(b"a"), Packet(type=Packet.PACKET_FIN)], "before it was complete"),
        ([entry(b"a"), Packet(), entry(b"b")], "after the end of the listing"),
        ([entry(b"a"), Packet(), Packet()], "after the end of the listing"),
        ([Packet(type=Packet.PACKET_REQ)], "unexpected packet"),
        ([entry(b"d", CHARACTER_DEVICE, devmajor=-1)], "of no number there is: -1, 0"),
        ([entry(b"d", CHARACTER_DEVICE, devminor=1 << 32)], "of no number there is: 0, 4294967296"),
        ([entry(b"l", 0x080001FF, linkname=b"a\0b")], "a link that cannot be made"),
        ([entry(b"l", 0x080001FF)], 'a link that cannot be made, to ""'),
        ([entry(b"f", xattrs={"user.\0": b"1"})], "an extended attribute of no name"),
    ],
)
async def test_bad_manners_are_refused(
    tmp_path: Path, packet_pair: Callable[[], Any], packets: list[Packet], message: str
) -> None:
    """A sender that breaks the protocol is told so with ERR, and nothing was written outside."""
    (tmp_path / "root").mkdir()
    ours, peer = packet_pair()
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(RemoteProtocolError, match=message):
                await receive_tree(ours, tmp_path / "root")

        nursery.start_soon(receive)
        await peer.say(*packets)
        while (packet := await peer.packet()).type != Packet.PACKET_ERR:
            assert packet.type == Packet.PACKET_REQ
        assert message in packet.data.decode()
    assert os.listdir(tmp_path) == ["root"]


async def test_an_early_end_is_an_error(tmp_path: Path, packet_pair: Callable[[], Any]) -> None:
    """A stream that ends before FIN is no complete transfer."""
    ours, peer = packet_pair()
    peer.end()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.receive_batch)
        with pytest.raises(RemoteProtocolError, match="ended the transfer before it was complete"):
            await receive_tree(ours, tmp_path)


async def test_a_cancelled_transfer_leaves_nothing_behind(tmp_path: Path, packet_pair: Callable[[], Any]) -> None:
    """What was begun is removed, and what was there is as it was; no descriptor stays open (the tests look)."""
    (tmp_path / "f").write_bytes(b"before")
    ours, peer = packet_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive_tree, ours, tmp_path)
        await peer.say(entry(b"f"), Packet(), Packet(type=DATA, data=b"half"))
        assert (await peer.packet()).type == Packet.PACKET_REQ
        assert len(os.listdir(tmp_path)) == 2
        nursery.cancel_scope.cancel()
    assert os.listdir(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"before"


async def test_progress_is_told_and_completion_before_the_sender_knows(
    trees: tuple[Path, Path], transfer: Callable[..., Any]
) -> None:
    """Whoever listens has the figures after each batch, and hears of the end, the last, once all is on disk."""
    source, destination = trees
    furnish(source)
    told: list[ReceiveReport] = []
    complete: list[tuple[ReceiveReport, bool, int]] = []

    def on_complete(report: ReceiveReport) -> None:
        complete.append((report, snapshot(destination) == snapshot(source), len(told)))

    report = await transfer(source, destination, progress=told.append, on_complete=on_complete)
    assert complete == [(report, True, len(told))]
    assert told[-1].received == report.received == 5
    assert [earlier.entries for earlier in told] == sorted(earlier.entries for earlier in told)


@pytest.mark.parametrize("kind", ["missing", "file"])
async def test_a_destination_that_is_none_is_named(tmp_path: Path, packet_pair: Callable[[], Any], kind: str) -> None:
    """Before anything is received."""
    if kind == "file":
        (tmp_path / "to").touch()
    ours, _ = packet_pair()
    with pytest.raises(OutputError, match=r'cannot write ".*/to": (no such file|not a directory)'):
        await receive_tree(ours, tmp_path / "to")


_contents = st.sampled_from([b"", b"x", b"y" * 200_000])
_names = st.sampled_from(["a", "a-b", "a.b", "ab", "é", "z"])
_trees = st.dictionaries(
    _names, st.recursive(_contents, lambda inner: st.dictionaries(_names, inner, max_size=3), max_leaves=6), max_size=4
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(_trees, _trees)
def test_any_tree_becomes_any_other(
    tmp_path_factory: pytest.TempPathFactory,
    transfer: Callable[..., Any],
    plant: Callable[[Path, object], None],
    first: dict[str, object],
    second: dict[str, object],
) -> None:
    """After a transfer the destination is the source, whatever it was before."""
    root = tmp_path_factory.mktemp("trees")
    plant(root / "first", first)
    plant(root / "second", second)
    (root / "to").mkdir()

    async def both() -> None:
        await transfer(root / "first", root / "to")
        await transfer(root / "second", root / "to")

    trio.run(both)
    assert snapshot(root / "to") == snapshot(root / "second")

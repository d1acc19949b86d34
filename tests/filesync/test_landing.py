"""The receiver as a machine: entries of each kind, limits, interruption at each packet, full disks, huge files."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from mobysession import limits
from mobysession._pb.fsutil_pb2 import Packet
from mobysession.errors import DiskFull, OutputError, OutputLimitExceeded, RemoteProtocolError
from mobysession.filesync.terms import Differ, ReceiveLimits
from tests.filesync.landings import DIR, END, LINK, MTIME, data, entry, feed, open_landing, snapshot, whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices, owners and mounts")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give the directory to receive into, empty, beside which nothing else may appear."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


# -- what an entry becomes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "mode", "content"),
    [
        (entry(b"x", 0o640), stat.S_IFREG | 0o640, b"text"),
        (entry(b"x", 0o0), stat.S_IFREG, b"text"),
        (entry(b"x", 0x00C0_01ED), stat.S_IFREG | 0o6755, b"text"),
        (entry(b"x", DIR), stat.S_IFDIR | 0o755, None),
        (entry(b"x", 0x8010_01FF), stat.S_IFDIR | 0o1777, None),
        (entry(b"x", 0x8000_0000), stat.S_IFDIR, None),
        (entry(b"x", LINK, linkname=b"../../no/where"), stat.S_IFLNK | 0o777, "../../no/where"),
        (entry(b"x", 0x0200_01A0), stat.S_IFIFO | 0o640, None),
    ],
)
@pytest.mark.parametrize("there", ["nothing", "file", "link", "directory", "fifo"])
def test_an_entry_takes_the_place_of_whatever_is_there(
    root: Path, packet: bytes, mode: int, content: object, there: str
) -> None:
    """Kind, permissions, time and content are as listed, and what was there before is gone, with all below it."""
    match there:
        case "file":
            (root / "x").write_bytes(b"something else")
        case "link":
            (root / "x").symlink_to(root.parent)
        case "directory":
            (root / "x" / "deep").mkdir(parents=True)
            (root / "x" / "deep" / "file").touch()
        case "fifo":
            os.mkfifo(root / "x")
    asked = feed(root, packet, END, *(whole(0, b"text") if stat.S_ISREG(mode) else []))
    assert asked == ([0] if stat.S_ISREG(mode) else [])
    kept = {"x/deep", "x/deep/file"} if there == "directory" and stat.S_ISDIR(mode) else set()
    seen = snapshot(root)
    assert seen["x"] == (mode, MTIME, content, "x")
    assert seen.keys() == {"x", *kept}
    assert os.listdir(root.parent) == ["root"]


@as_root
def test_devices_are_made_as_they_are_listed(root: Path) -> None:
    """Kind, numbers and permissions; nothing is opened to do it."""
    feed(
        root,
        entry(b"block", 0x0400_01B0, devmajor=7, devminor=300),
        entry(b"char", 0x0420_0192, devmajor=1, devminor=3),
        END,
    )
    block, char = os.lstat(root / "block"), os.lstat(root / "char")
    assert (block.st_mode, block.st_rdev) == (stat.S_IFBLK | 0o660, os.makedev(7, 300))
    assert (char.st_mode, char.st_rdev) == (stat.S_IFCHR | 0o622, os.makedev(1, 3))


@as_root
@pytest.mark.parametrize(("owner", "expected"), [((12, 34), (12, 34)), (None, (56, 78))])
def test_owners(root: Path, owner: tuple[int, int] | None, expected: tuple[int, int]) -> None:
    """Everything belongs to the one that was given, or else to whom the listing says."""
    packets = [
        entry(b"d", DIR, uid=56, gid=78),
        entry(b"f", 0x0080_01ED, uid=56, gid=78),
        entry(b"l", LINK, linkname=b"f", uid=56, gid=78),
    ]
    feed(root, *packets, END, *whole(1, b"x"), owner=owner)
    for name in "dfl":
        found = os.lstat(root / name)
        assert (found.st_uid, found.st_gid) == expected
    # A change of owner takes these bits away, so it has to come before them.
    assert os.lstat(root / "f").st_mode == stat.S_IFREG | 0o4755


def test_extended_attributes(root: Path) -> None:
    """Those that can be set are, also on a file that its owner may not write; the others are left out."""
    try:
        os.setxattr(root, "user.test", b"1")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    attributes = {"user.a": b"1", "user.b": b"", "no.such.namespace": b"x"}
    feed(root, entry(b"d", DIR, xattrs=attributes), entry(b"f", 0o400, xattrs=attributes), END, *whole(1, b"x"))
    for name in "df":
        assert sorted(name for name in os.listxattr(root / name) if name.startswith("user.")) == ["user.a", "user.b"]
        assert os.getxattr(root / name, "user.a") == b"1"


@as_root
def test_file_capabilities_survive_the_change_of_owner(root: Path) -> None:
    """Linux takes them from a file whose owner is set, so they come after that."""
    capability = bytes.fromhex("01000002" + "00040000" + "00" * 12)
    feed(root, entry(b"f", 0o755, xattrs={"security.capability": capability}), END, *whole(0, b"x"), owner=(12, 34))
    assert os.getxattr(root / "f", "security.capability") == capability


def test_times_to_the_nanosecond_also_of_directories_and_before_1970(root: Path) -> None:
    """A directory's time is the listed one although things were put into it after its entry came."""
    feed(
        root,
        entry(b"d", DIR, mtime=-1_500_000_001),
        entry(b"d/f", mtime=1),
        entry(b"d/l", LINK, linkname=b"f", mtime=1_999_999_999_999_999_999),
        END,
        *whole(1, b"x"),
    )
    times = {name: os.lstat(root / name).st_mtime_ns for name in ("d", "d/f", "d/l")}
    assert times == {"d": -1_500_000_001, "d/f": 1, "d/l": 1_999_999_999_999_999_999}


def test_a_directory_that_nobody_may_write_is_filled_first(root: Path) -> None:
    """Its mode is set in the end; on the way its owner may write."""
    landing = open_landing(root)
    landing.take([entry(b"d", 0x8000_0140), entry(b"d/f")])
    assert os.lstat(root / "d").st_mode & 0o700 == 0o700
    landing.take([END, *whole(1, b"x")])
    landing.finish()
    landing.close()
    assert os.lstat(root / "d").st_mode == stat.S_IFDIR | 0o500


def test_files_arrive_in_pieces_and_interleaved(root: Path) -> None:
    """Before the listing has ended or after, in whatever batches: each file gets its own pieces in their order."""
    landing = open_landing(root)
    landing.take([entry(b"a"), entry(b"b")])
    landing.take([data(1, b"b1"), data(0, b"a1"), data(1, b"b2" * 5000)])
    landing.take([data(0, b"a2"), entry(b"c"), data(1), END])
    assert max(os.listdir(root)) == "b", "what is complete is in place, and nothing else"
    landing.take([*whole(2, b"c"), data(0)])
    landing.finish()
    landing.close()
    contents = {name: (root / name).read_bytes() for name in os.listdir(root)}
    assert contents == {"a": b"a1a2", "b": b"b1" + b"b2" * 5000, "c": b"c"}


def test_a_file_is_what_was_read_not_what_was_announced(root: Path) -> None:
    """Sizes are not checked, for files may change while they are read; an empty one needs no data."""
    feed(root, entry(b"a", size=100), entry(b"b", size=0), END, *whole(0, b"short"), data(1))
    assert (root / "a").read_bytes() == b"short"
    assert (root / "b").read_bytes() == b""


def test_asking_stops_where_too_much_is_on_its_way(root: Path) -> None:
    """No more files are asked for than requests can wait at the sender; the rest follow as files arrive."""
    count = limits.MAX_ASKED_FILES + 10
    landing = open_landing(root)
    first = landing.take([entry(b"%06d" % number) for number in range(count)])
    assert len(first) == limits.MAX_ASKED_FILES
    assert landing.take([END]) == []
    more = landing.take([data(number) for number in range(7)])
    assert [Packet.FromString(packet).ID for packet in more] == list(range(count - 10, count - 3))
    assert landing.report().requested == count - 3
    landing.close()


# -- hard links --------------------------------------------------------------------------------------------------------


def test_hard_links_to_a_file_on_its_way_appear_with_it(root: Path) -> None:
    """They wait for the file, take the place of what is there, and are the same file in the end; none is asked for."""
    (root / "d").mkdir()
    (root / "d" / "two").write_bytes(b"old")
    (root / "three").mkdir()
    landing = open_landing(root)
    landing.take([entry(b"d", DIR), entry(b"d/two.", 0o600), entry(b"one", linkname=b"d/two.")])
    landing.take([entry(b"three", linkname=b"d/two."), END, data(1, b"new")])
    assert not (root / "one").exists()
    assert landing.take([data(1)]) == []
    landing.finish()
    landing.close()
    assert {os.lstat(root / name).st_ino for name in ("d/two.", "one", "three")} == {os.lstat(root / "one").st_ino}
    assert (root / "one").read_bytes() == b"new"
    assert (root / "d" / "two").read_bytes() == b"old"


def test_a_hard_link_to_a_file_that_is_there(root: Path) -> None:
    """A file that has arrived, or that is the same as before, gets another name at once; twice does no harm."""
    for _ in range(2):
        landing = open_landing(root, differ=Differ.METADATA)
        landing.take([entry(b"a", size=1)])
        if not (root / "a").exists():
            landing.take(whole(0, b"x"))
        landing.take([entry(b"b", size=1, linkname=b"a"), END])
        landing.finish()
        landing.close()
        assert os.lstat(root / "a").st_ino == os.lstat(root / "b").st_ino
        assert sorted(os.listdir(root)) == ["a", "b"]


def test_a_link_follows_its_file_when_that_is_replaced(root: Path) -> None:
    """What is linked now to the old file is not taken for a link to the new one."""
    feed(root, entry(b"a", size=3), entry(b"b", size=3, linkname=b"a"), END, *whole(0, b"old"))
    changed = [entry(b"a", size=3, mtime=MTIME + 1), entry(b"b", size=3, mtime=MTIME + 1, linkname=b"a")]
    assert feed(root, *changed, END, *whole(0, b"new"), differ=Differ.METADATA) == [0]
    assert (root / "b").read_bytes() == b"new"
    assert os.lstat(root / "a").st_ino == os.lstat(root / "b").st_ino


# -- what was there ----------------------------------------------------------------------------------------------------


def test_without_merge_the_rest_goes_and_only_in_the_end(root: Path) -> None:
    """What is not listed stays while something may still fail, and goes with all below it."""
    (root / "old" / "deep" / "er").mkdir(parents=True)
    (root / "old" / "deep" / "file").touch()
    (root / "keep").mkdir()
    (root / "keep" / "other").touch()
    landing = open_landing(root, merge=False)
    landing.take([entry(b"keep", DIR), entry(b"new"), END, data(1)])
    assert (root / "old" / "deep" / "er").exists()
    assert (root / "keep" / "other").exists()
    landing.finish()
    assert landing.report().removed == 2
    landing.close()
    assert snapshot(root).keys() == {"keep", "new"}


def test_a_tree_deeper_than_the_stack_is_removed(root: Path) -> None:
    """Whatever its depth, what is replaced by a file goes."""
    at = os.open(root, os.O_RDONLY)
    for _ in range(1050):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    feed(root, entry(b"d"), END, data(0))
    assert (root / "d").is_file()
    assert os.listdir(root) == ["d"]


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "packets", "name", "words"),
    [
        ({"entries": 2}, [entry(b"a"), entry(b"b"), entry(b"c")], "entries", "entries is 2 entries"),
        ({"listing": 60}, [entry(b"a"), entry(b"b" * 50)], "listing", "listing is 60 bytes"),
        ({"path": 10}, [entry(b"a" * 11)], "path", "path is 10 bytes"),
        ({"size": 5}, [entry(b"a"), END, data(0, b"123"), data(0, b"456")], "size", "size is 5 bytes"),
        ({"open_files": 1}, [entry(b"a"), entry(b"b"), data(0, b"1"), data(1, b"2")], "open_files", "is 1 files"),
    ],
)
def test_a_limit_that_is_reached_is_named(
    root: Path, bounds: dict[str, int], packets: list[bytes], name: str, words: str
) -> None:
    """The error says which limit it is and what it is set to; up to the limit all is well, and nothing is left over."""
    landing = open_landing(root, bounds=ReceiveLimits(**bounds))
    landing.take(packets[:-1])
    with pytest.raises(OutputLimitExceeded, match=words) as caught:
        landing.take(packets[-1:])
    landing.close()
    assert (caught.value.limit, caught.value.value) == (name, bounds[name])
    assert not [found for found in os.listdir(root) if found.startswith(".tmp")]


# -- interruption ------------------------------------------------------------------------------------------------------

OLD = {"a": b"old a", "d/f": b"old f", "d/g": b"old g", "gone": b"old gone", "t": b"old t"}
NEW = {"a": b"new a", "d/f": b"new f" * 9000, "h": b"new a", "n": b"new n", "t": b"new t"}
TRANSFER = [
    entry(b"a", 0o600),
    entry(b"d", DIR),
    entry(b"d/f"),
    data(0, b"new "),
    entry(b"h", 0o600, linkname=b"a"),
    data(2, b"new f" * 4000),
    entry(b"l", LINK, linkname=b"a"),
    entry(b"n"),
    entry(b"t"),
    data(0, b"a"),
    data(2, b"new f" * 5000),
    data(6, b"new t"),
    data(0),
    END,
    data(2),
    data(5, b"new n"),
    data(5),
    data(6),
]


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("step", [1, 3])
def test_an_interrupted_transfer_leaves_each_file_complete_or_as_it_was(tmp_path: Path, merge: bool, step: int) -> None:
    """Cut after each packet: old content or all of the new, nothing in between, nothing taken away, no litter."""
    for cut in range(0, len(TRANSFER) + 1, step):
        root = tmp_path / str(cut)
        (root / "d").mkdir(parents=True)
        for name, content in OLD.items():
            (root / name).write_bytes(content)
        landing = open_landing(root, merge=merge)
        for message in TRANSFER[:cut]:
            landing.take([message])
        landing.close()
        found = {name: seen[2] for name, seen in snapshot(root).items() if isinstance(seen[2], bytes)}
        assert found.keys() - OLD.keys() <= NEW.keys()
        assert OLD.keys() <= found.keys()
        for name, content in found.items():
            assert content in (OLD.get(name), NEW.get(name)), (cut, name)


def test_a_complete_transfer_after_interrupted_ones(root: Path) -> None:
    """What they left behind is no hindrance."""
    for cut in range(len(TRANSFER)):
        landing = open_landing(root)
        landing.take(TRANSFER[:cut])
        landing.close()
    feed(root, *TRANSFER)
    assert {name: (root / name).read_bytes() for name in NEW} == NEW
    assert not [found for found in os.listdir(root) if found.startswith(".tmp")]


@pytest.mark.parametrize(
    ("packets", "words"),
    [
        ([END, entry(b"a")], "after the end of the listing"),
        ([entry(b"a"), Packet(type=Packet.PACKET_FIN).SerializeToString()], "before it was complete"),
        ([b"\xff"], "no fsutil packet"),
        ([entry(b"a"), *whole(0, b"x"), data(0)], "invalid file request 0"),
        ([entry(b"a", DIR), data(0, b"x")], "invalid file request 0"),
        ([entry(b"a"), entry(b"b", linkname=b"a"), data(1, b"x")], "invalid file request 1"),
    ],
)
def test_a_broken_rule_leaves_nothing_unfinished(root: Path, packets: list[bytes], words: str) -> None:
    """The error names the rule, and what was begun is removed."""
    landing = open_landing(root)
    with pytest.raises(RemoteProtocolError, match=words):
        landing.take(packets)
    landing.close()
    assert not [found for found in os.listdir(root) if found.startswith(".tmp")]


# -- disks -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=20", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    "packets",
    [
        [entry(b"a"), END, data(0, os.urandom(200_000)), data(0, os.urandom(200_000))],
        [entry(b"a"), END, data(0, os.urandom(400_000)), data(0)],
        [entry(b"%02d" % number, DIR) for number in range(30)],
        [entry(b"%02d" % number, LINK, linkname=b"x" * 100) for number in range(30)],
    ],
)
def test_a_full_disk_is_told_as_one(small_disk: Path, packets: list[bytes]) -> None:
    """No blocks or no inodes: the error names the path, what was there stays as it was, what was begun goes."""
    (small_disk / "a").write_bytes(b"as it was")
    landing = open_landing(small_disk)
    with pytest.raises(DiskFull, match=f'cannot write "{small_disk}/.*": no space left on device') as caught:
        landing.take(packets)
    landing.close()
    assert caught.value.path is not None
    assert caught.value.path.startswith(f"{small_disk}/")
    assert caught.value.hint is not None
    assert isinstance(caught.value.__cause__, OSError)
    assert (small_disk / "a").read_bytes() == b"as it was"
    assert not [found for found in os.listdir(small_disk) if found.startswith(".tmp")]


def test_a_file_that_may_not_be_as_large_is_named(root: Path) -> None:
    """A limit of the process (RLIMIT_FSIZE) is an error like any other of the disk."""
    (root / "a").write_bytes(b"as it was")
    landing = open_landing(root)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OutputError, match=f'cannot write "{root}/a": file too large') as caught:
            landing.take([entry(b"a"), END, data(0, os.urandom(150_000))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        landing.close()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EFBIG
    assert (root / "a").read_bytes() == b"as it was"


def test_twenty_gibibytes_of_zeros_take_neither_memory_nor_disk(root: Path) -> None:
    """Blocks of zeros become holes, at the end of a file too, and everything else is where it belongs."""
    size = 20 * 1024**3
    landing = open_landing(root)
    landing.take([entry(b"sparse", size=size + 8192), END, data(0, b"head" * 1024)])
    block = data(0, bytes(limits.MIB))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(size // limits.MIB // 4):
        landing.take([block] * 4)
    landing.take([data(0, b"tail" * 512), data(0, bytes(2048)), data(0, bytes(4096)), data(0)])
    landing.finish()
    landing.close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024, "KiB"
    found = os.stat(root / "sparse")
    assert (found.st_size, found.st_blocks < 100) == (size + 4096 + 2048 + 2048 + 4096, True)
    with (root / "sparse").open("rb") as file:
        assert file.read(8192) == b"head" * 1024 + bytes(4096)
        file.seek(4096 + size)
        assert file.read() == b"tail" * 512 + bytes(2048 + 4096)

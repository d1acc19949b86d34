"""The listing: attributes, order, links, batches and memory."""

from __future__ import annotations

import os
import stat
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobysession._pb.fsutil_pb2 import Packet, Stat
from mobysession.errors import ContextError, RemoteProtocolError
from mobysession.filesync import Directory
from mobysession.filesync.filters import parse_filter
from mobysession.filesync.offers import ROOT, Offers
from mobysession.filesync.source import Entry
from mobysession.filesync.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mobysession.filesync import Source

DATA = Path(__file__).parent.parent / "data"


def listing(source: Source | Path, *, excludes: Sequence[str] = (), reset_owner: bool = True) -> list[Stat]:
    """Return the entries of a whole walk."""
    if isinstance(source, os.PathLike):
        source = Directory(source)
        source.check()
    batches = Walk(source, parse_filter((), excludes), Offers(), reset_owner=reset_owner).batches()
    return [Packet.FromString(message).stat for batch in batches for message in batch.messages]


def test_attributes(tmp_path: Path) -> None:
    """Modes are Go's, times have nanoseconds, sizes are those of lstat and 0 for directories."""
    (tmp_path / "dir").mkdir(mode=0o750)
    (tmp_path / "dir").chmod(0o1750)
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "file").chmod(0o4755)
    (tmp_path / "link").symlink_to("dir/../file")
    os.mkfifo(tmp_path / "pipe", 0o600)
    os.utime(tmp_path / "file", ns=(0, 1_700_000_000_123_456_789))
    os.utime(tmp_path / "pipe", ns=(0, -1_000_000_001))
    directory, file, link, pipe = listing(tmp_path)
    assert (directory.path, directory.mode, directory.size) == (b"dir", 0x801001E8, 0)
    assert (file.path, file.mode, file.size, file.modTime) == (b"file", 0x008001ED, 5, 1_700_000_000_123_456_789)
    assert (link.path, link.mode, link.size, link.linkname) == (b"link", 0x080001FF, 11, b"dir/../file")
    assert (pipe.path, pipe.mode, pipe.modTime) == (b"pipe", 0x02000180, -1_000_000_001)


def test_owner_is_reset_unless_wanted(tmp_path: Path) -> None:
    """Owner and group travel as 0 by default and as they are on demand."""
    (tmp_path / "a").touch()
    if os.geteuid() == 0:
        os.chown(tmp_path / "a", 12, 34)
    found = (tmp_path / "a").stat()
    (entry,) = listing(tmp_path)
    assert (entry.uid, entry.gid) == (0, 0)
    (entry,) = listing(tmp_path, reset_owner=False)
    assert (entry.uid, entry.gid) == (found.st_uid, found.st_gid)


def test_devices_have_their_numbers(tmp_path: Path) -> None:
    """A device carries its numbers, and the entry after it none."""
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    os.mknod(tmp_path / "char", stat.S_IFCHR | 0o620, os.makedev(4, 0x12345))
    os.mknod(tmp_path / "block", stat.S_IFBLK | 0o660, os.makedev(8, 1))
    (tmp_path / "char").chmod(0o620)
    (tmp_path / "block").chmod(0o660)
    (tmp_path / "file").touch()
    block, char, file = listing(tmp_path)
    assert (block.mode, block.devmajor, block.devminor) == (0x040001B0, 8, 1)
    assert (char.mode, char.devmajor, char.devminor) == (0x04200190, 4, 0x12345)
    assert (file.devmajor, file.devminor) == (0, 0)


def test_extended_attributes_travel(tmp_path: Path) -> None:
    """Attributes are sent with their entry alone, Apple's are not, and a link's target does not lend it any."""
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    (tmp_path / "link").symlink_to("a")
    try:
        os.setxattr(tmp_path / "a", "user.color", b"\x00blue")
        os.setxattr(tmp_path / "a", "user.com.apple", b"kept")
    except OSError:
        pytest.skip("no user attributes on this file system")
    a, b, link = listing(tmp_path)
    assert dict(a.xattrs) == {"user.color": b"\x00blue", "user.com.apple": b"kept"}
    assert not b.xattrs
    assert not link.xattrs


def test_hard_links_name_the_first_path(tmp_path: Path) -> None:
    """Later names of a file point to the first one that was sent, with the real size."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "first").write_bytes(b"123")
    os.link(tmp_path / "b" / "first", tmp_path / "c")
    os.link(tmp_path / "b" / "first", tmp_path / "d")
    os.link(tmp_path / "b" / "first", tmp_path / "a")
    entries = {entry.path: (entry.linkname, entry.size) for entry in listing(tmp_path)}
    assert entries == {b"a": (b"", 3), b"b": (b"", 0), b"b/first": (b"a", 3), b"c": (b"a", 3), b"d": (b"a", 3)}
    entries = {entry.path: (entry.linkname, entry.size) for entry in listing(tmp_path, excludes=["a", "c"])}
    assert entries == {b"b": (b"", 0), b"b/first": (b"", 3), b"d": (b"b/first", 3)}


def test_names_are_bytes(tmp_path: Path) -> None:
    """Names that are no UTF-8 travel as they are, and a pattern sees one character for a stray byte."""
    for name in (b"\xff", b"a\n", "é".encode()):
        (tmp_path / os.fsdecode(name)).touch()
    assert [entry.path for entry in listing(tmp_path)] == [b"a\n", "é".encode(), b"\xff"]
    assert [entry.path for entry in listing(tmp_path, excludes=["?"])] == [b"a\n"]


def test_a_recorded_context_gives_the_same_bytes(tmp_path: Path) -> None:
    """The STAT packets of a known tree are those that docker buildx sent for it, byte by byte."""
    lines = (DATA / "filesync-engine-28.5.2-image.txt").read_text().splitlines()
    recorded = [bytes.fromhex(line) for line in lines if not line.startswith("#")]
    stats = [Packet.FromString(message).stat for message in recorded]
    for entry in stats:
        path = tmp_path / os.fsdecode(entry.path)
        if entry.mode & 0x80000000:
            path.mkdir()
        elif entry.mode & 0x08000000:
            path.symlink_to(os.fsdecode(entry.linkname))
        elif entry.linkname:
            os.link(tmp_path / os.fsdecode(entry.linkname), path)
        else:
            path.write_bytes(bytes(entry.size))
    (tmp_path / "x.log").touch()
    for entry in stats:
        path = tmp_path / os.fsdecode(entry.path)
        if not entry.mode & 0x08000000:
            path.chmod(entry.mode & 0o777)
        os.utime(path, ns=(0, entry.modTime), follow_symlinks=False)
    source = Directory(tmp_path)
    source.check()
    walk = Walk(source, parse_filter((), ["*.log", "!keep.log"]), Offers(), reset_owner=True)
    assert [message for batch in walk.batches() for message in batch.messages] == recorded


class Flat:
    """A source with one directory of many empty files."""

    def __init__(self, count: int) -> None:
        self.count = count

    def check(self) -> None:
        """There is nothing to check."""

    def entries(self, directory: bytes) -> Iterator[Entry]:
        for number in range(self.count):
            yield Entry(b"file-%08d.txt" % number, 0o644)

    def readlink(self, path: bytes) -> bytes:
        raise AssertionError(path)

    def xattrs(self, path: bytes) -> Mapping[str, bytes]:
        return {}

    def lookup(self, path: bytes) -> Entry | None:
        raise AssertionError(path)

    def fetch(self, path: bytes, offered: int) -> bytes:
        return b""


def test_the_listing_comes_in_batches() -> None:
    """No batch holds more than about a thousand entries, and none is lost between two."""
    batches = list(Walk(Flat(5000), None, Offers(), reset_owner=True).batches())
    assert max(len(batch.messages) for batch in batches) <= 1024
    assert sum(len(batch.messages) for batch in batches) == sum(batch.files for batch in batches) == 5000


def test_what_was_offered_takes_few_bytes() -> None:
    """An entry costs its name and 13 bytes, and what the columns have in reserve; not an object."""
    count = 5_000
    tracemalloc.start()
    try:
        offers = Offers()
        for batch in Walk(Flat(count), None, offers, reset_owner=True).batches():
            del batch
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / count < 45
    assert offers.path(count - 1) == b"file-%08d.txt" % (count - 1)


_names = st.sampled_from([b"a", b"a-b", b"a.txt", b"ab", b"a b", b"A", "é".encode(), b"\xff", b"z"])
_trees = st.dictionaries(
    _names,
    st.recursive(st.none(), lambda inner: st.dictionaries(_names, inner, max_size=5), max_leaves=15),
    max_size=5,
)


@settings(deadline=None, max_examples=40)
@given(_trees)
def test_the_order_is_by_components(tmp_path_factory: pytest.TempPathFactory, tree: dict[bytes, object]) -> None:
    """Paths come sorted by the bytes of their components, a directory directly before what is in it."""
    root = os.fsencode(tmp_path_factory.mktemp("tree"))
    paths: list[bytes] = []

    def plant(here: dict[bytes, object], prefix: bytes) -> None:
        for name, below in here.items():
            paths.append(prefix + name)
            if isinstance(below, dict):
                os.mkdir(root + b"/" + prefix + name)
                plant(below, prefix + name + b"/")
            else:
                os.close(os.open(root + b"/" + prefix + name, os.O_CREAT))

    plant(tree, b"")
    source = Directory(os.fsdecode(root))
    source.check()
    assert [entry.path for entry in listing(source)] == sorted(paths, key=lambda path: path.split(b"/"))


class Failing(Directory):
    """A directory in which one name cannot be listed or looked at."""

    def __init__(self, path: Path, name: bytes, error: OSError) -> None:
        super().__init__(path)
        self.name = name
        self.error = error
        self.check()

    def entries(self, directory: bytes) -> Iterator[Entry]:
        if directory == self.name:
            raise self.error
        return super().entries(directory)

    def xattrs(self, path: bytes) -> Mapping[str, bytes]:
        if path == self.name and not isinstance(self.error, PermissionError):
            raise self.error
        return super().xattrs(path)


def test_an_unreadable_directory_is_named(tmp_path: Path) -> None:
    """A directory that cannot be listed fails the walk with its path and a hint."""
    (tmp_path / "a" / "secret").mkdir(parents=True)
    with pytest.raises(ContextError) as caught:
        listing(Failing(tmp_path, b"a/secret", PermissionError(13, "Permission denied")))
    assert caught.value.message == 'cannot list "a/secret": permission denied'
    assert caught.value.hint is not None


@pytest.mark.parametrize("excludes", [["a"], ["a", "!**/keep"]])
def test_an_excluded_unreadable_directory_is_no_matter(tmp_path: Path, excludes: list[str]) -> None:
    """What is left out need not be readable, whether it is looked into for an exception or not."""
    (tmp_path / "a" / "secret").mkdir(parents=True)
    (tmp_path / "b").touch()
    source = Failing(tmp_path, b"a/secret", PermissionError(13, "Permission denied"))
    assert [entry.path for entry in listing(source, excludes=excludes)] == [b"b"]


def test_a_name_that_vanishes_before_it_is_offered_is_left_out_alone(tmp_path: Path) -> None:
    """The entries around it are sent all the same."""
    for name in "abc":
        (tmp_path / name).touch()
    source = Failing(tmp_path, b"b", FileNotFoundError(2, "No such file"))
    assert [entry.path for entry in listing(source)] == [b"a", b"c"]


def test_an_id_names_a_path_and_is_requested_once() -> None:
    """Ids are positions among all entries; only files can be requested, and only once."""
    offers = Offers()
    top = offers.add(ROOT, b"dir", 0, False)
    inner = offers.add(top, b"sub", 0, False)
    file = offers.add(inner, b"file", 7, True)
    last = offers.add(ROOT, b"last", 2**40, True)
    assert (offers.path(file), offers.path(last), offers.path(inner)) == (b"dir/sub/file", b"last", b"dir/sub")
    assert (offers.size(file), offers.size(last)) == (7, 2**40)
    offers.request(file)
    for invalid in (file, top, 4, 0xFFFFFFFF):
        with pytest.raises(RemoteProtocolError, match=f"invalid file id {invalid}"):
            offers.request(invalid)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.touch(),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("root"),
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["missing", "file", "pipe", "loop of links", "dangling link"],
)
def test_a_root_that_is_no_directory_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A missing root or something else in its place is an error that names it and says what to do; nothing hangs."""
    make(tmp_path / "root")
    with pytest.raises(ContextError, match="root") as caught:
        Directory(tmp_path / "root").check()
    assert caught.value.hint is not None


def test_loops_and_pipes_in_a_tree_are_announced_as_they_are(tmp_path: Path) -> None:
    """Links that lead to themselves, to each other and to a directory above them, and a pipe: none is looked behind."""
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "ping").symlink_to("pong")
    (tmp_path / "pong").symlink_to("ping")
    (tmp_path / "up").symlink_to("..")
    os.mkfifo(tmp_path / "pipe")
    found = listing(tmp_path)
    assert [entry.path for entry in found] == [b"ping", b"pipe", b"pong", b"self", b"up"]
    assert [entry.linkname for entry in found] == [b"pong", b"", b"ping", b"self", b".."]


def test_a_root_may_be_a_link(tmp_path: Path) -> None:
    """The root is resolved before it is walked."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").touch()
    (tmp_path / "root").symlink_to("real")
    assert [entry.path for entry in listing(tmp_path / "root")] == [b"a"]

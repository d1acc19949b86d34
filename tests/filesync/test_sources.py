"""Every kind of source: one tree gives the same packets through each, as far as the kind can express it."""

from __future__ import annotations

import gzip
import importlib.resources
import io
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from importlib.resources.readers import MultiplexedPath
from typing import TYPE_CHECKING, Any

import pytest
import trio

from mobysession._pb.fsutil_pb2 import Packet, Stat
from mobysession.errors import ContextError, UsageError
from mobysession.filesync import (
    Directory,
    File,
    Files,
    FsspecTree,
    GitTree,
    Link,
    Overlay,
    Resources,
    TarArchive,
    ZipArchive,
    as_source,
)
from mobysession.filesync.filters import parse_filter
from mobysession.filesync.offers import Offers
from mobysession.filesync.source import opened
from mobysession.filesync.tree import EPOCH
from mobysession.filesync.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from mobysession.filesync import Entry, Source
    from mobysession.filesync.files import FilesLike

BIG = bytes(range(256)) * 1024
CONTENTS = {
    "Dockerfile": b"FROM scratch\n",
    "a-b": b"after a/",
    "a.txt": b"",
    "a/big": BIG,
    "a/run": b"#!/bin/sh\n",
    "a/sub/leaf": b"leaf",
    "z/späße": b"u",
}
EXECUTABLE = {"a/run"}
LINKS = {"a/link": "sub/leaf", "dangling": "no/where"}
TIME = 1_234_567_890


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Give a tree that every source can express, but for times."""
    root = tmp_path / "tree"
    for name, content in CONTENTS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if name in EXECUTABLE else 0o644)
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
        os.utime(path, (TIME, TIME), follow_symlinks=False)
    return root


def listing(source: Source, **filters: Any) -> list[Stat]:
    """Return what the source announces."""
    source.check()
    chosen = parse_filter(filters.get("include", ()), filters.get("exclude", ()))
    walk = Walk(source, chosen, Offers(), reset_owner=True)
    with opened(source):
        messages = [message for batch in walk.batches() for message in batch.messages]
    return [Packet.FromString(message).stat for message in messages]


def content(source: Source, path: str) -> bytes:
    """Return the content of one file."""
    with opened(source):
        got = source.fetch(os.fsencode(path), 0)
        if isinstance(got, bytes):
            return got
        whole, buffer = b"", bytearray(100_000)
        while count := got.readinto(memoryview(buffer)):
            whole += buffer[:count]
        got.close()
        got.close()
    return whole


def tar(tree: Path, path: Path, mode: str = "w") -> Path:
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]  # any text is a mode
        archive.add(tree, arcname=".")
    return path


def zipped(tree: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(tree.rglob("*")):
            info = zipfile.ZipInfo(str(file.relative_to(tree)) + "/" * (file.is_dir() and not file.is_symlink()))
            info.create_system = 3
            info.external_attr = file.lstat().st_mode << 16
            info.date_time = (2009, 2, 13, 23, 31, 30)
            inside = os.fsencode(file.readlink()) if file.is_symlink() else b"" if file.is_dir() else file.read_bytes()
            archive.writestr(info, inside, zipfile.ZIP_DEFLATED)
    return path


def git(folder: Path, *arguments: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        **{f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    subprocess.run(["git", "-C", folder, *arguments], check=True, env=environment, capture_output=True)


def committed(tree: Path) -> Path:
    git(tree, "init", "-q")
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "one")
    return tree


def files(tree: Path) -> Files:
    given: dict[str, Any] = {name: content for name, content in CONTENTS.items() if name not in EXECUTABLE}
    given |= {name: File(CONTENTS[name], mode=0o755) for name in EXECUTABLE}
    given["a/big"] = tree / "a/big"
    return Files({**given, **{name: Link(target) for name, target in LINKS.items()}})


def halves(tree: Path) -> Overlay:
    """Lay one half of the tree over something that all but its directories and the other half hides."""
    upper = {name: CONTENTS[name] for name in ("Dockerfile", "a-b", "a.txt")}
    return Overlay(tree, {name: File(content) for name, content in upper.items()})


def fsspec_tree(tree: Path) -> FsspecTree:
    return FsspecTree.from_url(f"file://{tree}")


KINDS: dict[str, tuple[Callable[[Path], Source], str]] = {
    "tar": (lambda tree: TarArchive(tar(tree, tree.parent / "t.tar")), "mtime"),
    "tar.gz": (lambda tree: TarArchive(tar(tree, tree.parent / "t.tgz", "w:gz")), "mtime"),
    "tar.xz": (lambda tree: TarArchive(tar(tree, tree.parent / "t.txz", "w:xz")), "mtime"),
    "stream": (lambda tree: TarArchive(io.BytesIO(tar(tree, tree.parent / "t.tgz", "w:gz").read_bytes())), "mtime"),
    "zip": (lambda tree: ZipArchive(zipped(tree, tree.parent / "t.zip")), "seconds"),
    "git": (lambda tree: GitTree(committed(tree)), ""),
    "mapping": (files, ""),
    "overlay": (halves, ""),
    "fsspec": (fsspec_tree, "mtime"),
    "itself": (lambda tree: Overlay({}, tree), "mtime"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_tree_through_every_kind_of_source(tree: Path, kind: str) -> None:
    """Order, paths, modes, sizes and link targets are those of the directory, and mtimes where the kind has them."""
    make, times = KINDS[kind]
    expected = listing(Directory(tree))
    found = listing(make(tree), exclude=[".git"])
    for entry in (*found, *expected):
        entry.modTime = entry.modTime * (times == "mtime") + entry.modTime // 10**9 * (times == "seconds")
    assert [str(entry) for entry in found] == [str(entry) for entry in expected]


@pytest.mark.parametrize("kind", KINDS)
def test_contents_through_every_kind_of_source(tree: Path, kind: str) -> None:
    """Small and large files are read whole, again and again, inside and outside of a transfer."""
    source = KINDS[kind][0](tree)
    source.check()
    with opened(source):
        for name, expected in CONTENTS.items():
            assert content(source, name) == expected
    assert content(source, "a/big") == BIG
    with pytest.raises(FileNotFoundError):
        source.fetch(b"a/nothing", 0)
    assert source.lookup(b"a/nothing") is None
    assert source.lookup(b"Dockerfile/x") is None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_strict_transfer_of_every_kind(tree: Path, kind: str, converse: Any) -> None:
    """What `lookup` says is what `entries` said, so that nothing seems to change; nothing stays open."""
    source = KINDS[kind][0](tree)
    source.check()
    before = os.listdir("/proc/self/fd")

    async def play(peer: Any) -> None:
        paths = [entry.path for entry in await peer.listing()]
        await peer.request(paths.index(b"a/big"))
        assert await peer.content(paths.index(b"a/big")) == BIG
        await peer.part()

    await converse(source, play, strict=True, exclude=[".git"])
    assert os.listdir("/proc/self/fd") == before


def test_a_tar_keeps_what_a_tar_has(tmp_path: Path) -> None:
    """Owners, special bits, devices, pipes, hard links, nanoseconds, attributes, holes and odd names."""
    with tarfile.open(tmp_path / "t", "w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, content: bytes = b"", **attributes: Any) -> None:
            info = tarfile.TarInfo(name)
            for key, value in attributes.items():
                setattr(info, key, value)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))

        add("./b", b"123", mode=0o4755, uid=7, gid=8, pax_headers={"mtime": "-1.5", "SCHILY.xattr.user.x": "\udcff1"})
        add("/c", type=tarfile.LNKTYPE, linkname="b")
        add("a", type=tarfile.LNKTYPE, linkname="./b")
        add("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        add("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=1, mode=0o660)
        add("pipe", type=tarfile.FIFOTYPE, mode=0o600)
        add("deep/er/file", b"x", mtime=5)
        add("odd\udcff\n", b"y", mode=0o644)
    source = TarArchive(tmp_path / "t")
    found = {entry.path: entry for entry in listing(source)}
    assert list(found) == [
        b"a",
        b"b",
        b"c",
        b"deep",
        b"deep/er",
        b"deep/er/file",
        b"disk",
        b"null",
        b"odd\xff\n",
        b"pipe",
    ]
    a, b, c = (found[name] for name in (b"a", b"b", b"c"))
    assert (a.linkname, b.linkname, c.linkname) == (b"", b"a", b"a")
    assert {(entry.mode, entry.modTime, entry.size) for entry in (a, b, c)} == {(0x008001ED, -1_500_000_000, 3)}
    assert dict(a.xattrs) == {"user.x": b"\xff1"}
    assert (source.lookup(b"b") or a).uid == 7
    assert (found[b"null"].mode, found[b"null"].devmajor, found[b"null"].devminor) == (0x042001B6, 1, 3)
    assert (found[b"disk"].mode, found[b"disk"].devmajor) == (0x040001B0, 8)
    assert found[b"pipe"].mode == 0x02000180
    assert found[b"deep"].modTime == EPOCH * 10**9


def test_holes_in_a_tar_are_zeros(tmp_path: Path) -> None:
    """A sparse file comes whole, wherever its data lie."""
    whole = bytearray(400_000)
    whole[100_000:100_005] = b"first"
    whole[300_000:300_006] = b"second"
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(len(whole))
        for at in (100_000, 300_000):
            file.seek(at)
            file.write(bytes(whole[at : at + 6]))
    subprocess.run(["tar", "-C", tmp_path, "-cSf", tmp_path / "t", "sparse"], check=True)
    assert (tmp_path / "t").stat().st_size < 100_000
    source = TarArchive(tmp_path / "t")
    assert [entry.size for entry in listing(source)] == [400_000]
    assert content(source, "sparse") == bytes(whole)


@pytest.mark.parametrize(("name", "make"), [("tar", TarArchive), ("zip", ZipArchive)])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, make: Callable[[Path], Source]) -> None:
    """An archive with ``..`` in a name is an error that names the entry."""
    path = tmp_path / name
    if make is TarArchive:
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo("a/../../etc/passwd"))
    else:
        with zipfile.ZipFile(path, "w") as zip_file:
            zip_file.writestr("a/../../etc/passwd", b"")
    with pytest.raises(ContextError, match=r'has an entry "a/../../etc/passwd", which no directory can have'):
        make(path).check()


def test_archives_that_are_none_are_refused(tmp_path: Path) -> None:
    """What cannot be read as an archive is named, with the reason."""
    (tmp_path / "x").write_bytes(b"no archive" * 100)
    (tmp_path / "cut").write_bytes(gzip.compress(os.urandom(5000))[:3000])
    for make in (TarArchive, ZipArchive):
        with pytest.raises(ContextError, match=r'archive ".*x" cannot be read'):
            make(tmp_path / "x").check()
    with pytest.raises(ContextError, match=r"cannot be read: Compressed file ended"):
        TarArchive(tmp_path / "cut").check()
    with pytest.raises(ContextError, match=r"cannot be read: no such file"):
        TarArchive(tmp_path / "missing").check()
    with pytest.raises(ContextError, match=r"cannot be read: no such file or directory$"):
        ZipArchive(tmp_path / "missing").check()


@pytest.mark.parametrize("damage", [lambda whole: whole[:1700], lambda whole: whole[:1544] + b"?" + whole[1545:]])
def test_a_tar_is_not_over_where_a_header_is_damaged(damage: Callable[[bytes], bytes]) -> None:
    """What is behind such a header, or was cut off with it, is not left out without a word."""
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("a", "b"):
            member = tarfile.TarInfo(name)
            member.size = 600
            archive.addfile(member, io.BytesIO(bytes(600)))
    whole = spool.getvalue()
    with pytest.raises(ContextError, match="cannot be read: bad header at byte 1536"):
        TarArchive(io.BytesIO(damage(whole))).check()
    for complete in (whole, whole[:3072], whole[:3584]):
        tree = TarArchive(io.BytesIO(complete))
        tree.check()
        assert [entry.name for entry in tree.entries(b"")] == [b"a", b"b"]


def test_a_damaged_zip_fails_when_it_is_read(tmp_path: Path) -> None:
    """A wrong checksum is an error that names the archive and the file."""
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("small", b"content-of-it")
        archive.writestr("large", b"L" * 200_000)
    damaged = (tmp_path / "z").read_bytes().replace(b"content-of-it", b"c0ntent-of-it").replace(b"LLLL", b"LlLL", 1)
    (tmp_path / "z").write_bytes(damaged)
    source = ZipArchive(tmp_path / "z")
    source.check()
    for name in ("small", "large"):
        with pytest.raises(ContextError, match=r'archive ".*z" is damaged'):
            content(source, name)


def test_zip_times_and_contents_make_the_mtime(tmp_path: Path) -> None:
    """Another content has another mtime, though the archive gives both the same time."""
    times = set()
    for inside in (b"1", b"2"):
        with zipfile.ZipFile(tmp_path / "z", "w") as archive:
            archive.writestr(zipfile.ZipInfo("f", (2020, 1, 2, 3, 4, 6)), inside)
        (entry,) = listing(ZipArchive(tmp_path / "z"))
        times.add(entry.modTime)
    assert len(times) == 2
    assert {time // 10**9 for time in times} == {1_577_934_246}


def test_a_commit_is_read_and_not_the_working_tree(tree: Path) -> None:
    """Names, contents and commits are those of git: nothing uncommitted, submodules as empty directories."""
    committed(tree)
    (tree / "Dockerfile").write_bytes(b"changed\n")
    (tree / "new").touch()
    first = listing(GitTree(tree))
    assert content(GitTree(tree), "Dockerfile") == CONTENTS["Dockerfile"]
    assert b"new" not in {entry.path for entry in first}
    git(tree, "add", "-A")
    git(tree, "update-index", "--add", "--cacheinfo", "160000,1234567890123456789012345678901234567890,module")
    git(tree, "commit", "-q", "-m", "two")
    second = {entry.path: entry for entry in listing(GitTree(tree / "a", "HEAD"))}
    assert second[b"module"].mode == 0x800001ED
    changed = [entry.path for entry in first if str(second[entry.path]) != str(entry)]
    assert changed == [b"Dockerfile"]
    assert [entry.path for entry in listing(GitTree(tree, "HEAD:a/sub"))] == [b"leaf"]
    assert [str(entry) for entry in listing(GitTree(tree, "HEAD~1"))] == [str(entry) for entry in first]


@pytest.mark.parametrize("commit", ["nothing", "--help", "HEAD:nowhere", "HEAD:Dockerfile"])
def test_a_commit_that_is_none_is_refused(tree: Path, commit: str) -> None:
    """git's own words say why, and no commit is taken for an option."""
    committed(tree)
    with pytest.raises(ContextError, match=r"^\".*\" of the repository .* cannot be read: fatal"):
        GitTree(tree, commit).check()


def test_no_repository_and_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a repository git says so; without git we do."""
    with pytest.raises(ContextError, match="not a git repository"):
        GitTree(tmp_path).check()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ContextError, match="git cannot be run"):
        GitTree(tmp_path).check()


def test_a_large_blob_that_is_not_read_to_its_end(tmp_path: Path) -> None:
    """A file over a MiB has a process of its own, which ends with it."""
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    source = GitTree(committed(tmp_path))
    source.check()
    got = source.fetch(b"large", 3_000_000)
    assert not isinstance(got, bytes)
    assert got.readinto(memoryview(bytearray(1000)))
    got.close()
    assert content(source, "large") == bytes(3_000_000)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a": "", "a/b": ""}, "'a' is no directory, and yet the mapping has 'a/b' in it"),
        ({"a/b/c": "", "a": Link("x")}, "'a' is no directory, and yet the mapping has 'a/b/c' in it"),
        ({"a/b": "one", "a": {"b": "two"}}, "'a/b' is in the mapping twice"),
        ({"a/b": {}, "a": {"b": ""}}, "'a/b' is in the mapping twice"),
    ],
)
def test_a_mapping_says_one_thing_of_a_path(files: FilesLike, words: str) -> None:
    """What could only be offered in part is refused."""
    with pytest.raises(UsageError, match=words):
        Files(files)


def test_a_directory_may_be_named_several_times() -> None:
    """By itself, and by what is in it."""
    source = Files({"a": {}, "a/b": "one", "a/c": {"d": "two"}, "a/c/e": "three"})
    assert [content(source, path) for path in ("a/b", "a/c/d", "a/c/e")] == [b"one", b"two", b"three"]


def test_a_mapping_says_what_it_cannot_take(tmp_path: Path) -> None:
    """Paths out of the tree, contents of no known kind, directories and missing files are named."""
    for path in ("", "/a", "a/../b", "a//b", "./a", "a\0b", "\ud800"):
        with pytest.raises(UsageError, match="is no path in a directory"):
            Files({path: b""})
    half: Any = 1.5
    for mistake in (Link(""), Link("a\0"), Link("\ud800"), File(b"", mtime=half)):
        with pytest.raises(UsageError, match=r"^x: "):
            Files({"x": mistake})
    with pytest.raises(UsageError, match="x: bytes, text, a path or a function was expected, not int"):
        Files({"x": 5})  # type: ignore[dict-item]  # the mistake in question
    with pytest.raises(ContextError, match="it is a directory"):
        Files({"x": tmp_path}).check()
    with pytest.raises(ContextError, match="no such file"):
        Files({"x": tmp_path / "missing"}).check()


def test_functions_are_called_when_they_are_asked_for() -> None:
    """Their size is not known, so nothing is promised, and nothing is said to have grown; other errors are named."""
    calls = []

    def make() -> str:
        calls.append(1)
        return "späße"

    source = Files({"f": make, "g": lambda: io.BytesIO(b"stream"), "h": lambda: 1 / 0, "sub": {"x": "", "empty": {}}})  # type: ignore[dict-item,return-value]  # that is what fails
    entries = listing(source)
    assert [entry.path for entry in entries] == [b"f", b"g", b"h", b"sub", b"sub/empty", b"sub/x"]
    assert entries[0].size == 0
    assert not calls
    assert content(source, "f") == "späße".encode()
    assert content(source, "g") == b"stream"
    with pytest.raises(ContextError, match='"h" cannot be made: ZeroDivisionError'):
        content(source, "h")
    assert source.location is None


class Stale:
    """What looks like an open file, and reads as it is told."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.closed = False

    def readinto(self, buffer: memoryview) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.closed = True


async def _asynchronous() -> bytes:
    return b""


MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (lambda: None, "expected, not NoneType"),
    (lambda: 5, "expected, not int"),
    (lambda: Link("x"), "expected, not Link"),
    (lambda: io.StringIO("text"), "expected, not StringIO"),
    (_asynchronous, "expected, not coroutine"),
    (lambda: "\ud800", "its text is no UTF-8"),
    (lambda: Stale(None), "its readinto returned None"),
    (lambda: Stale(-1), "its readinto returned -1"),
    (lambda: Stale(1 << 30), "its readinto returned 1073741824"),
    (lambda: Stale("x"), "its readinto returned 'x'"),
    (lambda: Stale(RuntimeError("torn")), "cannot be read: RuntimeError: torn"),
]


class Foreign(Files):
    """A source of somebody else's, which looks at nothing that it gives."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__({"f": File(b"12345")})
        self._make = make

    def fetch(self, path: bytes, offered: int) -> Any:
        return self._make()


@pytest.mark.parametrize("make_source", [lambda make: Files({"f": make}), Foreign], ids=["mapping", "source"])
@pytest.mark.parametrize(("make", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
async def test_what_is_no_content_ends_the_transfer(
    converse: Any, make_source: Callable[[Any], Source], make: Callable[[], Any], words: str
) -> None:
    """Whatever a function or a source gives, an error names the path; nothing waits for what will never come."""

    async def play(peer: Any) -> None:
        await peer.listing()
        await peer.request(0)
        while (packet := await peer.packet()).type != Packet.PACKET_ERR:
            pass
        assert words in packet.data.decode()

    with pytest.raises(ContextError, match=r'^"f" cannot be read: '), trio.fail_after(5):
        await converse(make_source(make), play)


@pytest.mark.parametrize("given", [bytearray(b"made"), memoryview(b"m.a.d.e.")[::2], "made", b"made"])
def test_bytes_of_every_kind_are_contents(given: Any) -> None:
    """A function may return what it has at hand."""
    assert content(Files({"f": lambda: given}), "f") == b"made"


@pytest.mark.parametrize(
    ("mtime", "sent"),
    [
        (2**63 - 1, 2**63 - 1),
        (2**63, -(2**63)),
        (10_413_792_000 * 10**9, 10_413_792_000 * 10**9 - 2**64),
        (-(2**63) - 1, 2**63 - 1),
    ],
)
def test_times_beyond_64_bits_wrap(mtime: int, sent: int) -> None:
    """After 2262-04-11 and before 1678 an mtime is sent as Go's clients send it; entries before and after are fine."""
    source = Files({"a": File(b"", mtime=1), "b": File(b"", mtime=mtime), "c": File(b"", mtime=3)})
    assert [(entry.path, entry.modTime) for entry in listing(source)] == [(b"a", 1), (b"b", sent), (b"c", 3)]


def test_a_size_beyond_64_bits_is_an_error() -> None:
    """An entry that no packet can express is named."""

    class Vast(Files):
        def entries(self, directory: bytes) -> Iterator[Entry]:
            return (entry._replace(size=1 << 70) for entry in super().entries(directory))

    with pytest.raises(ContextError, match='"f" has an attribute that cannot be sent'):
        listing(Vast({"f": ""}))


def test_special_bits_of_a_file_are_sent() -> None:
    """Set-user-ID, set-group-ID and sticky as chmod takes them; nothing else of a mode, and never its kind."""
    modes = {"a": 0o4755, "b": 0o2640, "c": 0o1777, "d": 0o120644}
    found = listing(Files({name: File(b"", mode=mode) for name, mode in modes.items()}))
    assert [entry.mode for entry in found] == [0x0080_01ED, 0x0040_01A0, 0x0010_01FF, 0o644]


async def test_an_unknown_size_is_no_change(converse: Any) -> None:
    """A file of unknown size arrives as it is, without a warning and also in a strict transfer."""

    async def play(peer: Any) -> None:
        await peer.listing()
        await peer.request(0)
        assert await peer.content(0) == b"made"
        await peer.part()

    report = await converse(Files({"f": lambda: b"made"}), play, strict=True)
    assert (report.warnings, report.progress.offered_bytes, report.progress.sent_bytes) == ((), 0, 4)


def test_another_content_has_another_mtime() -> None:
    """An engine that has an earlier mapping under the same key asks for what differs, and for nothing else."""
    one, two = ({entry.path: entry for entry in listing(Files({"a": "1", "b": same}))} for same in ("x", "y"))
    assert str(one[b"a"]) == str(two[b"a"])
    assert one[b"b"].modTime != two[b"b"].modTime
    assert 0 <= one[b"b"].modTime // 10**9 - EPOCH < 28 * 24 * 3600
    _, ours, theirs = (entry.modTime for entry in listing(Files({name: name for name in ("a", *SAME_CHECKSUM)})))
    assert ours != theirs


#: Two texts with one CRC-32, which is what a zip knows of them.
SAME_CHECKSUM = ("plumless", "buckeroo")


def test_another_archive_is_another_place(tmp_path: Path) -> None:
    """A zip knows too little of a content to tell all apart, so nothing is taken for what an earlier archive had."""
    path, places = tmp_path / "z", set()
    for number, inside in enumerate(SAME_CHECKSUM):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(zipfile.ZipInfo("f"), inside)
        os.utime(path, (number, number))
        source = ZipArchive(path)
        before = source.location
        source.check()
        assert source.location == before
        places.add(before)
    assert None not in places
    assert len(places) == 2


def test_dates_that_are_none_in_a_zip() -> None:
    """Month 0 and day 0, which programs write that were told no time, are taken for the first."""
    spool = io.BytesIO()
    with zipfile.ZipFile(spool, "w") as archive:
        for name, date in (("a", (1980, 0, 0)), ("b", (1980, 15, 1))):
            info = zipfile.ZipInfo(name)
            info.date_time = (*date, 0, 0, 0)
            archive.writestr(info, b"")
    assert [entry.modTime for entry in listing(ZipArchive(spool))] == [315_532_800 * 10**9, 344_476_800 * 10**9]


@pytest.mark.parametrize("mtime", ["nan", "inf", "1e300", "99999999999999999999"])
def test_times_that_are_none_in_a_tar(mtime: str) -> None:
    """What is no number of 64 bits is an error that names the entry."""
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("f")
        info.pax_headers = {"mtime": mtime}
        archive.addfile(info)
    with pytest.raises(ContextError, match='has an entry "f" whose mtime is none'):
        TarArchive(io.BytesIO(spool.getvalue())).check()


def test_a_blob_that_is_missing_is_named(tree: Path) -> None:
    """A repository that lacks one cannot be offered, and says which."""
    committed(tree)
    blob = subprocess.run(
        ["git", "-C", tree, "rev-parse", "HEAD:Dockerfile"], check=True, capture_output=True, text=True
    ).stdout.strip()
    (tree / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(ContextError, match=rf"cannot be read: .*{blob}"):
        GitTree(tree).check()


def test_a_commit_that_no_program_can_be_told(tree: Path) -> None:
    """A NUL is the caller's mistake, not git's."""
    with pytest.raises(UsageError, match="cannot be asked for: embedded null byte"):
        GitTree(tree, "HEAD\0").check()


def test_what_is_higher_hides_what_is_lower(tmp_path: Path) -> None:
    """Directories merge; a file hides a directory with all that is in it, in layers below that too."""
    lowest = {"d": {"x": "low", "y": "low"}, "f": "low", "g": {"only": "low"}, "h": {"deep": {"z": "low"}}}
    middle = {"d": {"y": "mid"}, "g": "a file now", "h": {"deep": "a file"}}
    highest = {"d": {"z": "high"}, "h": {"deep": {"new": "high"}}, "f": Link("d/x")}
    source = Overlay(Files(lowest), Files(middle), Files(highest))  # type: ignore[arg-type]  # inferred too wide
    paths = " ".join(entry.path.decode() for entry in listing(source))
    assert paths == "d d/x d/y d/z f g h h/deep h/deep/new"
    assert [content(source, f"d/{name}") for name in "xyz"] == [b"low", b"mid", b"high"]
    assert source.readlink(b"f") == b"d/x"
    assert source.lookup(b"h/deep/z") is None
    with pytest.raises(FileNotFoundError):
        source.fetch(b"h/deep/z", 0)
    assert source.location == ""


def test_layers_are_asked_for_what_is_named(tree: Path) -> None:
    """Named entries are those of the whole listing, of layers that can be asked for them and of layers that cannot."""
    source = Overlay(tree, {"b": "higher", "new": "1", "other": "2"})
    source.check()
    names = {entry.name for entry in source.entries(b"")}
    asked = {*sorted(names)[::2], b"new", b"missing"}
    assert b"other" in names
    assert list(source.entries_named(b"", asked)) == [entry for entry in source.entries(b"") if entry.name in asked]


def test_hard_links_of_two_layers_are_kept_apart(tmp_path: Path) -> None:
    """Layers number their files as they like; a link goes to a file of its own layer."""
    archives = []
    for number in range(2):
        with tarfile.open(tmp_path / str(number), "w") as archive:
            for name in ("first", "second"):
                info = tarfile.TarInfo(f"{name}{number}")
                if name == "second":
                    info.type, info.linkname = tarfile.LNKTYPE, f"first{number}"
                archive.addfile(info)
        archives.append(TarArchive(tmp_path / str(number)))
    links = {entry.path: entry.linkname for entry in listing(Overlay(*archives))}
    assert links == {b"first0": b"", b"first1": b"", b"second0": b"first0", b"second1": b"first1"}


def test_package_data_on_disk_and_in_an_archive(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resources are found where they are; in an archive their sizes are known when they are read."""
    for name in LINKS:
        (tree / name).unlink()
    on_disk = Resources(tree)
    assert [str(entry) for entry in listing(on_disk)] == [str(entry) for entry in listing(Directory(tree))]
    zipped(tree, tree.parent / "t.zip")
    for source in (Resources(zipfile.Path(tree.parent / "t.zip")), Resources(MultiplexedPath(tree))):
        assert [entry.path for entry in listing(source)] == [entry.path for entry in listing(Directory(tree))]
        assert {name: content(source, name) for name in CONTENTS} == CONTENTS
        assert source.lookup(b"a/nothing") is None
        assert source.lookup(b"..") is None
    assert listing(Resources(importlib.resources.files("mobysession") / "_pb"))
    with pytest.raises(ContextError, match="are no directory"):
        Resources(tree / "Dockerfile").check()


class Bucket:
    """What a store of objects looks like to fsspec: no modes, no directories of their own, times as text."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self.objects = objects

    def ls(self, path: str, detail: bool = True) -> list[dict[str, Any]]:
        if path == "b/broken":
            raise RuntimeError("no access")
        below = {name for name in self.objects if name.startswith(path + "/")}
        names = {path + "/" + name[len(path) + 1 :].split("/")[0] for name in below}
        return [{"name": path + "/", "size": 0, "type": "directory"}, *(self.info(name) for name in sorted(names))]

    def info(self, path: str) -> dict[str, Any]:
        if path in self.objects:
            inside = self.objects[path]
            return {"name": path, "size": len(inside), "type": "file", "LastModified": "2020-01-02T03:04:06.5+00:00"}
        if any(name.startswith(path + "/") for name in self.objects):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def open(self, path: str, mode: str = "rb") -> Any:
        return io.BytesIO(self.objects[path])


def test_a_store_of_objects() -> None:
    """Directories that are only parts of names, and times in the words of each store; its own errors are named."""
    source = FsspecTree(Bucket({"b/x/1": b"one", "b/x-y": b"two", "b/x/broken": b""}), "b/")
    entries = listing(source)
    assert [entry.path for entry in entries] == [b"x", b"x/1", b"x/broken", b"x-y"]
    assert (entries[0].mode, entries[1].mode, entries[1].modTime) == (0x800001ED, 0o644, 1_577_934_246_500_000_000)
    assert content(source, "x/1") == b"one"
    with pytest.raises(ContextError, match=r'cannot list "broken": no access'):
        list(source.entries(b"broken"))
    with pytest.raises(ContextError, match="cannot be read: b/nothing"):
        FsspecTree(Bucket({}), "b/nothing").check()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar of ."])
def test_a_whole_archive_through_fsspec(tree: Path, kind: str) -> None:
    """At the root of an archive no name begins with a slash; what is in its subdirectories is offered like the rest."""
    for name in LINKS:  # fsspec knows of none in archives
        (tree / name).unlink()
    path = tree.parent / "archive"
    if kind == "zip":
        zipped(tree, path)
    else:
        with tarfile.open(path, "w") as archive:
            for name in ["."] if kind == "tar of ." else os.listdir(tree):
                archive.add(tree / name, arcname=name)
    source = FsspecTree.from_url(f"{kind.split()[0]}://::file://{path}")
    expected = listing(Directory(tree))
    assert [(entry.path, entry.size) for entry in listing(source)] == [(entry.path, entry.size) for entry in expected]
    for name, inside in CONTENTS.items():
        assert content(source, name) == inside
        found = source.lookup(name.encode())
        assert found is not None
        assert found.name == os.path.basename(name).encode()
    assert source.lookup(b"a/nothing") is None


def test_an_archive_with_two_roots_through_fsspec(tmp_path: Path) -> None:
    """Names with and without ``./`` are two trees to fsspec; neither is left out without a word."""
    with tarfile.open(tmp_path / "t", "w") as archive:
        for name in ("a", "./b"):
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(ContextError, match=r"names with and without \./") as caught:
        FsspecTree.from_url(f"tar://::file://{tmp_path}/t").check()
    assert caught.value.hint == "Offer a tar archive as TarArchive."


def test_the_root_of_a_disk_through_fsspec(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not the working directory, which fsspec takes an empty path for."""
    monkeypatch.chdir(tree)
    source = FsspecTree.from_url("file:///")
    source.check()
    names = [entry.name for entry in source.entries(b"")]
    assert os.fsencode(tree.parts[1]) in names
    assert b"Dockerfile" not in names
    assert [entry.name for entry in source.entries(os.fsencode(tree)[1:])] == sorted(map(os.fsencode, os.listdir(tree)))
    assert source.lookup(b"Dockerfile") is None
    assert source.lookup(os.fsencode(tree.parts[1])) is not None


def test_fsspec_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the error says what to install."""
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ContextError, match="fsspec is not installed") as caught:
        FsspecTree.from_url("s3://bucket")
    assert caught.value.hint == "pip install 'mobysession[fsspec]'"


def test_what_is_given_becomes_a_source(tmp_path: Path) -> None:
    """Paths are directories, mappings are files, sources are themselves; anything else is refused."""
    assert isinstance(as_source(tmp_path), Directory)
    assert isinstance(as_source({}), Files)
    source = Files({})
    assert as_source(source) is source
    with pytest.raises(UsageError, match="an object of type int is no directory, mapping or source") as caught:
        as_source(5)  # type: ignore[arg-type]  # the mistake in question
    assert caught.value.hint == "A source has the methods of Source."


def no_sources(folder: Path) -> Iterator[tuple[Any, str]]:
    """Give what is likely to be taken for a source, with what should be given instead."""
    with zipfile.ZipFile(folder / "z", "w") as archive:
        yield archive, "ZipArchive("
    with tarfile.open(folder / "t", "w") as tar_file:
        yield tar_file, "TarArchive("
    yield b"hunter2", "TarArchive(io.BytesIO(content))"
    yield bytearray(b"hunter2"), '{"Dockerfile": content}'
    yield io.BytesIO(b"hunter2"), "TarArchive(file) or ZipArchive(file)"


def test_what_is_nearly_a_source_is_told_how_to_become_one(tmp_path: Path) -> None:
    """Archives and contents; what is in them is not told."""
    for given, words in no_sources(tmp_path):
        with pytest.raises(UsageError) as caught:
            as_source(given)
        assert str(caught.value) == f"an object of type {type(given).__name__} is no directory, mapping or source"
        assert words in (caught.value.hint or "")
        assert "hunter2" not in (caught.value.hint or "")


@pytest.mark.parametrize("make", [TarArchive, ZipArchive])
def test_an_archive_is_a_path_or_a_binary_file(tmp_path: Path, make: Callable[[Any], Source]) -> None:
    """Anything else is refused by its type, where it is given."""
    mistakes: list[tuple[Any, str | None]] = [
        (b"hunter2", f"Give {make.__name__}(io.BytesIO(content))."),
        (io.StringIO("hunter2"), None),
        (None, None),
    ]
    with zipfile.ZipFile(tmp_path / "z", "w") as archive, tarfile.open(tmp_path / "t", "w") as tar_file:
        mistakes += [(one, "Give the path or the open file that it reads.") for one in (archive, tar_file)]
        for given, hint in mistakes:
            with pytest.raises(UsageError) as caught:
                make(given)
            words = f"{make.__name__} takes a path or an open binary file, not an object of type {type(given).__name__}"
            assert (str(caught.value), caught.value.hint) == (words, hint)


def test_modes_of_disk_files_are_theirs(tmp_path: Path) -> None:
    """A file of the disk in a mapping keeps its mode and time, also behind a link."""
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "f").chmod(0o600)
    (tmp_path / "l").symlink_to("f")
    (entry,) = listing(Files({"a": tmp_path / "l"}))
    assert stat.S_IMODE(entry.mode) == 0o600
    assert entry.modTime == (tmp_path / "f").stat().st_mtime_ns

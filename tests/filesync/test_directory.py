"""A directory that others change while it is read."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from mobysession.errors import ContextError
from mobysession.filesync import Directory
from mobysession.filesync.anchor import Anchor
from mobysession.filesync.contents import Contents
from mobysession.filesync.followpaths import follow_links
from mobysession.filesync.offers import ROOT, Offers
from mobysession.filesync.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from mobysession.filesync import Entry

SWAPPED = " was replaced while the directory was being sent"


@pytest.fixture
def swapped(tmp_path: Path) -> Directory:
    """Give a checked directory in which ``sub`` and the inner ``d/sub`` became links to a place outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (outside / "link").symlink_to("secret")
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    source = Directory(root)
    source.check()
    (root / "sub").symlink_to(outside)
    (root / "d" / "sub").symlink_to(outside)
    return source


def test_entries_are_had_by_their_names(tmp_path: Path) -> None:
    """In their order, as they are spelled in the directory, and the others are not looked at."""
    for name in ("b", "A", "c"):
        (tmp_path / name).touch()
    source = Directory(tmp_path)
    source.check()
    asked = {b"c", b"a", b"b", b"..", b"b/..", b"\0"}
    assert list(source.entries_named(b"", asked)) == [source.lookup(b"b"), source.lookup(b"c")]


METHODS: list[Callable[[Directory, bytes], object]] = [
    lambda source, sub: source.fetch(sub + b"/secret", 6),
    lambda source, sub: list(source.entries(sub)),
    lambda source, sub: list(source.entries_named(sub, {b"secret"})),
    lambda source, sub: source.lookup(sub + b"/secret"),
    lambda source, sub: source.readlink(sub + b"/link"),
    lambda source, sub: source.xattrs(sub + b"/secret"),
]


@pytest.mark.parametrize("method", METHODS, ids=["fetch", "entries", "entries_named", "lookup", "readlink", "xattrs"])
@pytest.mark.parametrize("sub", [b"sub", b"d/sub"])
@pytest.mark.parametrize("keeping", [True, False])
def test_no_method_follows_a_link_on_the_way(
    swapped: Directory, method: Callable[[Directory, bytes], object], sub: bytes, keeping: bool
) -> None:
    """A directory that became a link is an error of every method, named as in the tree, and no descriptor stays."""
    before = os.listdir("/proc/self/fd")
    with swapped.keeping() if keeping else nullcontext():
        assert swapped.lookup(b"d") is not None
        with pytest.raises(OSError, match="symbolic links") as caught:
            method(swapped, sub)
    assert caught.value.filename == sub
    assert os.listdir("/proc/self/fd") == before


def test_a_swapped_parent_of_a_requested_file_fails_the_transfer(swapped: Directory) -> None:
    """What is behind the link is not read; the error names the file."""
    offers = Offers()
    file = offers.add(offers.add(ROOT, b"sub", 0, False), b"secret", 6, True)
    contents = Contents(swapped, offers)
    contents.ask([file])
    with pytest.raises(ContextError, match='^"sub/secret"' + SWAPPED):
        contents.read()


class Swapping(Directory):
    """A directory whose ``sub`` becomes a link just before one method is called for one path."""

    def __init__(self, root: Path, method: str, path: bytes) -> None:
        super().__init__(root)
        self.check()
        self._moment = (method, path)

    def _swap(self, method: str, path: bytes) -> None:
        if (method, path) == self._moment:
            os.rename(f"{self.path}/sub", f"{self.path}/aside")
            os.symlink("/", f"{self.path}/sub")

    def entries(self, directory: bytes) -> Iterator[Entry]:
        self._swap("entries", directory)
        return super().entries(directory)

    def readlink(self, path: bytes) -> bytes:
        self._swap("readlink", path)
        return super().readlink(path)

    def xattrs(self, path: bytes) -> Mapping[str, bytes]:
        self._swap("xattrs", path)
        return super().xattrs(path)

    def lookup(self, path: bytes) -> Entry | None:
        self._swap("lookup", path)
        return super().lookup(path)


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Give a directory with a link in ``sub``."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "link").symlink_to("x")
    return tmp_path


@pytest.mark.parametrize(("method", "path"), [("entries", "sub"), ("readlink", "sub/link"), ("xattrs", "sub/link")])
def test_a_directory_swapped_during_the_walk_fails_it(linked: Path, method: str, path: str) -> None:
    """Neither names nor attributes from behind the link are announced; the error names the path."""
    walk = Walk(Swapping(linked, method, path.encode()), None, Offers(), reset_owner=True)
    with pytest.raises(ContextError, match=f'^"{path}"' + SWAPPED):
        list(walk.batches())


@pytest.mark.parametrize(
    ("method", "path", "followed"), [("lookup", "sub/link", "sub/link"), ("entries", "sub", "sub/*")]
)
def test_a_directory_swapped_under_a_followed_path_fails_it(
    linked: Path, method: str, path: str, followed: str
) -> None:
    """Following the links of a Dockerfile's paths does not leave the tree either."""
    with pytest.raises(ContextError, match=f'^"{path}"' + SWAPPED):
        follow_links(Swapping(linked, method, path.encode()), [followed])


def test_the_root_may_not_become_a_link(tmp_path: Path) -> None:
    """The root is resolved once; a link in its place later is an error."""
    (tmp_path / "root").mkdir()
    source = Directory(tmp_path / "root")
    source.check()
    (tmp_path / "root").rmdir()
    (tmp_path / "root").symlink_to("/")
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        list(source.entries(b""))


def test_many_files_of_a_directory_are_read_through_one_descriptor(tmp_path: Path) -> None:
    """Inside the block the directory stays open, and its new place is no matter; afterwards nothing is open."""
    before = os.listdir("/proc/self/fd")
    (tmp_path / "sub").mkdir()
    for name in "ab":
        (tmp_path / "sub" / name).write_bytes(b"x")
    source = Directory(tmp_path)
    with source.keeping():
        assert source.fetch(b"sub/a", 1) == b"x"
        (tmp_path / "sub").rename(tmp_path / "moved")
        assert source.fetch(b"sub/b", 1) == b"x"
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(FileNotFoundError):
        source.fetch(b"sub/b", 1)


def test_a_check_by_another_call_disturbs_nobody(tmp_path: Path) -> None:
    """A transfer that begins checks the directory while another one has it open."""
    before = os.listdir("/proc/self/fd")
    (tmp_path / "f").write_bytes(b"x")
    source = Directory(tmp_path)
    with source.keeping():
        assert source.fetch(b"f", 1) == b"x"
        source.check()
        assert source.fetch(b"f", 1) == b"x"
    assert os.listdir("/proc/self/fd") == before


def test_a_check_in_the_middle_of_a_call_leaves_its_descriptor_alone(tmp_path: Path) -> None:
    """A descriptor is closed only by who opened it, also when the root is settled in between."""
    anchor = Anchor(os.fsencode(tmp_path))
    with anchor.keeping():
        descriptor = anchor.take(b"")
        anchor.settle(os.fsencode(tmp_path))
        anchor.done(descriptor)
        assert anchor.take(b"") == descriptor
        os.fstat(descriptor)


def test_a_path_that_no_system_takes() -> None:
    """It is an error of the context, as of one that is missing."""
    with pytest.raises(ContextError, match=r'^directory "a\\x00b" cannot be used'):
        Directory("a\0b").check()


@pytest.mark.parametrize(
    ("kind", "words"),
    [("file", "is not a directory"), ("loop", "leads to itself"), ("none", "does not exist")],
)
def test_a_root_that_is_no_directory_is_named(tmp_path: Path, kind: str, words: str) -> None:
    """With what it is, before a transfer begins."""
    path = tmp_path / "root"
    if kind == "file":
        path.touch()
    elif kind == "loop":
        path.symlink_to(path)
    with pytest.raises(ContextError, match=f'"{path}" {words}'):
        Directory(path).check()

"""Any listing into any directory: applied exactly as an obvious model says, or refused; and nothing outside is touched.

The model keeps trees as dicts of paths. It knows a listing is good when the paths, cut at their slashes, come in
strictly rising order, each below a directory of the listing.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import event, given, settings
from hypothesis import strategies as st

from mobysession._pb.fsutil_pb2 import Packet
from mobysession.errors import RemoteProtocolError
from mobysession.filesync import modes
from mobysession.filesync.terms import Differ
from tests.filesync.landings import END, MTIME, data, entry, open_landing

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Kind, permissions, time (0 where nobody set it), content or target, and what it is linked with.
Node = tuple[str, int, int, bytes, object]
Tree = dict[bytes, Node]


class Listed(NamedTuple):
    """One entry of a listing."""

    path: bytes
    kind: str
    mode: int
    mtime: int
    content: bytes
    link: bytes


_KINDS = {
    "dir": modes.DIRECTORY,
    "file": 0,
    "hard": 0,
    "symlink": modes.SYMLINK,
    "fifo": modes.NAMED_PIPE,
    "odd": modes.SOCKET,
}


def is_good(listing: Sequence[Listed]) -> bool:
    """Tell whether a sender may send this."""
    directories, files = {b""}, set()
    last: list[bytes] = []
    for path, kind, _, _, _, link in listing:
        parts = path.split(b"/")
        if b"\0" in path or any(part in (b"", b".", b"..") for part in parts):
            return False
        if parts <= last or b"/".join(parts[:-1]) not in directories or kind == "odd":
            return False
        if kind == "hard" and link not in files:
            return False
        last = parts
        if kind == "dir":
            directories.add(path)
        elif kind == "file":
            files.add(path)
    return True


def apply(old: Tree, listing: Sequence[Listed], *, merge: bool) -> Tree:
    """Return what the directory must hold afterwards."""
    new = dict(old)
    for path, kind, mode, mtime, content, link in listing:
        if kind != "dir" or (path in new and new[path][0] != "dir"):
            new = {other: node for other, node in new.items() if other != path and not other.startswith(path + b"/")}
        if kind == "hard":
            new[path] = new[link]
        elif kind == "symlink":
            new[path] = ("symlink", 0o777, mtime, link, (path,))
        else:
            # In a tuple: what is linked with what was there already is called by a path.
            new[path] = (kind, mode, mtime, content if kind == "file" else b"", (path,))
    if not merge:
        listed = {listed.path for listed in listing}
        new = {path: node for path, node in new.items() if path in listed}
    return new


def look(root: Path, listing: Sequence[Listed]) -> Tree:
    """Return what a directory holds, as the model would write it."""
    timed = {listed.path for listed in listing}
    firsts: dict[int, bytes] = {}
    found: Tree = {}
    for folder, directories, files in os.walk(os.fsencode(root)):
        for name in sorted((*directories, *files)):
            full = os.path.join(folder, name)
            path = full[len(os.fsencode(root)) + 1 :]
            info = os.lstat(full)
            kind = {stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}[
                stat.S_IFMT(info.st_mode)
            ]
            content = (
                os.readlink(full)
                if kind == "symlink"
                else Path(os.fsdecode(full)).read_bytes()
                if kind == "file"
                else b""
            )
            mtime = info.st_mtime_ns if path in timed else 0
            first = path if kind == "dir" else firsts.setdefault(info.st_ino, path)
            found[path] = (kind, stat.S_IMODE(info.st_mode), mtime, content, first)
    return found


def same_links(tree: Tree) -> set[frozenset[bytes]]:
    """Return which paths are one file."""
    groups: dict[object, set[bytes]] = {}
    for path, node in tree.items():
        groups.setdefault((node[0] == "dir", node[4]), set()).add(path)
    return {frozenset(group) for group in groups.values()}


def check(found: Tree, expected: Tree, listing: Sequence[Listed], *, replaced: bool = True) -> None:
    """See that a tree is the expected one; times count where the listing had them.

    Where files may be kept because they are the same, they keep names that nobody listed, too.
    """
    timed = {listed.path for listed in listing}
    assert {path: node[:4] for path, node in found.items()} == {
        path: (*node[:2], node[2] if path in timed else 0, node[3]) for path, node in expected.items()
    }
    if not replaced:
        found, expected = ({path: node for path, node in tree.items() if path in timed} for tree in (found, expected))
    assert same_links(found) == same_links(expected)


_names = st.sampled_from([b"a", b"a-b", b"b", b"c", b"\xff"])
_paths = st.lists(_names, min_size=1, max_size=3).map(b"/".join)
_bad_paths = st.sampled_from(
    [
        b"",
        b".",
        b"..",
        b"/",
        b"/a",
        b"../outside",
        b"a/..",
        b"a/../../outside",
        b"a//b",
        b"./a",
        b"a/",
        b"a\0b",
        b"//a",
        b"a/./b",
    ]
)
# Each of another size, so that a file of the same attributes has the same content.
_contents = st.sampled_from([b"", b"x", b"y" * 5000, bytes(8192), b"z" + bytes(4096)])
_chances = st.integers(0, 2**16).map(random.Random)
_modes = st.sampled_from([0o644, 0o755, 0o600, 0o777])
_times = st.sampled_from([MTIME, MTIME + 1, 0])


def _listed(paths: st.SearchStrategy[bytes], kinds: list[str]) -> st.SearchStrategy[Listed]:
    return st.builds(Listed, paths, st.sampled_from(kinds), _modes, _times, _contents, _paths)


@st.composite
def good_listings(draw: st.DrawFn) -> list[Listed]:
    """Draw a listing that a sender may send: parents are put in, order is made, links lead to files."""
    drawn = {
        listed.path: listed
        for listed in draw(st.lists(_listed(_paths, ["file", "dir", "symlink", "fifo", "hard"]), max_size=9))
    }
    for path in list(drawn):
        parts = path.split(b"/")
        for end in range(1, len(parts)):
            parent = b"/".join(parts[:end])
            drawn[parent] = Listed(parent, "dir", 0o755, MTIME, b"", b"")
    listing: list[Listed] = []
    files: list[bytes] = []
    for listed in sorted(drawn.values(), key=lambda listed: listed.path.split(b"/")):
        if listed.kind == "hard":
            listed = listed._replace(link=draw(st.sampled_from(files))) if files else listed._replace(kind="file")
        if listed.kind == "file":
            files.append(listed.path)
        listing.append(listed)
    return listing


@st.composite
def any_listings(draw: st.DrawFn) -> list[Listed]:
    """Draw a listing that may break any rule, mostly in one place."""
    listing = draw(good_listings())
    bad = draw(st.lists(_listed(st.one_of(_paths, _bad_paths), [*_KINDS]), max_size=2))
    for listed in bad:
        listing.insert(draw(st.integers(0, len(listing))), listed)
    return listing


def _packets(listing: Sequence[Listed], chance: random.Random) -> list[bytes]:
    """Return the transfer, contents cut and interleaved at random behind their entries."""
    packets: list[bytes] = []
    waiting: list[list[bytes]] = []
    for number, listed in enumerate(listing):
        packets.append(_announcement(listed))
        if listed.kind == "file":
            content = listed.content
            cut = chance.randint(0, len(content))
            waiting.append([data(number, piece) for piece in (content[:cut], content[cut:]) if piece] + [data(number)])
        while waiting and chance.random() < 0.5:
            packets.append(_next_piece(waiting, chance))
    packets.append(END)
    while waiting:
        packets.append(_next_piece(waiting, chance))
    return packets


def _announcement(listed: Listed) -> bytes:
    target = listed.link if listed.kind in ("hard", "symlink") else b""
    mode = _KINDS[listed.kind] | listed.mode
    return entry(listed.path, mode, mtime=listed.mtime, linkname=target, size=len(listed.content))


def _next_piece(waiting: list[list[bytes]], chance: random.Random) -> bytes:
    chosen = chance.randrange(len(waiting))
    piece = waiting[chosen].pop(0)
    if not waiting[chosen]:
        del waiting[chosen]
    return piece


def _plant(root: Path, listing: Sequence[Listed], outside: Path) -> Tree:
    """Make what was there before; symbolic links lead to the outside."""
    for listed in listing:
        path = os.path.join(os.fsencode(root), listed.path)
        match listed.kind:
            case "dir":
                os.mkdir(path)
            case "file":
                Path(os.fsdecode(path)).write_bytes(listed.content)
            case "hard":
                os.link(os.path.join(os.fsencode(root), listed.link), path)
            case "fifo":
                os.mkfifo(path)
            case _:
                os.symlink(os.fsencode(outside), path)
    return look(root, [])


def _receive(root: Path, packets: Sequence[bytes], merge: bool, differ: Differ, batch: int) -> None:
    landing = open_landing(root, merge=merge, differ=differ)
    try:
        for start in range(0, len(packets), batch):
            landing.take(packets[start : start + batch])
        assert landing.complete
        landing.finish()
    finally:
        landing.close()


@settings(deadline=None, max_examples=75)
@given(good_listings(), any_listings(), st.booleans(), st.integers(1, 5), _chances)
def test_any_listing_into_any_directory(
    before: list[Listed], listing: list[Listed], merge: bool, batch: int, chance: random.Random
) -> None:
    """A good listing comes out as the model says; a bad one is refused; either way the outside stays as it was."""
    folder = Path(tempfile.mkdtemp())
    try:
        root, outside = folder / "root", folder / "outside"
        root.mkdir()
        outside.mkdir()
        (outside / "a").write_bytes(b"outside")
        outside_before = [_state(outside), _state(outside / "a")]
        old = _plant(root, before, outside)
        refused = False
        try:
            _receive(root, _packets(listing, chance), merge, Differ.NONE, batch)
        except RemoteProtocolError:
            refused = True
        event("refused" if refused else "applied")
        assert refused is not is_good(listing)
        found = look(root, listing)
        assert not [path for path in found if b".tmp." in path]
        if refused:
            contents = {listed.content for listed in listing} | {node[3] for node in old.values()}
            assert all(node[3] in contents for node in found.values() if node[0] == "file")
        else:
            check(found, apply(old, listing, merge=merge), listing)
        assert os.listdir(outside) == ["a"]
        assert (outside / "a").read_bytes() == b"outside"
        assert [_state(outside), _state(outside / "a")] == outside_before
        assert sorted(os.listdir(folder)) == ["outside", "root"]
    finally:
        shutil.rmtree(folder)


def _state(path: Path) -> tuple[int, ...]:
    found = os.lstat(path)
    return found.st_mode, found.st_uid, found.st_gid, found.st_ino, found.st_nlink, found.st_size, found.st_mtime_ns


@settings(deadline=None, max_examples=50)
@given(good_listings(), good_listings(), st.booleans(), _chances)
def test_comparing_first_comes_to_the_same(
    before: list[Listed], listing: list[Listed], merge: bool, chance: random.Random
) -> None:
    """With metadata compared, what is there already is not asked for, and the tree comes out as the model says."""
    folder = Path(tempfile.mkdtemp())
    try:
        _receive(folder, _packets(before, chance), False, Differ.NONE, 100)
        old = look(folder, before)
        asked = _send_what_is_asked_for(folder, listing, merge)
        check(look(folder, listing), apply(old, listing, merge=merge), listing, replaced=False)
        new = {listed.path for listed in listing if listed.kind == "file"} - old.keys()
        assert len(new) <= asked <= sum(listed.kind == "file" for listed in listing)
        if merge:
            assert _send_what_is_asked_for(folder, listing, merge) == 0
    finally:
        shutil.rmtree(folder)


def _send_what_is_asked_for(root: Path, listing: Sequence[Listed], merge: bool) -> int:
    """Receive a listing, comparing metadata; return how many files were asked for."""
    landing = open_landing(root, merge=merge, differ=Differ.METADATA)
    try:
        requests = landing.take([*map(_announcement, listing), END])
        numbers = [Packet.FromString(request).ID for request in requests]
        for number in numbers:
            content = listing[number].content
            landing.take([*([data(number, content)] if content else []), data(number)])
        assert landing.complete
        landing.finish()
        return len(numbers)
    finally:
        landing.close()

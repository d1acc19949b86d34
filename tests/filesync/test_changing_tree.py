"""A tree that others change while it is sent, and one that may not be read: every outcome in the table of the docs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mobysession._pb.fsutil_pb2 import Packet
from mobysession.errors import ContextError, RpcError
from mobysession.filesync import Directory, Entry
from mobysession.filesync.naming import owner
from mobysession.filesync.offers import Offers
from mobysession.filesync.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NOBODY = 65534


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Give a small tree with one of the kinds that can change."""
    root = tmp_path / "tree"
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"12345")
    (root / "d" / "link").symlink_to("f")
    return root


def _same_size(root: Path) -> None:
    (root / "d" / "f").write_bytes(b"54321")
    os.utime(root / "d" / "f", ns=(1, 1))


def _relink(root: Path) -> None:
    (root / "d" / "link").unlink()
    (root / "d" / "link").symlink_to("g")


CHANGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("same size", _same_size, '^"d/f" changed while'),
    ("mode", lambda root: (root / "d" / "f").chmod(0o600), '^"d/f" changed while'),
    ("new name", lambda root: (root / "d" / "new").touch(), '^"d" changed while'),
    ("new at the root", lambda root: (root / "new").touch(), r'^"\." changed while'),
    ("link", _relink, '^"d" changed while'),
    ("unlinked", lambda root: (root / "d" / "f").rename(root / "d" / "g"), '^"d" changed while'),
]


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
async def test_strict_finds_every_change(
    tree: Path, converse: Any, change: Callable[[Path], object], message: str
) -> None:
    """Whatever differs in an attribute at the end is an error that names it, in place of the FIN."""
    told = []

    async def play(peer: Any) -> None:
        assert len(await peer.listing()) == 3
        await peer.request(1)
        assert await peer.content(1) == b"12345"
        change(tree)
        await peer.say(Packet(type=Packet.PACKET_FIN))
        told.append(await peer.packet())

    with pytest.raises(ContextError, match=message) as caught:
        await converse(tree, play, strict=True)
    assert told == [Packet(type=Packet.PACKET_ERR, data=caught.value.message.encode())]


async def test_strict_is_content_with_a_tree_that_stays(tree: Path, converse: Any) -> None:
    """Reading changes nothing, and nor do hard links, sockets or a second transfer."""
    os.link(tree / "d" / "f", tree / "twin")

    async def play(peer: Any) -> None:
        assert len(await peer.listing()) == 4
        await peer.request(1)
        assert await peer.content(1) == b"12345"
        await peer.part()

    for _ in range(2):
        assert (await converse(tree, play, strict=True)).progress.sent == 1


@pytest.mark.parametrize("size", [3, 7])
async def test_strict_fails_at_once_over_another_size(tree: Path, converse: Any, size: int) -> None:
    """A file that shrank or grew ends the transfer when it is read."""

    async def play(peer: Any) -> None:
        await peer.listing()
        (tree / "d" / "f").write_bytes(bytes(size))
        await peer.request(1)
        while (await peer.packet()).type != Packet.PACKET_ERR:
            pass

    with pytest.raises(ContextError, match=rf'^"d/f" (shrank|grew) from 5 to {size} bytes while'):
        await converse(tree, play, strict=True)


class Removing(Directory):
    """A directory in which ``d`` is removed just before it is listed."""

    def entries(self, directory: bytes) -> Iterator[Entry]:
        if directory == b"d":
            os.rename(f"{self.path}/d", f"{self.path}/../gone")
        return super().entries(directory)


def test_a_directory_that_vanishes_after_it_was_announced_fails_the_walk(tree: Path) -> None:
    """It was promised, and what was in it would be missing without a word."""
    with pytest.raises(ContextError, match=r'^"d" vanished while the directory was being sent'):
        list(Walk(Removing(tree), None, Offers(), reset_owner=True).batches())


@pytest.fixture
def shared() -> Iterator[Path]:
    """Give a directory that every user can enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def as_nobody(shared: Path) -> Iterator[Path]:
    """Give that directory to a process that is, for files, nobody."""
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    owner(0, 0)  # loads modules, which nobody may not read where root's Python is at home
    os.seteuid(_NOBODY)
    try:
        yield shared
    finally:
        os.seteuid(0)


def _as_root(make: Callable[[], object]) -> None:
    os.seteuid(0)
    try:
        make()
    finally:
        os.seteuid(_NOBODY)


async def test_an_unreadable_file_fails_before_it_is_offered(as_nobody: Path, converse: Any) -> None:
    """The error says whose it is and what its mode is, and comes before anything of the file is promised."""

    def make() -> None:
        (as_nobody / "a").write_bytes(b"1")
        (as_nobody / "secret").write_bytes(b"2")
        os.chmod(as_nobody / "secret", 0o600)

    _as_root(make)
    told = []

    async def play(peer: Any) -> None:
        told.append(await peer.packet())

    with pytest.raises(ContextError) as caught:
        await converse(as_nobody, play)
    expected = 'cannot read "secret": permission denied (it is root:root\'s, mode 0600)'
    assert caught.value.message == expected
    assert caught.value.hint == "make it readable for this user, or exclude it in .dockerignore"
    assert told == [Packet(type=Packet.PACKET_ERR, data=expected.encode())]


def test_an_unreadable_directory_is_named_with_its_owner(as_nobody: Path) -> None:
    """A directory that cannot be listed ends the walk; one that is left out is not looked into, or not minded."""
    _as_root(lambda: (as_nobody / "d").mkdir(mode=0o700))
    source = Directory(as_nobody)
    source.check()
    with pytest.raises(ContextError, match=r'cannot list "d": permission denied \(it is root:root\'s, mode 0700\)'):
        list(Walk(source, None, Offers(), reset_owner=True).batches())


def test_what_others_may_not_read_is_read_by_its_owner(as_nobody: Path) -> None:
    """The mode alone refuses nothing that the system allows."""

    def make() -> None:
        for name, mode in (("own", 0o400), ("all", 0o444), ("group", 0o640)):
            (as_nobody / name).write_bytes(b"1")
            os.chmod(as_nobody / name, mode)
        os.chown(as_nobody / "own", _NOBODY, 0)

    _as_root(make)
    source = Directory(as_nobody)
    source.check()
    offers = Offers()
    list(Walk(source, None, offers, reset_owner=True).batches())
    assert len(offers) == 3


async def test_a_failing_receiver_may_not_like_the_names(tmp_path: Path, converse: Any) -> None:
    """Newer engines refuse names that are no UTF-8 without saying which; the hint does."""
    (tmp_path / os.fsdecode(b"a\xff")).touch()

    async def play(peer: Any) -> None:
        await peer.listing()
        await peer.say(Packet(type=Packet.PACKET_ERR, data=b"string field contains invalid UTF-8"))

    with pytest.raises(RpcError) as caught:
        await converse(tmp_path, play)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith('"a\\xff" is not UTF-8')

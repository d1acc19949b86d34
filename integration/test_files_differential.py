"""Generated trees and ignore files, built by us and by ``docker buildx build``: the same result, byte for byte.

The results leave the engine as tar archives, so that nothing of an image store stands between; one reader looks at
both.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from typing import TYPE_CHECKING, NamedTuple

import pytest

from integration.images import build_image
from integration.nasty import make_ignore_file, make_nasty_tree, make_plain_tree, make_socket
from mobysession.errors import MobysessionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from integration.engines import Buildx, Engine

    Both = Callable[[Path], tuple[dict[str, "Found"], dict[str, "Found"]]]

COPY_ALL = "FROM scratch\nCOPY . /\n"


class Found(NamedTuple):
    """What a tar archive says of one path."""

    kind: bytes
    mode: str
    owner: tuple[int, int]
    mtime: str
    link: str
    device: tuple[int, int]
    xattrs: dict[str, str]
    size: int
    digest: str


def read_tar(path: Path) -> dict[str, Found]:
    """Return everything in an archive by its path."""
    found = {}
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            xattrs = {name: value for name, value in member.pax_headers.items() if "xattr" in name}
            found[member.name] = Found(
                kind=member.type,
                mode=oct(member.mode),
                owner=(member.uid, member.gid),
                mtime=member.pax_headers.get("mtime", str(member.mtime)),
                link=member.linkname,
                device=(member.devmajor, member.devminor) if member.isdev() else (0, 0),
                xattrs=xattrs,
                size=member.size,
                digest=hashlib.sha256(content.read()).hexdigest() if content else "",
            )
    return found


@pytest.fixture
def both(engine: Engine, buildx: Buildx, tmp_path: Path) -> Both:
    """Give a function that builds a directory with both clients and returns both results."""

    def build(context: Path) -> tuple[dict[str, Found], dict[str, Found]]:
        ours, theirs = tmp_path / "ours.tar", tmp_path / "theirs.tar"
        build_image(engine, context, no_cache=True, outputs=[f"type=tar,dest={ours}"])
        done = _buildx(engine, buildx, context, theirs)
        assert done.returncode == 0, done.stderr.decode()
        return read_tar(ours), read_tar(theirs)

    return build


def _buildx(engine: Engine, buildx: Buildx, context: Path, output: Path) -> subprocess.CompletedProcess[bytes]:
    arguments = ("build", "--no-cache", "--provenance=false", "--output", f"type=tar,dest={output}", context)
    return buildx.run(engine.host, *arguments, config_dir=context.parent / "buildx")


def _context(tmp_path: Path) -> Path:
    context = tmp_path / "context"
    context.mkdir()
    return context


def _write(context: Path, dockerfile: str = COPY_ALL) -> None:
    (context / "Dockerfile").write_text(dockerfile)


@pytest.mark.parametrize("seed", range(4))
def test_nasty_trees(both: Both, engine: Engine, tmp_path: Path, seed: int) -> None:
    """Every kind of entry, name, mode, owner, time, link and attribute arrives as buildx brings it."""
    context = _context(tmp_path)
    make_nasty_tree(context, seed)
    _write(context)
    ours, theirs = both(context)
    assert list(ours) == list(theirs)
    for name, state in theirs.items():
        assert (name, ours[name]) == (name, _as_it_can_be(engine, state, ours[name]))
    assert len(ours) > 20


def _as_it_can_be(engine: Engine, theirs: Found, ours: Found) -> Found:
    """Leave out when directories were made, where the engine's COPY makes them itself."""
    return theirs._replace(mtime=ours.mtime) if engine.major < 23 and theirs.kind == tarfile.DIRTYPE else theirs


def test_a_socket_and_a_pipe(both: Both, tmp_path: Path) -> None:
    """A socket comes as the empty file that buildx makes of it, and nothing waits for the other end of a pipe."""
    context = _context(tmp_path)
    make_socket(context / "socket")
    subprocess.run(["mkfifo", context / "pipe"], check=True)
    _write(context)
    ours, theirs = both(context)
    assert ours.keys() == theirs.keys()
    assert (ours["socket"].kind, ours["socket"].size) == (tarfile.REGTYPE, 0)
    assert ours["socket"]._replace(mtime="") == theirs["socket"]._replace(mtime="")


@pytest.mark.parametrize("seed", range(12))
def test_ignore_files(both: Both, tmp_path: Path, seed: int) -> None:
    """Generated patterns leave out the same files, whatever they mean."""
    context = _context(tmp_path)
    make_plain_tree(context, seed)
    (context / ".dockerignore").write_bytes(make_ignore_file(seed).encode())
    _write(context)
    ours, theirs = both(context)
    assert list(ours) == list(theirs), (context / ".dockerignore").read_text()


def test_names_that_are_not_utf8(engine: Engine, buildx: Buildx, tmp_path: Path) -> None:
    """Old engines take any name; where a new one refuses it, for both of us, we say which name it was."""
    context = _context(tmp_path)
    (context / "good").touch()
    with open(bytes(context) + b"/bad\xff", "wb") as file:
        file.write(b"x")
    _write(context)
    ours, theirs = tmp_path / "ours.tar", tmp_path / "theirs.tar"
    if _buildx(engine, buildx, context, theirs).returncode == 0:
        build_image(engine, context, no_cache=True, outputs=[f"type=tar,dest={ours}"])
        assert list(read_tar(ours)) == list(read_tar(theirs))
        return
    with pytest.raises(MobysessionError) as caught:
        build_image(engine, context, no_cache=True, outputs=[f"type=tar,dest={ours}"])
    assert '"bad\\xff" is not UTF-8' in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("pattern", "line"), [("a[", 2), ("/a/../[", 2), ("! ok\\", 2)], ids=["bracket", "cleaned", "backslash"]
)
def test_a_pattern_that_does_not_parse(engine: Engine, tmp_path: Path, pattern: str, line: int) -> None:
    """The error names the file and the line, as buildx does not."""
    context = _context(tmp_path)
    (context / ".dockerignore").write_text(f"fine\n{pattern}\n")
    _write(context)
    with pytest.raises(MobysessionError) as caught:
        build_image(engine, context)
    assert f".dockerignore:{line}" in f"{caught.value} {caught.value.hint}"

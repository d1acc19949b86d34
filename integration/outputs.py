"""What an output brought, to the last attribute, and trees that have one of everything."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Found", "look", "make_nasty_tree"]


@dataclass(frozen=True)
class Found:
    """One entry, as lstat sees it; ``names`` are all that the same file has in the tree."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    device: int
    target: str
    digest: str
    xattrs: tuple[tuple[str, bytes], ...]
    names: frozenset[str]


def look(root: Path) -> dict[str, Found]:
    """Return everything below ``root``."""
    paths = {str(path.relative_to(root)): path for path in root.rglob("*")}
    names: dict[int, set[str]] = {}
    for name, path in paths.items():
        names.setdefault(path.lstat().st_ino, set()).add(name)
    return {name: _look(path, frozenset(names[path.lstat().st_ino])) for name, path in paths.items()}


def _look(path: Path, names: frozenset[str]) -> Found:
    found = path.lstat()
    kind = stat.S_IFMT(found.st_mode)
    return Found(
        mode=found.st_mode,
        uid=found.st_uid,
        gid=found.st_gid,
        size=found.st_size if kind == stat.S_IFREG else 0,
        mtime=found.st_mtime_ns,
        device=found.st_rdev,
        target=os.readlink(path) if kind == stat.S_IFLNK else "",
        digest=hashlib.sha256(path.read_bytes()).hexdigest() if kind == stat.S_IFREG else "",
        xattrs=tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in _xattrs(path)),
        names=names if kind != stat.S_IFDIR else frozenset(),
    )


def _xattrs(path: Path) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def make_nasty_tree(folder: Path, seed: int) -> None:
    """Fill ``folder`` with a few hundred entries of every kind, drawn by ``seed``, with unpleasant names and sizes."""
    chance = random.Random(seed)
    folders = [folder]
    files: list[Path] = []
    for number in range(250):
        path = chance.choice(folders[-20:]) / f"{chance.choice(_PREFIXES)}{number}"
        kind = chance.choices(_KINDS, weights=_WEIGHTS)[0]
        _make(path, kind, chance, files)
        if kind == "directory":
            folders.append(path)
    for path in sorted(folder.rglob("*"), key=lambda path: len(path.parts), reverse=True):
        if not path.is_symlink():
            path.chmod(chance.choice(_MODES) | (0o700 if path.is_dir() else 0))
        os.utime(path, ns=(0, chance.randrange(10**18, 2 * 10**18)), follow_symlinks=False)


_PREFIXES = ("a", "a-", "a.", "a b", "ä", "日本", "new\nline", "quo'te\"", "back\\slash", "..x", "-", "~", "x" * 200)
_KINDS = ("file", "directory", "symlink", "hard", "fifo", "device")
_WEIGHTS = (10, 5, 3, 3, 1, 1)
_MODES = (0o644, 0o600, 0o755, 0o4755, 0o2755, 0o1777, 0o6711, 0o444, 0)
_SIZES = (0, 1, 4095, 4096, 4097, 32768, 32769, 100_000, 1_100_000)


def _make(path: Path, kind: str, chance: random.Random, files: list[Path]) -> None:
    match kind:
        case "directory":
            path.mkdir()
        case "symlink":
            path.symlink_to(chance.choice(["/etc/passwd", "../../..", "no/where", path.name, "x" * 1000]))
        case "hard" if files:
            path.hardlink_to(chance.choice(files))
        case "fifo":
            os.mkfifo(path)
        case "device":
            os.mknod(path, chance.choice([stat.S_IFCHR, stat.S_IFBLK]) | 0o600, os.makedev(7, chance.randrange(300)))
        case _:
            size = chance.choice(_SIZES)
            path.write_bytes(chance.randbytes(size) if chance.random() < 0.5 else bytes(size))
            if chance.random() < 0.2:
                os.setxattr(path, "user.test", chance.randbytes(10))
            files.append(path)

"""Trees with everything that a file system allows, made from a seed: the same seed makes the same tree."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["make_ignore_file", "make_nasty_tree", "make_plain_tree"]

_NAMES: Final = (
    *(
        b"a",
        b"a-b",
        b"a.b",
        b"ab",
        b"A",
        b"b",
        b".hidden",
        b"..data",
        b"...",
        b"-rf",
        b"~",
        b"#x",
        b"!keep",
        b"*",
        b"[x]",
    ),
    *(b"with space", b"new\nline", b"tab\there", b"back\\slash", b"quo\"te'", b"$HOME", b"a&b;c", b"\x01\x7f", b"%41"),
    *("späße".encode(), "日本".encode(), "e\u0301".encode(), "\U0001f600".encode(), b"x" * 255, b"y" * 254 + b"!"),
)
_MODES: Final = (0o644, 0o755, 0o600, 0o000, 0o777, 0o4755, 0o2755, 0o6711, 0o1666, 0o444)
_DIRECTORY_MODES: Final = (0o755, 0o700, 0o1777, 0o2775, 0o555, 0o3770)
_TARGETS: Final = (
    b"a",
    b"../a",
    b"/etc/passwd",
    b"no/where",
    b".",
    b"..",
    b"./a/../b",
    b"//x//y/",
    b"t" * 1000,
    b"sp ace\n",
)
_SIZES: Final = (0, 1, 100, 4096, 32768, 32769, 131_072, 131_073, 1_048_577)


class _Planter:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.files: list[bytes] = []

    def plant(self, directory: bytes, depth: int) -> None:
        if depth == 3:
            os.mkdir(directory + b"/d")
            self.plant(directory + b"/d", 2)
        for name in self.random.sample(_NAMES, 14 if depth == 3 else self.random.randint(3, 9)):
            path = directory + b"/" + name
            kind = self.random.choice("ffffdddlllhhpcbse")
            if kind == "d" and depth:
                os.mkdir(path)
                self.plant(path, depth - 1)
                os.chmod(path, self.random.choice(_DIRECTORY_MODES))
            elif kind == "l":
                os.symlink(self.random.choice(_TARGETS), path)
            elif kind == "h" and self.files:
                os.link(self.random.choice(self.files), path)
            elif kind in "pcb":
                self.special(path, kind)
            elif kind == "s":
                self.sparse(path)
            else:
                self.file(path)
            self.dress(path)

    def file(self, path: bytes) -> None:
        with open(path, "wb") as file:
            file.write(self.random.randbytes(self.random.choice(_SIZES)))
        os.chmod(path, self.random.choice(_MODES))
        self.files.append(path)

    def sparse(self, path: bytes) -> None:
        with open(path, "wb") as file:
            file.truncate(3_000_000)
            file.seek(2_000_000)
            file.write(b"data")

    def special(self, path: bytes, kind: str) -> None:
        # Devices below an excluded name are made too; a build that copies them needs an engine that allows it.
        mode = {"p": stat.S_IFIFO, "c": stat.S_IFCHR, "b": stat.S_IFBLK}[kind]
        os.mknod(path, mode | 0o640, os.makedev(self.random.randint(1, 9), self.random.randint(0, 300)))

    def dress(self, path: bytes) -> None:
        """Give owner, attributes and time."""
        if self.random.random() < 0.3:
            mode = os.lstat(path).st_mode
            os.chown(path, self.random.randint(0, 70000), self.random.randint(0, 70000), follow_symlinks=False)
            if not stat.S_ISLNK(mode):
                os.chmod(path, stat.S_IMODE(mode))
        if self.random.random() < 0.3 and not stat.S_ISLNK(os.lstat(path).st_mode):
            # Not everywhere, and not on pipes.
            with contextlib.suppress(OSError):
                os.setxattr(path, "user.colour", self.random.randbytes(self.random.randint(0, 40)))
            with contextlib.suppress(OSError):
                os.setxattr(path, "trusted.mine", b"\x00\xff")


def _times(root: bytes, seeded: random.Random) -> None:
    for directory, below, names in os.walk(root, topdown=False):
        for name in (*below, *names):
            moment = seeded.choice((0, 1, 10**9 + 1, 1_234_567_890_123_456_789, -(10**9), 4_000_000_000 * 10**9))
            os.utime(directory + b"/" + name, ns=(moment, moment), follow_symlinks=False)


def make_nasty_tree(folder: Path, seed: int) -> None:
    """Put one into ``folder``."""
    planter = _Planter(seed)
    planter.plant(os.fsencode(folder), 3)
    _times(os.fsencode(folder), planter.random)


def make_socket(path: Path) -> None:
    """Make a socket that nobody listens on."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


_PARTS: Final = ("a", "b", "ab", "a.b", "c", "a-b")


def make_plain_tree(folder: Path, seed: int) -> None:
    """Put a tree of a few names and many directories into ``folder``, for patterns to choose from."""
    seeded = random.Random(seed)

    def plant(here: Path, depth: int) -> None:
        for name in seeded.sample(_PARTS, seeded.randint(2, 5)):
            if depth and seeded.random() < 0.6:
                (here / name).mkdir()
                plant(here / name, depth - 1)
            else:
                (here / name).write_text(name)

    plant(folder, 3)


def make_ignore_file(seed: int) -> str:
    """Return a ``.dockerignore`` with all that its syntax has."""
    return "".join(_lines(random.Random(seed)))


def _lines(seeded: random.Random) -> Iterator[str]:
    pieces = (*_PARTS, "*", "**", "?", "[ab]", "[^a]", "a*", "*b", "\\a", "..", ".", "a|b", "^")
    yield seeded.choice(("\ufeff", "")) + "# a comment\n"
    for _ in range(seeded.randint(2, 8)):
        pattern = "/".join(seeded.choice(pieces) for _ in range(seeded.randint(1, 3)))
        sign = seeded.choice(("", "", "!", "! "))
        yield (
            sign
            + seeded.choice(("", "", "/", " "))
            + pattern
            + seeded.choice(("", "/", "/**", "  "))
            + seeded.choice(("\n", "\r\n"))
        )

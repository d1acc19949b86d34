"""The trees that are sent: every byte is determined, so that any two runs compare."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "BIG",
    "CROWD",
    "FILES",
    "FILE_SIZE",
    "change_some",
    "make_big",
    "make_crowd",
    "make_many",
    "make_modules",
    "make_sparse",
]

MIB: Final = 1024 * 1024
BIG: Final = 1024 * MIB
FILES: Final = 50_000
FILE_SIZE: Final = 2048
_PER_DIRECTORY: Final = 100
CROWD: Final = 300_000
_CROWDED: Final = 300
_PACKAGES: Final = 1000
_DOCKERFILE: Final = b"FROM scratch\nCOPY . /\n"


def make_big(context: Path) -> None:
    """One file of 1 GiB that does not compress."""
    _begin(context)
    block = bytearray(hashlib.shake_128(b"mobysession").digest(MIB))
    with (context / "big").open("wb") as file:
        for index in range(BIG // MIB):
            block[:8] = index.to_bytes(8, "big")
            file.write(block)


def make_sparse(context: Path) -> None:
    """One file of 20 GiB that takes no room, but for a page at its end."""
    _begin(context)
    with (context / "sparse").open("wb") as file:
        file.seek(20 * 1024 * MIB - 4096)
        file.write(bytes(range(256)) * 16)


def make_many(context: Path) -> None:
    """50,000 files of 2 KiB in 500 directories."""
    _begin(context)
    for index in range(FILES):
        folder = context / f"package-{index // _PER_DIRECTORY:03}"
        if index % _PER_DIRECTORY == 0:
            folder.mkdir()
        _write(folder / f"module_{index:05}.py", index)


def make_crowd(context: Path) -> None:
    """300,000 files of a few bytes in 1,000 directories."""
    _begin(context)
    for index in range(CROWD):
        folder = context / f"package-{index // _CROWDED:03}"
        if index % _CROWDED == 0:
            folder.mkdir()
        _write(folder / f"module_{index:06}.py", index, 16)


def make_modules(context: Path) -> None:
    """100,000 files as packages of JavaScript have them, of which ``.dockerignore`` leaves out 95 in a hundred."""
    _begin(context)
    (context / ".dockerignore").write_text("node_modules\n**/*.map\n!README.md\n")
    index = 0
    for package in range(_PACKAGES):
        # 95 packages of a hundred are excluded, the others are sources.
        top = context / ("src" if package % 20 == 0 else "node_modules") / f"package-{package:04}"
        for folder in ("", "lib", "lib/internal", "dist", "test"):
            (top / folder).mkdir(parents=True, exist_ok=True)
            for _ in range(20):
                _write(top / folder / f"file-{index:06}.js", index, 256)
                index += 1


def change_some(context: Path, turn: int) -> None:
    """Change five of the 50,000 files, others each time."""
    for number in range(5):
        index = (turn * 5 + number) * 997 % FILES
        path = context / f"package-{index // _PER_DIRECTORY:03}" / f"module_{index:05}.py"
        path.write_bytes(os.urandom(FILE_SIZE))


def _begin(context: Path) -> None:
    context.mkdir()
    (context / "Dockerfile").write_bytes(_DOCKERFILE)


def _write(path: Path, index: int, size: int = FILE_SIZE) -> None:
    path.write_bytes(hashlib.shake_128(index.to_bytes(8, "big")).digest(size))

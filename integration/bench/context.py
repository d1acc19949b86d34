"""The directories that are built: every byte in them is determined, so that any two runs of the benchmark compare."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BIG_FILE", "SMALL_FILES", "SMALL_FILE_BYTES", "make_big", "make_many", "make_trivial"]

MIB = 1024 * 1024

BIG_FILE = 512 * MIB
SMALL_FILES = 20_000
FILES_PER_DIRECTORY = 100
SMALL_FILE_BYTES = sum(64 + index * 37 % 2000 for index in range(SMALL_FILES))


def make_trivial(context: Path) -> None:
    """One file of a few bytes."""
    _begin(context)
    (context / "greeting").write_bytes(b"hello\n")


def make_big(context: Path) -> None:
    """One file of 512 MiB that does not compress."""
    _begin(context)
    block = bytearray(hashlib.shake_128(b"mobysession").digest(MIB))
    with (context / "big").open("wb") as file:
        for index in range(BIG_FILE // MIB):
            block[:8] = index.to_bytes(8, "big")
            file.write(block)


def make_many(context: Path) -> None:
    """20,000 files of 64 bytes to 2 kB, a hundred in each directory."""
    _begin(context)
    for index in range(SMALL_FILES):
        folder = context / f"package-{index // FILES_PER_DIRECTORY:03}"
        if index % FILES_PER_DIRECTORY == 0:
            folder.mkdir()
        content = hashlib.shake_128(index.to_bytes(8, "big")).digest(64 + index * 37 % 2000)
        (folder / f"module_{index:05}.py").write_bytes(content)


def _begin(context: Path) -> None:
    context.mkdir()
    (context / "Dockerfile").write_bytes(b"FROM scratch\nCOPY . /\n")

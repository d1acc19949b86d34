"""Directories to build from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["make_context", "make_rich_tree"]

#: Some mtimes, in seconds since the epoch: whatever did not come from the context has another one.
_MTIME = 1_234_567_890


def make_context(folder: Path, dockerfile: str, files: Mapping[str, str | bytes] = {}) -> Path:
    """Make ``folder`` with a Dockerfile and with ``files``, whose names may have directories; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"Dockerfile": dockerfile, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def make_rich_tree(folder: Path) -> None:
    """Put into ``folder`` what a file system has to offer: kinds, modes, links, names, times, sizes."""
    for name in ("sub/deeper", "empty-dir", "sticky", "with space", "späße", "many"):
        (folder / name).mkdir(parents=True)
    files = {
        "plain": b"plain\n",
        "empty": b"",
        "sub/deeper/leaf": b"leaf\n",
        "with space/a b": b"spaces\n",
        "späße/größe-日本": b"unicode\n",
        "new\nline": b"newline\n",
        "quote\"back\\slash'": b"quotes\n",
        "private": b"0600\n",
        "setuid": b"setuid\n",
        "setgid": b"setgid\n",
        "nothing": b"0000\n",
        "three-mib": bytes(range(256)) * 4096 * 3,
        "hard-a": b"linked\n",
    }
    files |= {f"many/{number:03}": str(number).encode() for number in range(200)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    os.link(folder / "hard-a", folder / "sub/hard-b")
    os.link(folder / "hard-a", folder / "zz-hard-c")
    for link, target in {
        "relative": "sub/deeper/leaf",
        "absolute": "/etc/passwd",
        "dangling": "no/where",
        "to-dir": "sub",
        "sub/up": "../plain",
        "loop": "loop",
    }.items():
        (folder / link).symlink_to(target)
    os.mkfifo(folder / "fifo", 0o640)
    for name, mode in {
        "private": 0o600,
        "setuid": 0o4755,
        "setgid": 0o2755,
        "nothing": 0,
        "sticky": 0o1777,
        "empty-dir": 0o700,
        "sub/deeper": 0o2750,
    }.items():
        (folder / name).chmod(mode)
    os.chown(folder / "plain", 1234, 4321)
    _set_times(folder)


def _set_times(folder: Path) -> None:
    """Give everything an mtime of its own, deepest first, for entering a name changes that of its directory."""
    paths = sorted(folder.rglob("*"), key=lambda path: len(path.parts), reverse=True)
    for number, path in enumerate(paths):
        os.utime(path, (_MTIME, _MTIME + 60 * number), follow_symlinks=False)

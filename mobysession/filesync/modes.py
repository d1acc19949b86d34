"""Go's portable file mode, which is what travels in a STAT.

``os.FileMode`` keeps the nine permission bits where POSIX has them and moves everything else to the top of a 32-bit
word: a directory is bit 31, not ``0o040000``. Sending ``st_mode`` as it is makes files look right and directories
wrong.

Source: Go's src/os/types.go and src/os/stat_linux.go.
"""

from __future__ import annotations

import stat
from functools import lru_cache
from typing import Final

__all__ = [
    "CHAR_DEVICE",
    "DEVICE",
    "DIRECTORY",
    "IRREGULAR",
    "NAMED_PIPE",
    "PERMISSIONS",
    "SETGID",
    "SETUID",
    "SOCKET",
    "STICKY",
    "SYMLINK",
    "TYPE",
    "from_posix",
    "permissions_to_posix",
]

DIRECTORY: Final = 0x8000_0000
SYMLINK: Final = 0x0800_0000
DEVICE: Final = 0x0400_0000
NAMED_PIPE: Final = 0x0200_0000
SOCKET: Final = 0x0100_0000
SETUID: Final = 0x0080_0000
SETGID: Final = 0x0040_0000
CHAR_DEVICE: Final = 0x0020_0000
STICKY: Final = 0x0010_0000
IRREGULAR: Final = 0x0008_0000
PERMISSIONS: Final = 0o777

#: Every type bit. An entry can be requested exactly when none of them is set; both sides use this test.
TYPE: Final = DIRECTORY | SYMLINK | NAMED_PIPE | SOCKET | DEVICE | CHAR_DEVICE | IRREGULAR

_TYPES: Final = {
    stat.S_IFREG: 0,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFBLK: DEVICE,
    stat.S_IFCHR: DEVICE | CHAR_DEVICE,
    stat.S_IFIFO: NAMED_PIPE,
    stat.S_IFSOCK: SOCKET,
}
_SPECIAL: Final = ((stat.S_ISUID, SETUID), (stat.S_ISGID, SETGID), (stat.S_ISVTX, STICKY))


@lru_cache(maxsize=256)
def from_posix(st_mode: int) -> int:
    """Return the Go mode of an ``st_mode``."""
    mode = _TYPES.get(stat.S_IFMT(st_mode), IRREGULAR) | st_mode & PERMISSIONS
    for posix, go in _SPECIAL:
        if st_mode & posix:
            mode |= go
    return mode


@lru_cache(maxsize=256)
def permissions_to_posix(mode: int) -> int:
    """Return the bits of a Go mode that ``chmod`` takes: permissions, set-user-ID, set-group-ID and sticky."""
    bits = mode & PERMISSIONS
    for posix, go in _SPECIAL:
        if mode & go:
            bits |= posix
    return bits

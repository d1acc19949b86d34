"""How paths and failures of the context are put into words."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from mobysession.errors import ContextError

__all__ = ["blamed", "cannot", "changed", "not_utf8", "owner", "quote", "reason"]

_READABLE: Final = "make it readable for this user, or exclude it in .dockerignore"
_STEADY: Final = "leave the directory alone while it is sent, or exclude what keeps changing in .dockerignore"


def quote(path: bytes | str) -> str:
    """Return ``path`` in double quotes on one line, every byte recognizable."""
    text = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
    return '"' + "".join(map(_printable, text)) + '"'


def _printable(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    if 0xDC80 <= ord(char) <= 0xDCFF:
        return f"\\x{ord(char) - 0xDC00:02x}"
    return ascii(char)[1:-1]


def reason(error: OSError) -> str:
    """Return the system's words for ``error``."""
    words = error.strerror or os.strerror(error.errno or errno.EIO)
    return words[:1].lower() + words[1:]


def blamed(error: OSError, found: os.stat_result, path: bytes) -> OSError:
    """Return ``error``, about ``path`` in the tree, with whose it is and what its mode allows."""
    words = f"{error.strerror} (it is {owner(found.st_uid, found.st_gid)}'s, mode {stat.S_IMODE(found.st_mode):04o})"
    return OSError(error.errno, words, path)


def owner(uid: int, gid: int) -> str:
    """Return user and group as ``ls`` shows them."""
    import grp  # only for who may not read something: start-up
    import pwd

    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    return f"{user}:{group}"


def cannot(verb: str, path: bytes, error: OSError) -> ContextError:
    """Return the error of a file that cannot be listed, read or looked at."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)) or error.errno in (errno.ELOOP, errno.EINVAL):
        return changed(path, "vanished" if isinstance(error, FileNotFoundError) else "was replaced")
    hint = _READABLE if isinstance(error, PermissionError) else None
    return ContextError(f"cannot {verb} {quote(path or b'.')}: {reason(error)}", hint=hint)


def not_utf8(path: bytes) -> str:
    """Return why an engine may have failed over the name of a file."""
    return f"{quote(path)} is not UTF-8, which Docker 27.4 and later refuse in file names; rename or exclude it"


def changed(path: bytes, how: str) -> ContextError:
    """Return the error of a file that is not any more what was offered."""
    return ContextError(f"{quote(path or b'.')} {how} while the directory was being sent", hint=_STEADY)

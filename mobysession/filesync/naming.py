"""How paths and failures of the context are put into words."""

from __future__ import annotations

import errno
import os
from typing import Final

from mobysession.errors import ContextError

__all__ = ["cannot", "changed", "quote", "reason"]

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
    return (error.strerror or os.strerror(error.errno or errno.EIO)).lower()


def cannot(verb: str, path: bytes, error: OSError) -> ContextError:
    """Return the error of a file that cannot be listed, read or looked at."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)) or error.errno in (errno.ELOOP, errno.EINVAL):
        return changed(path, "vanished" if isinstance(error, FileNotFoundError) else "was replaced")
    hint = _READABLE if isinstance(error, PermissionError) else None
    return ContextError(f"cannot {verb} {quote(path or b'.')}: {reason(error)}", hint=hint)


def changed(path: bytes, how: str) -> ContextError:
    """Return the error of a file that is not any more what was offered."""
    return ContextError(f"{quote(path or b'.')} {how} while the directory was being sent", hint=_STEADY)

"""Where the store is, and where the sockets of live sessions are.

The store is in the platform's directory for the state of programs, as platformdirs names it. On Linux that is
``$XDG_STATE_HOME``, else ``~/.local/state``, and is put together here: to load platformdirs takes longer than to look.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mobysession import limits
from mobysession.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["runtime_directory", "state_directory", "state_path"]

_APP = "mobysession"
#: Bytes of a socket's name behind its directory.
_NAME = len("/0123456789abcdef.sock")


def state_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Return the directory of what this user's mobysession remembers, which need not exist.

    Args:
        environ: the variables; None: the process's own. On other systems than Linux only these are looked at.
    """
    if sys.platform != "linux":
        import platformdirs

        return platformdirs.user_state_path(_APP, appauthor=False)
    environ = os.environ if environ is None else environ
    named = environ.get("XDG_STATE_HOME", "").strip()
    # A relative one is to be ignored (XDG Base Directory Specification, "Basics").
    base = (
        named if os.path.isabs(named) else os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local/state")
    )
    return Path(base, _APP)


def state_path(environ: Mapping[str, str] | None = None) -> Path:
    """Return the path of the database, which need not exist."""
    return state_directory(environ) / "memory.db"


def runtime_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Make and return the directory for sockets, which nobody but this user may enter; blocking.

    It is in ``$XDG_RUNTIME_DIR``, else beside the database, else, where the path of a socket would be too long for the
    kernel, in ``/tmp``.

    Raises:
        StateError: there is one that others may enter or that is not ours; the user must remove it.
    """
    environ = os.environ if environ is None else environ
    named = environ.get("XDG_RUNTIME_DIR", "")
    candidates = [Path(named, _APP)] if os.path.isabs(named) else []
    candidates += [state_directory(environ) / "run", Path(f"/tmp/{_APP}-{os.getuid()}")]  # noqa: S108 - made private, checked
    fitting = [path for path in candidates if len(os.fsencode(path)) + _NAME <= limits.MAX_SOCKET_PATH]
    _make_private(fitting[0])
    return fitting[0]


def _make_private(directory: Path) -> None:
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(directory)
    except OSError as error:
        raise StateError(f"{directory} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StateError(
            f"{directory} is not a directory that you alone may enter", hint=f"Mend it: chmod 700 {directory}"
        )

"""``ssh://``: the daemon of another host, through the ``ssh`` binary here and the docker CLI there.

``docker system dial-stdio`` copies between its stdin and stdout and the daemon's socket. Each connection is an ssh of
its own, unless the user's configuration shares one (ControlMaster). A buildkitd is reached with ``buildctl dial-stdio``
in the same way. (docker/cli cli/connhelper, moby/buildkit client/connhelper/ssh)
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from mobysession import limits
from mobysession.transport.command import open_command

if TYPE_CHECKING:
    from mobysession.transport.address import SSHAddress
    from mobysession.transport.command import CommandStream

__all__ = ["dial_ssh", "ssh_argv"]

_HINT = (
    "Try: ssh {target} docker version. The key must need no typing, and the docker CLI there must be 18.09 or newer."
)
_BUILDKITD_HINT = "Try: ssh {target} buildctl debug workers. The key must need no typing, and buildctl must be on PATH."


def ssh_argv(address: SSHAddress, remote: str | None = None, *, buildkitd: bool = False) -> list[str]:
    """Return the command line that reaches a daemon.

    Args:
        address: where to, and as whom.
        remote: the command there, quoted for a shell; None: the docker CLI's ``dial-stdio``.
        buildkitd: buildctl's instead of that.
    """
    if remote is None and buildkitd:
        addr = ["--addr", f"unix://{address.socket}"] if address.socket else []
        remote = shlex.join(["buildctl", *addr, "dial-stdio"])
    elif remote is None:
        host = f"--host=unix://{address.socket}" if address.socket else None
        remote = shlex.join(filter(None, ["docker", host, "system", "dial-stdio"]))
    return [
        "ssh",
        *(["-l", address.user] if address.user else []),
        *(["-p", str(address.port)] if address.port else []),
        f"-o ConnectTimeout={limits.CONNECT_TIMEOUT:.0f}",
        "-T",
        "--",
        address.host,
        remote,
    ]


async def dial_ssh(address: SSHAddress, *, name: str, buildkitd: bool = False) -> CommandStream:
    """Start ssh; whether it gets through, the first read tells.

    Raises:
        ConnectError: there is no ssh here; the user must install it.

    Cancel: nothing runs.
    """
    hint = (_BUILDKITD_HINT if buildkitd else _HINT).format(target=_target(address))
    return await open_command(ssh_argv(address, buildkitd=buildkitd), name=name, hint=hint)


def _target(address: SSHAddress) -> str:
    """Return what to say to ssh by hand, to get where the command goes."""
    port = f"-p {address.port} " if address.port is not None else ""
    user = f"{address.user}@" if address.user is not None else ""
    return f"{port}{user}{address.host}"

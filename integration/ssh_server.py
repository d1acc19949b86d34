"""An ssh server of our own, with throwaway keys, whose ``docker`` command, if any, talks to the engine of a test."""

from __future__ import annotations

import contextlib
import getpass
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from mobysession.errors import EngineError
from mobysession.testing.packages import SYSTEM_PATH, run_command

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SSHServer", "open_ssh_server"]

_HINT = "it is in Debian's openssh-server"


class SSHServer:
    """A running server.

    Attributes:
        url: its endpoint, for ``--host``.
        path: what PATH must begin with, so that ``ssh`` trusts this server and shows the right key.
    """

    def __init__(self, url: str, path: Path) -> None:
        self.url = url
        self.path = path


@contextlib.contextmanager
def open_ssh_server(folder: Path, docker: Path | None, host: str = "") -> Iterator[SSHServer]:
    """Run sshd for the length of the block.

    Args:
        folder: for keys and configuration; is made.
        docker: the CLI that is ``docker`` there; None: there is none, nor anything else on PATH.
        host: the engine that it is pointed at.
    """
    here, there = folder / "here", folder / "there"
    here.mkdir(parents=True)
    there.mkdir()
    for name in ("host_key", "user_key"):
        run_command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], hint=_HINT)
    if docker is not None:
        _script(there / "docker", f'DOCKER_HOST={host} DOCKER_CONFIG={folder} exec {docker} "$@"')
    _script(here / "ssh", f'exec /usr/bin/ssh -F {folder / "ssh_config"} "$@"')
    port = _free_port()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}")
    (folder / "ssh_config").write_text(
        f"IdentityFile {folder / 'user_key'}\nIdentitiesOnly yes\nUserKnownHostsFile {folder / 'known_hosts'}\n"
        "StrictHostKeyChecking yes\nBatchMode yes\n"
    )
    path = there if docker is None else f"{there}:{SYSTEM_PATH}"
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder / 'host_key'}\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder / 'user_key.pub'}\nPermitRootLogin prohibit-password\n"
        f"PasswordAuthentication no\nSetEnv PATH={path}\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    argv = ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config")]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as sshd:
        try:
            _wait_until_listening(sshd)
            yield SSHServer(f"ssh://{getpass.getuser()}@127.0.0.1:{port}", here)
        finally:
            sshd.terminate()
            sshd.communicate()


def _wait_until_listening(sshd: subprocess.Popen[str]) -> None:
    assert sshd.stderr is not None
    said = []
    for line in sshd.stderr:
        said.append(line)
        if "Server listening" in line:
            return
    raise EngineError(f"sshd did not start: {''.join(said)}", hint=_HINT)


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

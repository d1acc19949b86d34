"""What a private engine is made of, installed from Debian where it is missing. All of it blocks."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from mobysession.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "SYSTEM_PATH",
    "debian_docker_installed",
    "install_debian_docker",
    "install_debian_packages",
    "run_command",
]

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Lines of a failed command's output that its error quotes.
_LAST_LINES = 12


def debian_docker_installed() -> bool:
    """Whether this machine has a dockerd and what it needs to run one."""
    return all(shutil.which(name, path=SYSTEM_PATH) for name in ("dockerd", "containerd", "runc", "iptables"))


def install_debian_docker(say: Callable[[str], None]) -> None:
    """Install Debian's Docker engine and a static busybox, if they are missing; ``say`` is told what is done, in lines.

    Raises: EngineError (user): not root, not Debian, or apt-get failed.
    """
    if not debian_docker_installed():
        install_debian_packages(["docker.io", "iptables", "busybox-static"], say)


def install_debian_packages(packages: Sequence[str], say: Callable[[str], None]) -> None:
    """Install packages with apt-get, from wherever this machine's apt gets them. Raises EngineError as above."""
    hint = f"install {' '.join(packages)} yourself, or name a running engine in DOCKER_HOST"
    if shutil.which("apt-get", path=SYSTEM_PATH) is None:
        raise EngineError("only on Debian can packages be installed for you", hint=hint)
    if os.geteuid() != 0:
        raise EngineError("installing packages needs root", hint=hint)
    say(f"installing {', '.join(packages)} with apt-get (once; about a minute)")
    apt_get = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run_command([*apt_get, "update"], hint=hint, env=environment)
    run_command([*apt_get, "install", "--yes", "--no-install-recommends", *packages], hint=hint, env=environment)


def run_command(argv: Sequence[str], *, hint: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it wrote to stdout.

    Raises: EngineError with the last lines that it wrote, and with ``hint``, if its exit status is not 0.
    """
    done = subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-_LAST_LINES:])
        raise EngineError(f"{argv[0]} failed with status {done.returncode}:\n{last}", hint=hint)
    return done.stdout

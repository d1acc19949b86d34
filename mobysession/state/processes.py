"""Whether a process that wrote something down is still there.

A process ID alone does not say: the kernel uses it again. With the time at which the process was started, the boot and
the namespace that it counts in, it does. Linux tells these in /proc; elsewhere ``ps`` tells when a process was started.
"""

from __future__ import annotations

import os
import subprocess
import sys

__all__ = ["is_gone", "process_token"]


def process_token(pid: int | None = None) -> str:
    """Return what tells a process from every other that has, or will have, its ID; blocking.

    Args:
        pid: the process; None: this one.

    Returns: a text that is the same as long as the process lives; empty where there is no such process.
    """
    pid = os.getpid() if pid is None else pid
    if sys.platform != "linux":
        return _started_by_ps(pid)
    started = _started(pid)
    return f"{_boot()} {os.readlink('/proc/self/ns/pid')} {started}" if started else ""


def is_gone(pid: int, token: str) -> bool:
    """Say whether the process that had this token is known to have ended; blocking.

    False also where nobody can tell: it counts its processes apart from us, as in a container.
    """
    if sys.platform != "linux":
        return _started_by_ps(pid) != token
    boot, _, rest = token.partition(" ")
    namespace, _, started = rest.partition(" ")
    if boot != _boot():
        return True
    if namespace != os.readlink("/proc/self/ns/pid"):
        return False
    return _started(pid) != started


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _started(pid: int) -> str:
    """Return when a process was started, in ticks since the boot; empty where there is none, or only its remains."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in brackets, may have anything in it (proc(5)); the state is the first field behind it.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def _started_by_ps(pid: int) -> str:
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607 - only where there is no /proc; a number
    return done.stdout.strip()

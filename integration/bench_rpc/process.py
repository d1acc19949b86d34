"""A server as a process of its own, and what it used: processor time and memory, from /proc."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ServerProcess", "serving"]

_TICKS = os.sysconf("SC_CLK_TCK")
_ENDING = 10.0


class ServerProcess:
    """A server that runs, on a port of 127.0.0.1."""

    def __init__(self, pid: int, port: int) -> None:
        self.port = port
        self._folder = Path("/proc", str(pid))

    def cpu(self) -> float:
        """Return the seconds that it has used so far, in user and kernel mode, in all threads."""
        # Behind the name, which may hold anything, the 12th and 13th field.
        fields = (self._folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def forget_peak(self) -> None:
        """Let the peak begin anew, at what is in use."""
        (self._folder / "clear_refs").write_text("5", encoding="utf-8")

    def peak(self) -> float:
        """Return the most bytes of resident memory since `forget_peak`."""
        for line in (self._folder / "status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024.0
        raise AssertionError("the kernel does not tell the peak")


@contextmanager
def serving(module: str) -> Iterator[ServerProcess]:
    """Run a server of ``integration.bench_rpc.servers`` while the block runs."""
    argv = [sys.executable, "-m", f"integration.bench_rpc.servers.{module}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield ServerProcess(process.pid, int(process.stdout.readline()))
            process.stdin.close()
            process.wait(_ENDING)
        finally:
            process.kill()

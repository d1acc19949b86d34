"""The loads that every server gets: unary calls from h2load, streams from grpcio's client; and what a run took."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from integration.bench_rpc.service import ECHO, framed
from mobysession.errors import EngineError
from mobysession.testing.engine import can_start_engine
from mobysession.testing.packages import SYSTEM_PATH, install_debian_packages

if TYPE_CHECKING:
    from pathlib import Path

    from integration.bench_rpc.process import ServerProcess

__all__ = ["LOADS", "Load", "Sample", "check", "prepare"]

MIB = 1024**2
MESSAGE = b"sixteen bytes ok"
_TIMEOUT = 120.0
_DONE = re.compile(r"^requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded", re.MULTILINE)
_RATE = re.compile(r"^finished in ([\d.]+)(us|ms|s), ([\d.]+) req/s", re.MULTILINE)
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one run of a load took.

    Attributes:
        rate: calls, or MB (10^6 bytes), per second.
        cpu: microseconds of the server's processor time for each call, or milliseconds for each MiB.
        peak: bytes of the server's resident memory.
    """

    rate: float
    cpu: float
    peak: float


@dataclass(frozen=True, kw_only=True)
class Load:
    """One kind of load.

    Attributes:
        title: what the table calls it.
        unit: of the rate.
        cpu_unit: of the processor time.
        calls: unary calls in all; 0 for a stream.
        concurrency: unary calls at once, on one connection.
        direction: of a stream, ``down`` to the client or ``up`` to the server.
        size: bytes of one message of a stream.
        total: bytes of a whole stream.
    """

    title: str
    unit: str
    cpu_unit: str
    calls: int = 0
    concurrency: int = 0
    direction: str = ""
    size: int = 0
    total: int = 0

    def run(self, server: ServerProcess, folder: Path) -> Sample:
        """Put the load on ``server`` once. Raises EngineError (peer) where calls failed."""
        server.forget_peak()
        before = server.cpu()
        seconds = self._unary(server.port, folder) if self.calls else self._stream(server.port)
        used = server.cpu() - before
        if self.calls:
            return Sample(rate=self.calls / seconds, cpu=used / self.calls * 1e6, peak=server.peak())
        return Sample(rate=self.total / 1e6 / seconds, cpu=used / (self.total / MIB) * 1e3, peak=server.peak())

    def _unary(self, port: int, folder: Path) -> float:
        body = folder / "body"
        body.write_bytes(framed(MESSAGE))
        argv = ["h2load", "-n", str(self.calls), "-c", "1", "-m", str(self.concurrency), "-d", str(body)]
        argv += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}{ECHO}"]
        said = _run(argv)
        done, rate = _DONE.search(said), _RATE.search(said)
        if done is None or rate is None or int(done[2]) != self.calls:
            raise EngineError(f"{self.title}: not every call was answered", hint=said[-1000:])
        return float(rate[1]) * _UNITS[rate[2]]

    def _stream(self, port: int) -> float:
        return _client(port, self.direction, str(self.size), str(self.total // self.size))


def _unary(concurrency: int, calls: int) -> Load:
    return Load(
        title=f"unary, {concurrency} at once",
        unit="calls/s",
        cpu_unit="us/call",
        calls=calls,
        concurrency=concurrency,
    )


def _stream(direction: str, size: int, total: int) -> Load:
    words = "server streaming" if direction == "down" else "client streaming"
    shown = f"{size // MIB} MiB" if size >= MIB else f"{size // 1024} KiB"
    return Load(title=f"{words}, {shown}", unit="MB/s", cpu_unit="ms/MiB", direction=direction, size=size, total=total)


LOADS = (
    _unary(1, 4_000),
    _unary(8, 8_000),
    _unary(100, 10_000),
    _stream("down", 64 * 1024, 512 * MIB),
    _stream("down", MIB, 512 * MIB),
    _stream("up", 64 * 1024, 512 * MIB),
    _stream("up", MIB, 512 * MIB),
)


def check(port: int) -> None:
    """Ask a server everything once and look at the answers. Raises EngineError (peer) where one is wrong."""
    _client(port, "check")


def prepare() -> None:
    """Install h2load where it is missing. Raises EngineError (user) where it cannot be had."""
    if shutil.which("h2load", path=SYSTEM_PATH):
        return
    if reason := can_start_engine():
        raise EngineError(f"h2load is missing and cannot be installed: {reason}", hint="Install nghttp2-client.")
    install_debian_packages(["nghttp2-client"], lambda line: print(f"prepare: {line}", file=sys.stderr, flush=True))


def _client(port: int, *arguments: str) -> float:
    return float(_run([sys.executable, "-m", "integration.bench_rpc.client", str(port), *arguments]))


def _run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT)
    if done.returncode:
        raise EngineError(f"{' '.join(argv)} failed", hint=(done.stdout + done.stderr)[-1000:])
    return done.stdout

"""The sender alone, against a receiver that discards: MB/s, files/s, and where the time goes.

``python -m integration.bench_files.sender CONTEXT SOCKET [PROFILE]`` is one run; it prints its figures as JSON.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import resource
import subprocess
import sys
import time
from pathlib import Path

import trio

from mobysession.rpc.registrar import Registrar
from mobysession.rpc.server import open_server
from mobysession.services.filesync import FileSync

__all__ = ["measure_sender", "send_to_nobody"]

MIB = 1024 * 1024


def _peak() -> float:
    """Return the most bytes of memory that this program had resident; ru_maxrss counts whoever started it, too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])


async def serve(context: str, path: str) -> dict[str, float]:
    """Send a directory once; return what it took."""
    service = FileSync({"context": context})
    registrar = Registrar()
    service.register(registrar)
    stream = await trio.open_unix_socket(path)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    ended = trio.Event()
    async with open_server(stream, registrar, on_call_ended=lambda *_: ended.set()):
        await ended.wait()
        wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    figures = service.transfers[0].report.progress
    return {
        "wall": wall,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak": _peak(),
        "files": figures.sent,
        "bytes": figures.sent_bytes,
    }


def measure_sender(title: str, context: Path, folder: Path, runs: int, *, profile: bool) -> str:
    """Return a line of the table, and with ``profile`` the functions that take the most time."""
    taken = [send_to_nobody(context, folder) for _ in range(runs)]
    best = min(taken, key=lambda figures: figures["wall"])
    line = (
        f"{title:34} {best['wall']:7.2f} s {best['bytes'] / best['wall'] / 1e6:8.0f} MB/s "
        f"{best['files'] / best['wall']:9.0f} files/s  CPU {best['cpu']:6.2f} s  peak {best['peak'] / MIB:5.0f} MiB"
    )
    if profile:
        send_to_nobody(context, folder, "profile")
        line += "\n" + (folder / "profile").read_text(encoding="utf-8")
    return line


def send_to_nobody(context: Path, folder: Path, profile: str = "") -> dict[str, float]:
    """Send ``context`` in one process to another one that discards it; return what it took, as `serve` does."""
    path = folder / "discard.sock"
    path.unlink(missing_ok=True)
    receiver = [sys.executable, "-m", "integration.bench_files.discard", str(path)]
    with subprocess.Popen(receiver, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        sender = [sys.executable, "-m", "integration.bench_files.sender", str(context), str(path)]
        done = subprocess.run([*sender, *([str(folder / profile)] if profile else [])], capture_output=True, check=True)
        process.wait(timeout=20)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main(context: str, path: str, profile: str = "") -> None:
    """One run."""
    if not profile:
        print(json.dumps(trio.run(serve, context, path)))
        return
    profiler = cProfile.Profile()
    figures = profiler.runcall(trio.run, serve, context, path)
    print(json.dumps(figures))
    with open(profile, "w", encoding="utf-8") as file:
        pstats.Stats(profiler, stream=file).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main(*sys.argv[1:])

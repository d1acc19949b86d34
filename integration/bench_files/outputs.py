"""``python -m integration.bench_files.outputs``: ``--output type=local`` against ``docker buildx``, row by row.

The tree is in the engine before the first run, in its cache: what is measured is a build whose every step is cached,
and the transfer of its result into an empty directory. Both clients take turns. Behind them stands what the engine
needs for a receiver that asks for everything and keeps nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from integration.bench.client import buildx_client, our_client
from integration.bench.sample import medians, run_measured
from integration.engines import Buildx, engine_specs
from mobysession._pb import fsutil_pb2
from mobysession.build.options import BuildOptions
from mobysession.build.request import solve_request
from mobysession.buildkit.control import open_control
from mobysession.errors import EngineError, MobysessionError
from mobysession.filesync import modes
from mobysession.filesync.packet_fields import request_packet
from mobysession.filesync.packets import FIN_PACKET
from mobysession.identity import new_id
from mobysession.services.filesend import FILE_SEND
from mobysession.services.filesync import FileSync
from mobysession.session.session import Session
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from integration.bench.client import Client
    from integration.bench.sample import Sample
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall

__all__ = ["ROWS", "Row", "main"]

MEMORY = Path("/dev/shm")
DEFAULT_ENGINE = "debian-forky"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Row:
    """One tree: what the table calls it, and what makes it as a tar, which the Dockerfile unpacks."""

    title: str
    name: str
    make: Callable[[tarfile.TarFile], None]


def _big(archive: tarfile.TarFile) -> None:
    member = tarfile.TarInfo("big")
    member.size = 1024 * MIB
    # Of random bytes, so that no disk and no reader sees through them.
    with open("/dev/urandom", "rb") as content:
        archive.addfile(member, content)


def _many(archive: tarfile.TarFile) -> None:
    for folder in range(500):
        member = tarfile.TarInfo(f"d{folder:03}")
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(member)
        for file in range(100):
            member = tarfile.TarInfo(f"d{folder:03}/f{file:03}")
            member.size = 2048
            with open("/dev/urandom", "rb") as content:
                archive.addfile(member, content)


ROWS = (Row("output: 1 GiB", "big", _big), Row("output: 50,000 files", "many", _many))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="integration.bench_files.outputs", description="Compare outputs with docker buildx."
    )
    parser.add_argument("--engine", default=DEFAULT_ENGINE, metavar="ID", help=f"which engine [{DEFAULT_ENGINE}]")
    parser.add_argument("--host", metavar="URL", help="a running engine instead, whose data are on a disk of its own")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each client [3]")
    parser.add_argument("--row", metavar="TEXT", default="", help="only rows whose title contains it")
    options = parser.parse_args(arguments)
    try:
        _measure(options)
    except MobysessionError as error:
        print(f"bench: {error}" + (f"\n\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 1
    return 0


def _measure(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="mobysession-bench-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        if options.host:
            _rows(options, options.host, folder)
            return
        spec = next((spec for spec in engine_specs() if spec.id == options.engine), None)
        if spec is None:
            raise EngineError(f"there is no engine {options.engine}")
        with spec.private_engine(data_root=folder / "engine") as engine:
            _rows(options, engine.host, folder)


def _rows(options: argparse.Namespace, host: str, folder: Path) -> None:
    buildx = Buildx.find()
    clients = our_client(host, folder / "ours"), buildx_client(buildx, host, folder / "theirs")
    print(f"buildx {buildx.version()}; {os.cpu_count()} CPUs; ratios to buildx, then medians of {options.runs} runs")
    print(f"{'':24}   wall   CPU  peak   floor  medians: wall s, CPU s, peak MiB")
    for row in ROWS:
        if options.row in row.title:
            context = _context(row, folder)
            ours, theirs = _turns(clients, context, folder, options.runs)
            print(_line(row.title, ours, theirs, _floor(host, context, options.runs)), flush=True)
            shutil.rmtree(context)


def _context(row: Row, folder: Path) -> Path:
    context = folder / row.name
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nADD tree.tar /\n")
    with tarfile.open(context / "tree.tar", "w") as archive:
        row.make(archive)
    return context


def _turns(clients: Sequence[Client], context: Path, folder: Path, runs: int) -> list[Sample]:
    samples: list[list[Sample]] = [[] for _ in clients]
    for turn in range(runs + 1):
        for client, taken in zip(clients, samples, strict=True):
            target = folder / "out"
            argv = [*client.argv, "--output", f"type=local,dest={target}", str(context)]
            sample = run_measured(argv, client.environment, folder / "log")
            if turn:  # in the first, the engine gets the tree
                taken.append(sample)
            shutil.rmtree(target)
    return [medians(taken) for taken in samples]


def _line(title: str, ours: Sample, theirs: Sample, floor: float) -> str:
    ratios = f"{ours.wall / theirs.wall:5.2f} {ours.cpu / theirs.cpu:5.2f} {ours.peak / theirs.peak:5.2f}"
    figures = (
        f"{ours.wall:.2f} / {theirs.wall:.2f}, {ours.cpu:.2f} / {theirs.cpu:.2f}, "
        f"{ours.peak / MIB:.0f} / {theirs.peak / MIB:.0f}"
    )
    return f"{title:24}  {ratios}  {floor:6.2f}  {figures}"


# -- the floor ---------------------------------------------------------------------------------------------------------


class _Discard:
    """FileSend that asks for every file and keeps none."""

    def register(self, registrar: Registrar) -> None:
        registrar.stream(FILE_SEND, self._diff_copy)

    async def _diff_copy(self, call: ServerCall) -> None:
        number, wanted, listed = 0, 0, False
        while messages := await call.receive_batch():
            requests = []
            for message in messages:
                if len(message) > 4096:
                    continue
                packet = fsutil_pb2.Packet.FromString(message)
                if packet.type == fsutil_pb2.Packet.PACKET_STAT:
                    listed = not packet.HasField("stat")
                    if not listed and not packet.stat.mode & modes.TYPE and not packet.stat.linkname:
                        requests.append(request_packet(number))
                    number += 1
                elif packet.type == fsutil_pb2.Packet.PACKET_FIN:
                    return
                elif not packet.data:
                    wanted -= 1
            wanted += len(requests)
            if requests:
                await call.send_batch(requests)
            if listed and not wanted:
                listed = False
                await call.send_batch([FIN_PACKET])


def _floor(host: str, context: Path, runs: int) -> float:
    """Return the median of the seconds that a build takes whose output is received and dropped, in this process."""
    times = []
    for _ in range(runs):
        begin = time.monotonic()
        trio.run(_build_for_nothing, host, context)
        times.append(time.monotonic() - begin)
    return sorted(times)[len(times) // 2]


async def _build_for_nothing(host: str, context: Path) -> None:
    endpoint = Endpoint.parse(host)
    session = Session(endpoint)
    session.allow(FileSync({"context": context, "dockerfile": context}), _Discard())
    options = BuildOptions(context=context, outputs=["type=local,dest=unused"])
    async with session.attach(), open_control(endpoint) as control:
        await control.solve(solve_request(options, ref=new_id(), session_id=session.id, dockerfile="Dockerfile"))


if __name__ == "__main__":
    sys.exit(main())

"""Outputs against ``docker buildx``: ``--output type=local`` of one large file, and of many small ones.

The tree is in the engine before the first run, in its cache: what is measured is a build whose every step is cached,
and the transfer of its result into an empty directory. The floor is what the engine needs for a receiver that asks for
everything and keeps nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import trio

from integration.bench.sample import medians, run_measured
from mobysession._pb import fsutil_pb2
from mobysession.build.options import BuildOptions
from mobysession.build.request import solve_request
from mobysession.buildkit.control import open_control
from mobysession.errors import EngineError
from mobysession.filesync import modes
from mobysession.filesync.packet_fields import request_packet, split_data
from mobysession.filesync.packets import FIN_PACKET
from mobysession.identity import new_id
from mobysession.services.filesend import FILE_SEND
from mobysession.services.filesync import FileSync
from mobysession.session.session import Session
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from integration.bench.client import Client
    from integration.bench.sample import Sample
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall

__all__ = ["OUTPUT_ROWS", "OutputRow"]

MIB = 1024 * 1024
HANGS = 5
"""Runs of one row that may hang and be run again."""


@dataclass(frozen=True)
class OutputRow:
    """One comparison.

    Attributes:
        title: what the table calls it.
        context: the name of the directory.
        make: makes it as a tar, which the Dockerfile unpacks.
        hung: the runs that never ended, by client; buildx's receiver sometimes waits for ever with many files.
    """

    title: str
    context: str
    make: Callable[[tarfile.TarFile], None]
    hung: list[str]
    large = only_sent = False

    def prepare(self, folder: Path) -> Path:
        """Return the directory, made if it is not there."""
        context = folder / self.context
        if not context.exists():
            context.mkdir()
            (context / "Dockerfile").write_text("FROM scratch\nADD tree.tar /\n")
            with tarfile.open(context / "tree.tar", "w") as archive:
                self.make(archive)
        return context

    def measure(self, engine: str, clients: Sequence[Client], folder: Path, runs: int) -> list[Sample]:
        """Return the medians of each client; they take turns, and the first turn, which gives the tree, is free."""
        context = self.prepare(folder)
        taken: list[list[Sample]] = [[] for _ in clients]
        for turn in range(runs + 1):
            for client, samples in zip(clients, taken, strict=True):
                sample = self._run(client, context, folder)
                if turn:
                    samples.append(sample)
        return [medians(samples) for samples in taken]

    def measure_floor(self, engine: str, host: str, folder: Path, runs: int) -> float:
        """Return the median of the seconds that a build takes whose output is received and dropped, in this process."""
        context = self.prepare(folder)
        seconds = []
        for _ in range(runs):
            begin = time.perf_counter()
            trio.run(_build_for_nothing, host, context)
            seconds.append(time.perf_counter() - begin)
        return median(seconds)

    def _run(self, client: Client, context: Path, folder: Path) -> Sample:
        target = folder / "out"
        argv = [*client.argv, "--output", f"type=local,dest={target}", str(context)]
        for _ in range(HANGS):
            try:
                return run_measured(argv, client.environment, folder / "log")
            except subprocess.TimeoutExpired:
                self.hung.append(client.name)
            finally:
                shutil.rmtree(target, ignore_errors=True)
        raise EngineError(f"{self.title}: {client.name} hangs")


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


OUTPUT_ROWS = (
    OutputRow("output of 1 GiB", "output-big", _big, []),
    OutputRow("output of 50,000 files", "output-many", _many, []),
)


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
                if data := split_data(message):
                    wanted -= data[1] == len(message)
                    continue
                packet = fsutil_pb2.Packet.FromString(message)
                if packet.type == fsutil_pb2.Packet.PACKET_STAT:
                    listed = not packet.HasField("stat")
                    if not listed and not packet.stat.mode & modes.TYPE and not packet.stat.linkname:
                        requests.append(request_packet(number))
                    number += 1
                elif packet.type == fsutil_pb2.Packet.PACKET_FIN:
                    return
            wanted += len(requests)
            if requests:
                await call.send_batch(requests)
            if listed and not wanted:
                listed = False
                await call.send_batch([FIN_PACKET])


async def _build_for_nothing(host: str, context: Path) -> None:
    endpoint = Endpoint.parse(host)
    session = Session(endpoint)
    session.allow(FileSync({"context": context, "dockerfile": context}), _Discard())
    options = BuildOptions(context=context, outputs=["type=local,dest=unused"])
    async with session.attach(), open_control(endpoint) as control:
        await control.solve(solve_request(options, ref=new_id(), session_id=session.id, dockerfile="Dockerfile"))

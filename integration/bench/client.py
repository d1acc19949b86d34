"""The two clients that are compared, each with a configuration folder of its own.

The folder holds the identity under which an engine finds a client's earlier copy of a directory: neither gets that of
the other.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from integration.bench.sample import RUN_TIMEOUT, run_measured
from mobysession.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from integration.bench.sample import Sample
    from integration.engines import Buildx

__all__ = ["Client", "Run", "buildx_client", "our_client"]

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A build: what it took, and the bytes that the engine says it got of the context, names and contents."""

    sample: Sample
    transferred: float


@dataclass(frozen=True, kw_only=True)
class Client:
    """A program that builds a directory, given as its last argument, and shows its progress as plain text."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]

    def build(self, context: Path, output: Path, *, timeout: float = RUN_TIMEOUT) -> Run:
        """Build ``context``, with what is said going to the file ``output``. Raises EngineError as `run_measured`."""
        sample = run_measured([*self.argv, str(context)], self.environment, output, timeout=timeout)
        return Run(sample=sample, transferred=_transferred(output.read_text(encoding="utf-8", errors="replace")))


def our_client(host: str, folder: Path) -> Client:
    """Return ``mobysession build`` of the environment that this runs in."""
    folder.mkdir()
    program = Path(sys.executable).with_name("mobysession")
    environment = {
        "PATH": f"{program.parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "DOCKER_HOST": host,
        "DOCKER_CONFIG": str(folder),
    }
    return Client(name="mobysession", argv=(str(program), "build", "--progress=plain"), environment=environment)


def buildx_client(buildx: Buildx, host: str, folder: Path) -> Client:
    """Return ``docker buildx build``."""
    argv = (str(buildx.docker), "buildx", "build", "--progress=plain")
    return Client(name="buildx", argv=argv, environment=buildx.environment(host, folder))


def _transferred(output: str) -> float:
    found = re.findall(r"transferring context: ([0-9.]+)(B|kB|MB|GB)\b", output)
    if not found:
        raise EngineError("the build did not say how much of the context it transferred", hint=output[-1000:])
    number, unit = found[-1]
    return float(number) * _UNITS[unit]

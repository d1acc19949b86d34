"""The command line in this process and in one of its own, and a directory to build."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from mobysession.cli import main

if TYPE_CHECKING:
    from pathlib import Path


class Ran(NamedTuple):
    """What a run came to."""

    status: int
    out: str
    err: str


Cli = Callable[..., Ran]
Spawned = Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Give ``cli("build", ".")``: exit status, stdout, stderr."""

    def run(*arguments: str | os.PathLike[str]) -> Ran:
        capsys.readouterr()
        status = main([os.fspath(argument) for argument in arguments])
        return Ran(status, *capsys.readouterr())

    yield run
    logger = logging.getLogger("mobysession")
    logger.handlers = [handler for handler in logger.handlers if handler.name != "mobysession command line"]
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Give a build context: a Dockerfile that copies a file and mounts a secret."""
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(
        "FROM scratch\nCOPY hello.txt /hello.txt\nRUN --mount=type=secret,id=token cat /run/secrets/token\n"
    )
    (directory / "hello.txt").write_text("hello")
    return directory


@contextmanager
def _spawned(*arguments: str | os.PathLike[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe}
    with subprocess.Popen(
        [sys.executable, "-m", "mobysession", *(os.fspath(argument) for argument in arguments)],
        **(streams | options),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def spawned() -> Spawned:
    """Give ``with spawned("build", ".") as process``: the command line in a process of its own."""
    return _spawned

"""Contexts that real engines fetch by themselves, from servers in the engine's own network."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from typing import TYPE_CHECKING

import pytest

from integration.contexts import make_context
from integration.images import build_image
from mobysession.testing.packages import SYSTEM_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.engines import Engine
    from integration.images import Witness

PATIENCE = 20.0
"""Seconds for a server to listen."""

FIRST_WITH_DIRECTORIES = 23
"""The engine since which a directory of a repository can be a context, and a repository a named one."""

DOCKERFILE = "FROM mobysession-base\nCOPY greeting /\nRUN cp /greeting /ran\n"


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@contextlib.contextmanager
def _serving(engine: Engine, port: int, *argv: str) -> Iterator[None]:
    """Run a server in the engine's network, which has only its own loopback."""
    assert engine.private is not None
    inside = ["nsenter", "-t", str(engine.private.pid), "-n", "--", "setpriv", "--pdeathsig", "KILL"]
    process = subprocess.Popen(
        [*inside, *argv],
        env={"PATH": SYSTEM_PATH, "HOME": "/nowhere"},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        knock = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
        while subprocess.run([*inside, sys.executable, "-c", knock], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, f"{argv[0]} does not listen"
            assert process.poll() is None, f"{argv[0]} has ended"
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # git starts its daemon as a process of its own
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def private(engine: Engine) -> Engine:
    """Give an engine whose network is ours."""
    if engine.private is None:
        pytest.skip("not our engine: there can be no server in its network")
    return engine


@pytest.fixture
def served(private: Engine, tmp_path: Path) -> Iterator[str]:
    """Serve a folder over HTTP with a tar, a Dockerfile, and what else is put into it; give its address."""
    root = tmp_path / "www"
    root.mkdir()
    with tarfile.open(root / "context.tar.gz", "w:gz", format=tarfile.USTAR_FORMAT) as tar:
        for name, text in {"Dockerfile": DOCKERFILE, "sub/Other": DOCKERFILE, "greeting": "from a tar\n"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    (root / "plain").write_text("FROM mobysession-base\nRUN echo alone > /ran\n")
    port = _free_port()
    with _serving(
        private, port, sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", str(root)
    ):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("driver", ["control", "classic"])
def test_an_archive_behind_an_address(private: Engine, witness: Witness, served: str, driver: str) -> None:
    """The engine fetches and unpacks it; nothing is read here."""
    result = build_image(private, f"{served}/context.tar.gz", driver=driver, no_cache=True)
    assert witness.text(result.image_id, "/ran") == "from a tar\n"
    assert result.transfers == ()


def test_the_dockerfile_beside_or_instead(private: Engine, witness: Witness, served: str, tmp_path: Path) -> None:
    """A relative path is one of the archive, an absolute one of this machine; an address may be a Dockerfile alone."""
    archive = f"{served}/context.tar.gz"
    assert witness.text(build_image(private, archive, file="sub/Other").image_id, "/ran") == "from a tar\n"
    own = make_context(tmp_path / "own", DOCKERFILE.replace("/ran", "/own")) / "Dockerfile"
    assert witness.text(build_image(private, archive, file=own).image_id, "/own") == "from a tar\n"
    assert witness.text(build_image(private, f"{served}/plain").image_id, "/ran") == "alone\n"


def test_a_repository(private: Engine, witness: Witness, tmp_path: Path) -> None:
    """At a branch and in a directory of it, as a context and as a named one."""
    root = make_context(tmp_path / "git/app", DOCKERFILE, {"greeting": "main\n"})
    make_context(root / "sub", DOCKERFILE, {"greeting": "sub\n"})
    _git(root, "init", "-q")
    _git(root, "add", ".")
    _git(root, "commit", "-q", "-m", "first")
    _git(root, "branch", "old")
    (root / "greeting").write_text("newer\n")
    _git(root, "commit", "-q", "-a", "-m", "second")
    port = _free_port()
    serve = ["git", "daemon", "--export-all", f"--base-path={tmp_path}/git", f"--port={port}", "--listen=127.0.0.1"]
    # Served by whoever runs the tests, and owned by whoever made the folder.
    (root / ".git/git-daemon-export-ok").touch()
    with _serving(private, port, *serve):
        url = f"git://127.0.0.1:{port}/app/.git"
        for branch, greeting in {"main": "newer\n", "old": "main\n"}.items():
            assert witness.text(build_image(private, f"{url}#{branch}").image_id, "/ran") == greeting
        if private.major >= FIRST_WITH_DIRECTORIES:
            assert witness.text(build_image(private, f"{url}#main:sub").image_id, "/ran") == "sub\n"
            context = {"Dockerfile": "FROM scratch\nCOPY --from=repository greeting /\n"}
            named = build_image(private, context, build_contexts={"repository": f"{url}#old"})
            assert witness.text(named.image_id, "/greeting") == "main\n"

"""``mobysession dial``: bytes through, both ways and to the end."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from mobysession.testing import BlockingFakeDaemon, Faults, Refusal

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

#: What an HTTP/2 client begins with; the fake daemon plays one on ``/session``.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def test_what_follows_the_101_comes_out(spawned, fake_docker_host: BlockingFakeDaemon) -> None:
    """From the first byte on, and nothing else; the end of stdin ends the session, and with it the command."""
    with spawned("dial", "--id", "mine", "--method", "/a.B/C", stdin=subprocess.PIPE) as process:
        assert os.read(process.stdout.fileno(), 24) == PREFACE
        (session,) = fake_docker_host.sessions
        assert (session.id, session.methods) == ("mine", ("/a.b/c",))
        _, err = process.communicate(b"", timeout=20)
    assert (process.returncode, err) == (0, b"")


def test_a_refusal_is_told(cli: Cli) -> None:
    """In the daemon's words, with nothing on stdout."""
    with BlockingFakeDaemon(faults=Faults(refusal=Refusal(403, "denied by plugin"))) as daemon:
        status, out, err = cli("-H", daemon.host, "dial")
    assert (status, out) == (1, "")
    assert "denied by plugin" in err.splitlines()[0]


def test_an_id_that_is_taken_is_told(cli: Cli, spawned, fake_docker_host: BlockingFakeDaemon) -> None:
    """With the hint that goes with it."""
    with spawned("dial", "--id", "mine", stdin=subprocess.PIPE) as process:
        assert os.read(process.stdout.fileno(), 24) == PREFACE
        status, out, err = cli("dial", "--id", "mine")
    assert (status, out) == (1, "")
    assert "session mine already exists" in err
    assert "hint: Use a new session ID" in err


@pytest.mark.parametrize("option", ["--id", "--name", "--shared-key", "--method"])
def test_session_options_do_not_go_with_grpc(cli: Cli, option: str) -> None:
    """Wrong usage: they would be ignored."""
    status, _, err = cli("dial", "--grpc", option, "/a.B/C")
    assert status == 2
    assert "--grpc takes no session options" in err

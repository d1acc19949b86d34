"""``mobysession probe`` and ``mobysession dial`` on real engines."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from integration.engines import Engine

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS_FRAME = 4


def _health_interval(engine: Engine) -> float:
    """Seconds between two of the engine's health checks, and one more."""
    return 2 if engine.major < 23 else 6


def test_probe_reports_the_engine_and_its_callbacks(engine: Engine) -> None:
    """A probe tells version, the 101 with h2c, and the health checks that came while it was held."""
    argv = [sys.executable, "-m", "mobysession", "-H", engine.host, "probe", "--json"]
    argv += ["--hold", str(_health_interval(engine))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["engine"]["version"] == engine.version
    assert report["engine"]["api_version"] == engine.api_version
    assert report["endpoint"]["url"] == engine.host
    assert report["session"]["status"] == 101
    assert report["session"]["upgrade"].lower() == "h2c"
    assert report["session"]["ready_seconds"] > 0
    assert "/grpc.health.v1.Health/Check" in report["session"]["methods"]
    assert report["buildkit"]["workers"]
    assert any("linux/amd64" in worker["platforms"] for worker in report["buildkit"]["workers"])
    checks = [call for call in report["callbacks"] if call["method"] == "/grpc.health.v1.Health/Check"]
    assert checks
    assert {call["status"] for call in checks} == {"OK"}


def test_probe_for_people(engine: Engine) -> None:
    """Without ``--json`` the report is a few lines of text."""
    argv = [sys.executable, "-m", "mobysession", "-H", engine.host, "probe"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"engine      {engine.version}, API {engine.api_version}" in done.stdout
    assert "101" in done.stdout


def _dial(engine: Engine, *options: str, words: bytes = b"", expect: int) -> bytes:
    """Run ``mobysession dial``, say ``words``, and return the first ``expect`` bytes of the engine."""
    argv = [sys.executable, "-m", "mobysession", "-H", engine.host, "dial", *options]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(words)
        program.stdin.flush()
        received = program.stdout.read(expect)
        program.stdin.close()
        program.kill()
    return received


@pytest.mark.parametrize("options", [[], ["--id", "dialled-by-hand", "--method", "/x.Y/Z", "--name", "a name"]])
def test_dial_opens_a_session(engine: Engine, options: list[str]) -> None:
    """The first bytes are the engine's HTTP/2 preface and its SETTINGS, for it is the client on a session."""
    received = _dial(engine, *options, expect=len(HTTP2_PREFACE) + 9)
    assert received[: len(HTTP2_PREFACE)] == HTTP2_PREFACE
    assert received[len(HTTP2_PREFACE) + 3] == SETTINGS_FRAME


def test_dial_grpc(engine: Engine) -> None:
    """On ``/grpc`` the engine is the server: it answers our preface with its SETTINGS."""
    settings = bytes((0, 0, 0, SETTINGS_FRAME, 0, 0, 0, 0, 0))
    received = _dial(engine, "--grpc", words=HTTP2_PREFACE + settings, expect=9)
    assert received[3] == SETTINGS_FRAME


def test_the_end_of_stdin_ends_a_dialled_session(engine: Engine) -> None:
    """Closing stdin closes our direction; the engine then ends the session, and the command succeeds."""
    argv = [sys.executable, "-m", "mobysession", "-H", engine.host, "dial"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(HTTP2_PREFACE)

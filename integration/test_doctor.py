"""``mobysession doctor`` on real engines, with a real agent and a helper that is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from integration.engines import Engine


def _doctor(engine: Engine, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
    argv = [sys.executable, "-m", "mobysession", "-H", engine.host, "doctor", "--json"]
    done = subprocess.run(argv, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False)
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, {finding["subject"]: finding for finding in findings}


def test_a_healthy_engine(engine: Engine, tmp_path: Path) -> None:
    """Nothing fails; the engine called back, and its clock is this machine's."""
    environment = {"DOCKER_CONFIG": str(tmp_path / "none")}
    status, found = _doctor(engine, **environment)
    assert status == 0
    levels = {subject: finding["level"] for subject, finding in found.items() if subject != "ssh"}
    assert levels == dict.fromkeys(
        [
            *("config", "credentials", "node ID", "endpoint", "reach", "engine", "buildkit", "attach", "callbacks"),
            "clock",
        ],
        "ok",
    )
    assert engine.version in found["engine"]["message"]
    assert "linux/amd64" in found["buildkit"]["message"]
    assert "hijack in " in found["attach"]["message"]
    assert "tunnel in " in found["attach"]["message"]
    assert "answered" in found["callbacks"]["message"]


def test_what_is_broken_on_this_side(engine: Engine, tmp_path: Path) -> None:
    """A helper that is missing fails; the keys of a real agent are counted."""
    (tmp_path / "config.json").write_text('{"credsStore": "nobody-has-this"}')
    key, agent = tmp_path / "key", tmp_path / "agent"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout is not None
            program.stdout.readline()
            sock = {"SSH_AUTH_SOCK": str(agent)}
            subprocess.run(["ssh-add", "-q", key], env=os.environ | sock, check=True, capture_output=True)
            status, found = _doctor(engine, DOCKER_CONFIG=str(tmp_path), **sock)
        finally:
            program.terminate()
    assert status == 1
    assert found["credentials"]["level"] == "fail"
    assert "docker-credential-nobody-has-this" in found["credentials"]["message"]
    assert found["credentials"]["fix"].startswith("Install it")
    assert (found["ssh"]["level"], "1 key: ssh-ed25519" in found["ssh"]["message"]) == ("ok", True)

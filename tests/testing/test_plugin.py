"""The fixtures that pytest finds on its own."""

from __future__ import annotations

import os
import subprocess
import sys

from mobysession.sync import build
from mobysession.transport.endpoint import Endpoint

_USERS_TEST = """
from mobysession.sync import build

def test_the_release_image_is_built(fake_docker_host, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\\nCOPY app /app\\n")
    (tmp_path / "app").write_text("print('hello')")

    result = build(tmp_path, tags=["app:1"])

    assert result.image_id.startswith("sha256:")
    (session,) = fake_docker_host.sessions
    assert {call.code.name for call in session.calls} == {"OK"}
"""


def test_the_documented_example_works(tmp_path):
    """The test of the plugin's documentation passes in a pytest run of its own, in a project without configuration."""
    (tmp_path / "test_users.py").write_text(_USERS_TEST)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout


def test_the_host_is_in_the_environment(fake_docker_host):
    """Whoever looks for a daemon finds the fake one."""
    assert os.environ["DOCKER_HOST"] == fake_docker_host.host
    assert Endpoint.from_env().url == fake_docker_host.endpoint.url


def test_the_daemon_alone_changes_nothing(fake_daemon):
    """``fake_daemon`` leaves the environment as it is."""
    assert "DOCKER_HOST" not in os.environ
    assert fake_daemon.host.startswith("unix://")


def test_sessions_are_told_after_the_build(fake_daemon, tmp_path):
    """A blocking test sees what was asked over HTTP/1.1 and called on the session, after both have ended."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    result = build(tmp_path, endpoint=fake_daemon.endpoint)
    (session,) = fake_daemon.sessions
    assert session.id == result.session_id
    assert ("POST", "/session") in fake_daemon.requests
    assert fake_daemon.call(fake_daemon.daemon.wait_session, session.id).id == session.id


def test_the_plugin_costs_nothing():
    """Loading the plugin loads neither trio nor h2 nor anything of the package but the two modules it consists of."""
    code = (
        "import pytest, sys; before = set(sys.modules); import mobysession.testing.plugin;"
        "print(*set(sys.modules) - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert not {name for name in loaded if name.partition(".")[0] in ("trio", "h2", "h11", "google", "grpc", "ssl")}
    assert {name for name in loaded if name.startswith("mobysession")} == {
        "mobysession",
        "mobysession._version",
        "mobysession.testing",
        "mobysession.testing.plugin",
    }

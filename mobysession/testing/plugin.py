"""Fixtures for pytest, which finds them on its own (entry point ``pytest11``) wherever mobysession is installed.

A complete test of code that builds images::

    from mobysession.sync import build

    def test_the_release_image_is_built(fake_docker_host, tmp_path):
        (tmp_path / "Dockerfile").write_text("FROM scratch\\nCOPY app /app\\n")
        (tmp_path / "app").write_text("print('hello')")

        result = build(tmp_path, tags=["app:1"])          # finds the daemon by DOCKER_HOST

        assert result.image_id.startswith("sha256:")
        (session,) = fake_docker_host.sessions
        assert {call.code.name for call in session.calls} == {"OK"}

Nothing is executed and no image is made; the directory is really transferred, and secrets are really asked for. Code
that takes an endpoint gets ``fake_daemon.endpoint`` instead. For async tests `mobysession.testing.FakeDaemon` needs
no fixture.

This module is imported in every run of pytest, whether its fixtures are used or not: it imports nothing of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.testing.blocking import BlockingFakeDaemon


@pytest.fixture
def fake_daemon() -> Iterator[BlockingFakeDaemon]:
    """Give a fake Docker daemon on a unix socket of its own; nothing else is changed."""
    from mobysession.testing.blocking import BlockingFakeDaemon

    with BlockingFakeDaemon() as daemon:
        yield daemon


@pytest.fixture
def fake_docker_host(fake_daemon: BlockingFakeDaemon, monkeypatch: pytest.MonkeyPatch) -> BlockingFakeDaemon:
    """Give the fake daemon and let DOCKER_HOST name it; what else would choose another one is unset."""
    monkeypatch.setenv("DOCKER_HOST", fake_daemon.host)
    for name in ("DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    return fake_daemon

"""The counters as OpenTelemetry metrics."""

from __future__ import annotations

import subprocess
import sys

import pytest

_READ = """
import trio
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))

from mobysession.services.secrets import Secrets
from mobysession.session.managed import SessionConfig, SessionManager
from mobysession.testing import FakeDaemon

def read():
    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    labels = ",".join(str(value) for value in point.attributes.values())
                    found[f"{metric.name} {labels}".strip()] = point.value
    return found

async def main():
    async with FakeDaemon() as daemon:
        for _ in range(2):
            manager = SessionManager(SessionConfig(dialer=daemon.dialer))
            async with manager.session([Secrets({"a": b"1"})]) as session:
                caller = await daemon.wait_session(session.id)
                await caller.get_secret("a")
                print(sorted(read().items()))
        print(read()["mobysession.sessions.active"], read()["mobysession.sessions.duration"] > 0)

trio.run(main)
"""


@pytest.mark.slow
def test_a_reader_sees_the_counters():
    """Sums over all managers of the process, also of those that are gone; calls by method, bytes by direction."""
    done = subprocess.run([sys.executable, "-c", _READ], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    first, second, last = done.stdout.splitlines()
    assert "('mobysession.sessions.active', 1)" in first
    assert "('mobysession.sessions.opened', 1)" in first
    assert "('mobysession.sessions.opened', 2)" in second
    assert "('mobysession.sessions.failed', 0)" in second
    assert "('mobysession.callbacks /moby.buildkit.secrets.v1.Secrets/GetSecret', 2)" in second
    assert "('mobysession.callbacks.io receive', 6)" in second
    assert "('mobysession.callbacks.io transmit', 6)" in second
    assert last == "0 True"


def test_without_opentelemetry_nothing_is_loaded():
    """A program that has not loaded it does not load it because of a session."""
    code = (
        "import sys, trio\n"
        "from mobysession.session.managed import SessionManager, SessionConfig\n"
        "from mobysession.testing import FakeDaemon\n"
        "async def main():\n"
        "    async with FakeDaemon() as daemon:\n"
        "        async with SessionManager(SessionConfig(dialer=daemon.dialer)).session([]):\n"
        "            pass\n"
        "trio.run(main)\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('opentelemetry', 'sqlite3', 'grpc')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr

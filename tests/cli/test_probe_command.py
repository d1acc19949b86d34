"""``mobysession probe``: a report of what the daemon says and does, for people and for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from mobysession.cli import probe
from mobysession.errors import HandshakeTimeout
from mobysession.testing import BlockingFakeDaemon, FakeDaemon, Faults, HealthSchedule, Refusal

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def test_the_report_is_json_and_nothing_else(cli: Cli, fake_docker_host: BlockingFakeDaemon) -> None:
    """stdout is one document whatever is said on stderr."""
    status, out, err = cli("-vv", "probe", "--json", "--hold", "0.01")
    report = json.loads(out)
    assert status == 0
    assert "holding the session" in err
    assert report["endpoint"] == {
        "url": fake_docker_host.host,
        "source": "DOCKER_HOST",
        "daemon": "docker",
        "proxy": None,
        "pinned_api_version": None,
    }
    assert (report["session"]["status"], report["session"]["upgrade"]) == (101, "h2c")
    assert report["session"]["settings"]
    assert report["engine"]["api_version"] == "1.51"
    assert report["buildkit"]["workers"][0]["platforms"] == ["linux/amd64"]


def test_the_report_is_text_for_people(cli: Cli, fake_docker_host: BlockingFakeDaemon) -> None:
    """A line each; nothing on stderr."""
    status, out, err = cli("probe")
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[:7]] == [
        *("endpoint", "engine", "attach", "ready", "settings", "buildkit", "worker"),
    ]


def test_a_pinned_version_is_reported(
    cli: Cli, fake_docker_host: BlockingFakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has set DOCKER_API_VERSION and forgotten it is reminded."""
    monkeypatch.setenv("DOCKER_API_VERSION", "1.44")
    status, out, _ = cli("probe")
    assert status == 0
    assert "pinned      API 1.44\n" in out


@pytest.mark.parametrize(
    ("options", "arguments", "attach", "offered"),
    [
        ({"api_version": "1.51"}, [], "hijack", {"hijack", "tunnel"}),
        ({"api_version": "1.53"}, [], "native", {"native", "hijack", "tunnel"}),
        ({"api_version": "1.53"}, ["--attach", "tunnel"], "tunnel", {"native", "hijack", "tunnel"}),
        ({"buildkitd": True}, ["--attach", "buildkitd"], "buildkitd", {"buildkitd"}),
    ],
)
def test_the_ways_in_are_reported(
    cli: Cli, options: dict[str, Any], arguments: list[str], attach: str, offered: set[str]
) -> None:
    """Which the endpoint offers, which one was taken, and the services that the session advertises."""
    with BlockingFakeDaemon(**options) as daemon:
        report = json.loads(cli("-H", daemon.host, "probe", "--json", *arguments).out)
        status, out, _ = cli("-H", daemon.host, "probe", *arguments)
    assert report["session"]["attach"] == attach
    assert {way["way"] for way in report["ways"] if way["offered"]} == offered
    assert report["session"]["services"]["grpc.health.v1.Health"]
    assert status == 0
    assert all(f"\nway         {way}: ready in " in out for way in offered)
    assert "\nservice     grpc.health.v1.Health: " in out
    assert ("does not speak gRPC at once" in out) == (offered == {"hijack", "tunnel"})


def test_a_way_that_does_not_exist_is_wrong_usage(cli: Cli) -> None:
    """Status 2, and the ways are listed."""
    status, _, err = cli("-H", "unix:///nowhere", "probe", "--attach", "teleport")
    assert status == 2
    assert "Choose one of auto, hijack, tunnel, native, buildkitd." in err


def test_callbacks_are_reported(cli: Cli) -> None:
    """What the daemon called while the session was held."""
    with BlockingFakeDaemon(health=HealthSchedule(interval=0.01)) as daemon:
        report = json.loads(cli("-H", daemon.host, "probe", "--json", "--hold", "0.2").out)
    # One that is under way at the end is cancelled by it.
    assert ("/grpc.health.v1.Health/Check", "OK") in {(call["method"], call["status"]) for call in report["callbacks"]}


def test_an_engine_without_a_control_api_is_reported_as_one(cli: Cli) -> None:
    """That it refuses ``/grpc`` is part of the report, not a failure."""
    with BlockingFakeDaemon(grpc_faults=Faults(refusal=Refusal(404, "page not found"))) as daemon:
        status, out, _ = cli("-H", daemon.host, "probe")
        assert json.loads(cli("-H", daemon.host, "probe", "--json").out)["buildkit"].keys() == {"refused"}
    assert status == 0
    assert "status 404: page not found" in out


@pytest.mark.parametrize("seconds", ["-1", "nan", "soon"])
def test_a_length_that_is_none_is_wrong_usage(cli: Cli, seconds: str) -> None:
    """Told before anything is asked."""
    status, out, err = cli("probe", "--hold", seconds)
    assert (status, out) == (2, "")
    assert "--hold" in err


async def test_a_daemon_that_does_not_answer_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """A session that opens, beside a Control API that does not, ends in a typed error."""
    async with FakeDaemon.listen(grpc_faults=Faults(mute=True)) as daemon:
        with trio.fail_after(120), pytest.raises(HandshakeTimeout):
            await probe._probe(daemon.endpoint, "auto", 0)


async def test_an_answer_that_does_not_come_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """Whatever was asked is named."""
    with pytest.raises(HandshakeTimeout, match=r"did not answer a PING within \d+ s"):
        await probe._in_time("a PING", trio.sleep_forever)

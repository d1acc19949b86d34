"""``mobysession doctor`` and what it is made of: what is found on this side and at the engine, and what mends it."""

from __future__ import annotations

import base64
import dataclasses
import json
import socket
import sys
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest
import trio.testing

from mobysession.doctor import Diagnosis, Finding, examine
from mobysession.doctor.engine import _examine_clock
from mobysession.errors import EndpointError
from mobysession.testing import BlockingFakeDaemon, FakeDaemon, Faults, HealthSchedule, Refusal
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Cli

SOON = HealthSchedule(interval=0.01)
IDENTITY = "0123456789abcdef" * 4


@pytest.fixture
def daemon() -> Iterator[BlockingFakeDaemon]:
    """Give a daemon that asks for health at once."""
    with BlockingFakeDaemon(health=SOON) as daemon:
        yield daemon


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a credential helper, written in Python, on a PATH that holds nothing else."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(name: str, body: str) -> None:
        path = tmp_path / f"docker-credential-{name}"
        path.write_text(f"#!{sys.executable} -ISs\nimport sys\n{body}\n")
        path.chmod(0o755)

    return install


async def looked(subject: str, endpoint: Any = None) -> list[Finding]:
    """Return what is found of one subject where nothing can be reached."""

    def nowhere() -> Endpoint:
        raise EndpointError("nowhere")

    return [finding for finding in (await examine(endpoint or nowhere)).findings if finding.subject == subject]


def levels(findings: list[Finding]) -> list[str]:
    """Return how they are."""
    return [finding.level for finding in findings]


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_healthy_engine(cli: Cli, daemon: BlockingFakeDaemon) -> None:
    """A line for each subject, and status 0, although what not every build needs is missing."""
    status, out, err = cli("-H", daemon.host, "doctor")
    assert (status, err) == (0, "")
    found = {line[6:19].strip(): line for line in out.splitlines() if line[:6].strip()}
    assert list(found) == [
        *("config", "credentials", "ssh", "node ID", "endpoint", "reach", "engine", "buildkit", "attach"),
        *("callbacks", "clock"),
    ]
    assert {line[:6].strip() for name, line in found.items() if name != "ssh"} == {"ok"}
    assert found["ssh"].startswith("warn")
    assert "\n                   fix: Start one with" in out
    assert "28.5.2, API 1.51, linux/amd64" in found["engine"]
    assert "hijack in " in found["attach"]
    assert "tunnel in " in found["attach"]
    assert "and answered" in found["callbacks"]


def test_the_findings_are_json_and_nothing_else(cli: Cli, daemon: BlockingFakeDaemon) -> None:
    """For programs: the same, with whether anything fails."""
    status, out, _ = cli("-H", daemon.host, "doctor", "--json")
    report = json.loads(out)
    assert (status, report["healthy"]) == (0, True)
    assert set(report["findings"][0]) == {"subject", "level", "message", "fix"}


def test_nobody_at_the_address(cli: Cli, tmp_path: Path) -> None:
    """Status 1; what cannot be known is not listed, and the fix is."""
    status, out, _ = cli("-H", f"unix://{tmp_path}/none.sock", "doctor", "--json")
    report = json.loads(out)
    assert (status, report["healthy"]) == (1, False)
    last = report["findings"][-1]
    assert (last["subject"], last["level"]) == ("reach", "fail")
    assert "DOCKER_HOST" in last["fix"]


def test_an_address_that_is_none(cli: Cli) -> None:
    """It is a finding, not the end of the others."""
    status, out, err = cli("-H", "carrier://pigeon", "doctor")
    assert (status, err) == (1, "")
    assert "fail  endpoint" in out
    assert "ok    config" in out


def test_a_buildkitd(cli: Cli) -> None:
    """What an engine alone has is not asked for."""
    with BlockingFakeDaemon(buildkitd=True, health=SOON) as daemon:
        status, out, _ = cli("-H", daemon.host, "doctor", "--attach", "buildkitd", "--json")
    subjects = [finding["subject"] for finding in json.loads(out)["findings"]]
    assert (status, subjects[4:]) == (0, ["endpoint", "buildkit", "attach", "callbacks"])


def test_what_a_daemon_says_cannot_speak_to_the_terminal(cli: Cli) -> None:
    """Escape sequences of a hostile daemon are shown, not obeyed."""
    refused = Faults(refusal=Refusal(500, "\x1b[2Jgone\nok    everything   is well"))
    with BlockingFakeDaemon(health=SOON, grpc_faults=refused) as daemon:
        _, out, _ = cli("-H", daemon.host, "doctor")
    assert "\x1b" not in out
    assert "gone" in out
    assert "\nok    everything" not in out


# -- the engine --------------------------------------------------------------------------------------------------------


async def test_an_engine_without_a_control_api() -> None:
    """Builds are possible, in another way: a warning that says in which."""
    async with FakeDaemon.listen(health=SOON, grpc_faults=Faults(refusal=Refusal(404, "page not found"))) as daemon:
        [found] = await looked("buildkit", daemon.endpoint)
    assert found.level == "warn"
    assert "POST /build" in found.fix


async def test_an_engine_that_no_session_attaches_to() -> None:
    """Every way's reason is told, and callbacks fail too."""
    refused = Faults(refusal=Refusal(403, "by the proxy"))
    async with FakeDaemon.listen(faults=refused, grpc_faults=refused, tunnel_faults=refused) as daemon:
        diagnosis = await examine(daemon.endpoint)
    found = {finding.subject: finding for finding in diagnosis.findings}
    assert found["attach"].level == found["callbacks"].level == "fail"
    assert "hijack: " in found["attach"].message
    assert "by the proxy" in found["attach"].message
    assert not diagnosis.is_healthy


async def test_a_pinned_version_that_the_engine_does_not_have() -> None:
    """Whatever fails for it, the fix is to unpin it, and no proxy is blamed."""
    words = "client version 1.99 is too new. Maximum supported API version is 1.51"
    refused = Faults(refusal=Refusal(400, words))
    async with FakeDaemon.listen(faults=refused, grpc_faults=refused) as daemon:
        pinned = dataclasses.replace(daemon.endpoint, api_version="1.99")
        diagnosis = await examine(pinned)
    found = {finding.subject: finding for finding in diagnosis.findings}
    for subject in ("engine", "buildkit", "attach", "callbacks"):
        assert found[subject].level != "ok"
        assert found[subject].fix.startswith("DOCKER_API_VERSION pins")


async def test_a_version_that_is_pinned_is_told(daemon: BlockingFakeDaemon) -> None:
    """Who has set DOCKER_API_VERSION and forgotten it is reminded."""
    [found] = await looked("engine", Endpoint(daemon.host, api_version="1.44"))
    assert (found.level, "API 1.51 (pinned to 1.44)" in found.message) == ("ok", True)


async def test_an_engine_that_does_not_call_back(autojump_clock: trio.testing.MockClock) -> None:
    """A session that is attached and never asked for its health: something holds messages back."""
    async with FakeDaemon.listen(health=HealthSchedule(interval=3600)) as daemon:
        [found] = await looked("callbacks", daemon.endpoint)
    assert found.level == "warn"
    assert "did not ask" in found.message


async def test_an_engine_that_hangs(autojump_clock: trio.testing.MockClock) -> None:
    """One that accepts and says nothing is given up, and says so in what was asked of it."""
    async with FakeDaemon.listen(health=SOON, grpc_faults=Faults(mute=True)) as daemon:
        [found] = await looked("buildkit", daemon.endpoint)
    assert found.level == "fail"


async def test_an_old_engine_is_a_warning() -> None:
    """Older than 20.10: nobody has tried."""
    async with FakeDaemon.listen(health=SOON, api_version="1.40") as daemon:
        [found] = await looked("engine", daemon.endpoint)
    assert (found.level, found.fix) == ("warn", "Use an engine of 20.10 or later.")


@pytest.mark.parametrize(
    ("skew", "level", "words"),
    [
        (0, "ok", "differs by less than"),
        (4, "ok", "differs by less than"),
        (60, "warn", "60 s ahead of"),
        (-60, "warn", "60 s behind"),
        (3600, "fail", "3600 s ahead of"),
    ],
)
async def test_the_clock_of_the_engine(skew: float, level: str, words: str) -> None:
    """A few seconds are nothing; minutes make tokens invalid."""
    async with FakeDaemon.listen(health=SOON) as daemon:
        daemon.clock_skew = skew
        [found] = await looked("clock", daemon.endpoint)
    assert found.level == level
    assert words in found.message


@pytest.mark.parametrize(
    ("date", "level", "words"),
    [
        (0, "ok", "differs by less than"),
        (3600, "fail", "ahead of"),
        (None, "warn", "does not tell its time"),
    ],
)
async def test_the_clock_of_an_engine_behind_a_proxy(date: float | None, level: str, words: str) -> None:
    """Where /info is refused the date of any other answer counts."""
    stamp = "" if date is None else f"Date: {formatdate(time.time() + date, usegmt=True)}\r\n"

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            request = bytes(await stream.receive_some())
            status = b"403 Forbidden" if b"/info" in request else b"200 OK"
            head = f"Api-Version: 1.51\r\n{stamp}Content-Length: 2\r\n\r\nOK"
            await stream.send_all(b"HTTP/1.1 " + status + b"\r\n" + head.encode())

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    endpoint = Endpoint.parse(f"tcp://127.0.0.1:{listener.socket.getsockname()[1]}")
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, answer, [listener])
        found = await _examine_clock(endpoint)
        nursery.cancel_scope.cancel()
    assert found.level == level
    assert words in found.message


# -- this side ---------------------------------------------------------------------------------------------------------


async def test_a_configuration_that_is_no_json(docker_config: Path) -> None:
    """It fails with the line, and the helpers that it might name are not asked for."""
    (docker_config / "config.json").write_text('{"auths":\n nonsense}')
    [found] = await looked("config")
    assert found.level == "fail"
    assert "line 2" in found.message
    assert found.fix
    assert await looked("credentials") == []


async def test_a_login_that_cannot_be_read(docker_config: Path) -> None:
    """Each is named, with how to log in again; its content is not."""
    (docker_config / "config.json").write_text(json.dumps({"auths": {"r.example": {"auth": "hunter2!"}}}))
    [found] = await looked("config")
    assert (found.level, found.fix) == ("fail", "Log in again: docker login r.example")
    assert "hunter2" not in found.message


async def test_logins_that_others_can_read(docker_config: Path) -> None:
    """A warning, but not where the file has none of its own."""
    file = docker_config / "config.json"
    auth = base64.b64encode(b"user:pass").decode()
    file.write_text(json.dumps({"auths": {"r.example": {"auth": auth}}}))
    file.chmod(0o644)
    assert levels(await looked("config")) == ["warn"]
    file.chmod(0o600)
    assert levels(await looked("config")) == ["ok"]
    file.chmod(0o644)
    file.write_text(json.dumps({"auths": {"r.example": {}}}))
    assert levels(await looked("config")) == ["ok"]


async def test_a_helper_that_is_not_installed_is_named(
    docker_config: Path, install: Callable[[str, str], None]
) -> None:
    """Others are asked all the same; what they answer is not shown."""
    install("full", """print('{"ServerURL":"r.example","Username":"me","Secret":"hunter2"}')""")
    install("empty", "print('credentials not found in native keychain'); sys.exit(1)")
    install("broken", "print('the vault is sealed'); sys.exit(3)")
    helpers = {"r.example": "full", "s.example": "full", "t.example": "broken", "u.example": "gone"}
    (docker_config / "config.json").write_text(json.dumps({"credHelpers": helpers, "credsStore": "empty"}))
    found = await looked("credentials")
    assert levels(found) == ["ok", "fail", "fail", "ok"]
    assert found[0].message == "docker-credential-full answers, and has a login for r.example"
    assert "the vault is sealed" in found[1].message
    assert found[1].fix == "Run: echo t.example | docker-credential-broken get"
    assert "docker-credential-gone, named for u.example" in found[2].message
    assert found[2].fix.startswith("Install it")
    assert found[3].message.startswith("docker-credential-empty answers, and has no login")
    assert "hunter2" not in repr(found)


async def test_the_native_store_is_asked_where_it_would_be_used(install: Callable[[str, str], None]) -> None:
    """Without a configuration docker's clients ask it by themselves."""
    install("secretservice", "print('credentials not found in native keychain'); sys.exit(1)")
    [found] = await looked("credentials")
    assert (found.level, "docker-credential-secretservice answers" in found.message) == ("ok", True)


async def test_an_agent_that_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SSH_AUTH_SOCK of a session that ended fails; no agent at all is a warning."""
    assert levels(await looked("ssh")) == ["warn"]
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    [found] = await looked("ssh")
    assert found.level == "fail"
    assert str(tmp_path / "gone") in found.message


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        (b"\x0c\0\0\0\0", "warn", "has no keys"),
        (b"\x0c\0\0\0\1\0\0\0\x0f\0\0\0\x0bssh-ed25519\0\0\0\2me", "ok", "has 1 key: ssh-ed25519"),
    ],
)
async def test_the_keys_of_an_agent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: bytes, level: str, words: str
) -> None:
    """How many there are, and of which kinds."""
    path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(len(answer).to_bytes(4, "big") + answer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, serve)
            [found] = await looked("ssh")
    assert found.level == level
    assert words in found.message


@pytest.mark.parametrize(
    ("content", "mode", "level"),
    [
        (IDENTITY, 0o600, "ok"),
        (IDENTITY + "\n", 0o600, "ok"),
        (IDENTITY, 0o644, "warn"),
        (IDENTITY, 0o666, "fail"),
        ("", 0o600, "fail"),
        ("short", 0o600, "fail"),
        ("é" * 32, 0o600, "fail"),
    ],
)
async def test_the_node_id(docker_config: Path, content: str, mode: int, level: str) -> None:
    """Its content and who else may see and change it; whatever is wrong has a fix."""
    file = docker_config / ".buildNodeID"
    file.write_text(content)
    file.chmod(mode)
    [found] = await looked("node ID")
    assert (found.level, bool(found.fix)) == (level, level != "ok")


async def test_a_node_id_that_is_a_folder(docker_config: Path) -> None:
    """As a mount of a container leaves it."""
    (docker_config / ".buildNodeID").mkdir()
    assert levels(await looked("node ID")) == ["fail"]


async def test_a_node_id_that_cannot_be_made(docker_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds work, and say so."""
    monkeypatch.setenv("DOCKER_CONFIG", str(docker_config / "file" / "below"))
    (docker_config / "file").write_text("no folder")
    [found] = await looked("node ID")
    assert (found.level, "cannot be made" in found.message) == ("warn", True)


async def test_a_node_id_that_is_not_there_is_fine() -> None:
    """The first build makes it; the doctor does not."""
    [found] = await looked("node ID")
    assert (found.level, "the first build makes it" in found.message) == ("ok", True)
    assert (await looked("node ID")) == [found]


def test_a_warning_is_no_illness() -> None:
    """Only what fails does; nothing found is healthy."""
    assert Diagnosis((Finding("a", "ok", ""), Finding("b", "warn", "", "x"))).is_healthy
    assert not Diagnosis((Finding("a", "fail", "", "x"),)).is_healthy

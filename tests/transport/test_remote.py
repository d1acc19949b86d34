"""Addresses of containers, pods, commands and pipes: what they mean, and what runs for them."""

from __future__ import annotations

import ast
import os
import shlex
from typing import TYPE_CHECKING

import pytest
import trio

from mobysession import errors
from mobysession.session import open_session
from mobysession.testing import FakeDaemon
from mobysession.transport.address import parse_address
from mobysession.transport.command import CommandNotConnected
from mobysession.transport.dial import dial
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.remote import CommandAddress, ContainerAddress, PipeAddress, ProgramAddress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROGRAMS = {
    "podman-container://bk": "podman exec -i bk buildctl dial-stdio",
    "podman-container://bk/": "podman exec -i bk buildctl dial-stdio",
    "podman-container://bk?addr=unix:///run/b.sock": "podman exec -i bk buildctl --addr unix:///run/b.sock dial-stdio",
    "nerdctl-container://bk": "nerdctl exec -i bk buildctl dial-stdio",
    "nerdctl-container://bk?namespace=k8s.io": "nerdctl --namespace k8s.io exec -i bk buildctl dial-stdio",
    "kube-pod://bk": "kubectl exec -i bk -- buildctl dial-stdio",
    "kube-pod://prod/bk": "kubectl --context=prod exec -i bk -- buildctl dial-stdio",
    "kube-pod://arn:aws:eks:x:1:cluster/prod/bk": (
        "kubectl --context=arn:aws:eks:x:1:cluster/prod exec -i bk -- buildctl dial-stdio"
    ),
    "kube-pod://bk?context=prod&namespace=ci&container=buildkitd": (
        "kubectl --context=prod --namespace=ci exec --container=buildkitd -i bk -- buildctl dial-stdio"
    ),
}


@pytest.mark.parametrize(("url", "line"), PROGRAMS.items(), ids=PROGRAMS)
def test_a_container_is_reached_by_its_engines_program(url: str, line: str) -> None:
    """The command line is the one that buildctl would run, and what is there is a buildkitd."""
    address = parse_address(url)
    assert isinstance(address, ProgramAddress)
    assert " ".join(address.argv) == line
    assert Endpoint.parse(url).is_buildkitd
    assert "buildctl debug workers" in (address.hint or "")


def test_a_command_is_quoted_as_for_a_shell_and_runs_without_one() -> None:
    """Words may have spaces and addresses in them; what it leads to, the user says."""
    url = "command:docker --host 'unix:///a b' system dial-stdio; reboot"
    assert parse_address(url) == CommandAddress(
        ("docker", "--host", "unix:///a b", "system", "dial-stdio;", "reboot"),
        "Try it by hand: docker --host 'unix:///a b' system 'dial-stdio;' reboot",
    )
    assert not Endpoint.parse(url).is_buildkitd
    assert Endpoint.buildkitd(url).is_buildkitd


def test_a_container_of_an_engine() -> None:
    """Name, engine and what is to be made of it are in the address."""
    assert parse_address("docker-container://buildx_buildkit_b0") == ContainerAddress("buildx_buildkit_b0")
    assert parse_address("docker-container://b?context=remote&addr=unix:///b.sock") == ContainerAddress(
        "b", context="remote", argv=("buildctl", "--addr", "unix:///b.sock", "dial-stdio")
    )
    assert parse_address("docker-container://b?host=ssh://me@box&boot=1&image=i:1&env.A=b%20c") == ContainerAddress(
        "b", engine="ssh://me@box", boot={"image": "i:1", "env.A": "b c"}
    )
    assert parse_address("docker-container://b?boot=0") == ContainerAddress("b")


def test_a_pipe_of_windows() -> None:
    """Slashes in the address are backslashes to Windows."""
    assert parse_address("npipe:////./pipe/docker_engine") == PipeAddress(r"\\.\pipe\docker_engine")
    assert Endpoint.parse("npipe:////./pipe/docker_engine").host == "api.moby.localhost"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("docker-container://", "no container"),
        ("docker-container://-x", "no container"),
        ("docker-container://a/b", "no container"),
        ("docker-container://a?host=unix:///x&context=y", "a host and a context"),
        ("docker-container://a?image=x", "no option 'image'"),
        ("docker-container://a?boot=1&colour=red", "no option 'colour'"),
        ("docker-container://a?x", "no option 'x'"),
        ("podman-container://a?namespace=x", "no option 'namespace'"),
        ("podman-container://--rm", "no container"),
        ("kube-pod://", "no pod"),
        ("kube-pod://Pod", "no pod"),
        ("kube-pod://pod?pod=x", "no option 'pod'"),
        ("command:", "no command"),
        ("command:'a", "taken apart"),
        ("npipe:////./pipe/", "no pipe"),
    ],
)
def test_a_malformed_address_is_told(url: str, words: str) -> None:
    """The error names what is wrong."""
    with pytest.raises(errors.EndpointError) as caught:
        Endpoint.parse(url)
    assert words in str(caught.value)


@pytest.fixture
def programs(relay_programs: Callable[..., Path]) -> Path:
    """Put stand-ins for the programs on PATH; return the log of their calls."""
    return relay_programs("podman", "nerdctl", "kubectl")


async def calls(log: Path) -> list[str]:
    return [shlex.join(ast.literal_eval(line)) for line in (await trio.Path(log).read_text()).splitlines()]


@pytest.mark.parametrize(
    "url", ["podman-container://bk", "nerdctl-container://bk?namespace=n", "kube-pod://prod/bk?container=c"]
)
async def test_a_session_through_a_program(programs: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A buildkitd behind the program's stdio carries a session, which auto attaches as to a buildkitd."""
    async with FakeDaemon.listen(buildkitd=True) as daemon:
        monkeypatch.setenv("RELAY_SOCKET", daemon.host.removeprefix("unix://"))
        async with open_session(Endpoint.parse(url)) as session:
            await (await daemon.wait_session(session.id)).health()
            assert session.attachment is not None
            assert session.attachment.way == "buildkitd"
    assert await calls(programs) == [PROGRAMS.get(url) or _line(url)]


def _line(url: str) -> str:
    address = parse_address(url)
    assert isinstance(address, ProgramAddress)
    return " ".join(address.argv)


async def test_a_session_through_a_command(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine behind any command is attached to as one that is dialled."""
    async with FakeDaemon.listen() as daemon:
        monkeypatch.setenv("RELAY_SOCKET", daemon.host.removeprefix("unix://"))
        async with open_session(Endpoint.parse("command:podman 'any thing'")) as session:
            await (await daemon.wait_session(session.id)).health()
            assert session.attachment is not None
            assert session.attachment.way == "hijack"
    assert await calls(programs) == ["podman 'any thing'"]


async def test_what_the_program_says_is_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stderr and its status are in the error, and the hint is what to try by hand."""
    (tmp_path / "kubectl").write_text("#!/bin/sh\necho 'Error from server (NotFound): pods \"bk\"' >&2; exit 1\n")
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    async with await dial(Endpoint.parse("kube-pod://bk")) as stream:
        with pytest.raises(CommandNotConnected, match=r"status 1: Error from server \(NotFound\)") as caught:
            await stream.receive_some()
    assert caught.value.status == 1
    assert caught.value.hint == "Try: kubectl exec -i bk -- buildctl debug workers"
    # A session, too, which notices only in the middle of HTTP/2, says why and not how it noticed.
    with pytest.raises(CommandNotConnected, match=r"status 1: Error from server"):
        async with open_session(Endpoint.parse("kube-pod://bk")):
            pytest.fail("attached")


@pytest.mark.parametrize(
    "url", ["podman-container://bk", "nerdctl-container://bk", "kube-pod://bk", "command:kubectl x"]
)
async def test_a_missing_program_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """The hint is to install it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.ConnectError, match="cannot run") as caught:
        await dial(Endpoint.parse(url))
    assert (caught.value.hint or "").startswith("Install ")

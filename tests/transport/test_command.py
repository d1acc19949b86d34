"""Streams through child processes, and ssh."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from mobysession import errors, limits
from mobysession.transport.address import SSHAddress
from mobysession.transport.api import EngineApi
from mobysession.transport.command import CommandStream, open_command
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.hijack import hijack
from mobysession.transport.ssh import ssh_argv

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.transport.conftest import Daemon, Serve

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


@pytest.fixture
def fake_ssh(relay_programs: Callable[..., Path]) -> Path:
    """Put a program named ssh on PATH, which relays to a socket of this machine; return its log of arguments."""
    return relay_programs("ssh")


def relay_to(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    monkeypatch.setenv("RELAY_SOCKET", endpoint.url.removeprefix("unix://"))


def test_the_command_line_is_the_docker_clis() -> None:
    """User, port and socket go where ssh and the remote shell cannot mistake them."""
    tail = ["-o ConnectTimeout=30", "-T", "--"]
    assert ssh_argv(SSHAddress("box")) == ["ssh", *tail, "box", "docker system dial-stdio"]
    assert ssh_argv(SSHAddress("box", "me", 22, "/run/my docker.sock")) == [
        *("ssh", "-l", "me", "-p", "22"),
        *(*tail, "box", "docker '--host=unix:///run/my docker.sock' system dial-stdio"),
    ]


async def test_a_hijack_through_ssh(
    serve: Serve, daemon: Daemon, fake_ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upgraded stream carries bytes both ways and can be closed in one direction."""

    async def echo(stream: trio.abc.Stream) -> None:
        await daemon.head(stream)
        await stream.send_all(ACCEPTED + b"first")
        while data := await stream.receive_some():
            await stream.send_all(bytes(data))

    async with serve(echo) as plain:
        relay_to(monkeypatch, plain)
        async with await hijack(Endpoint.parse("ssh://me@box:2222"), "/session") as stream:
            assert await stream.receive_some() == b"first"
            await stream.send_all(b"ping")
            assert await stream.receive_some() == b"ping"
            assert isinstance(stream, trio.abc.HalfCloseableStream)
            await stream.send_eof()
            assert await stream.receive_some() == b""
    assert "Host: docker.example.com" in daemon.heard.decode()
    assert "'-l', 'me', '-p', '2222'" in await trio.Path(fake_ssh).read_text()


async def test_requests_through_ssh(
    serve: Serve, daemon: Daemon, fake_ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request is an ssh of its own."""
    async with serve(daemon.answer(b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 2\r\n\r\n{}")) as plain:
        relay_to(monkeypatch, plain)
        api = EngineApi(Endpoint.parse("ssh://box"))
        assert await api.version() == {}
        assert (await api.ping()).api == (1, 51)
    assert len((await trio.Path(fake_ssh).read_text()).splitlines()) == 2


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'me@box: Permission denied (publickey).' >&2; exit 255", "status 255: me@box: Permission denied"),
        ("echo 'sh: docker: not found' >&2; exit 127", "status 127: sh: docker: not found"),
        ("exit 3", "status 3: it did not say why"),
        ("kill -9 $$", "ended by signal 9"),
        ("printf 'a\\033[31m\\nb\\n' >&2; exit 1", "status 1: a[31m b"),
    ],
)
async def test_what_ssh_says_is_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    """Where ssh fails, its stderr is in the error, in one line, and the hint says what to try."""
    (tmp_path / "ssh").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    endpoint = Endpoint.parse("ssh://me@box:2222", source="DOCKER_HOST")
    for attempt in (hijack(endpoint, "/session"), EngineApi(endpoint).ping()):
        with pytest.raises(errors.ConnectError) as caught:
            await attempt
        assert words in str(caught.value)
        assert str(endpoint) in str(caught.value)
        assert str(caught.value).isprintable()
        assert "ssh -p 2222 me@box docker version" in str(caught.value.hint)


async def test_a_missing_ssh_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an ssh binary the hint is to install one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.ConnectError, match="cannot run ssh") as caught:
        await hijack(Endpoint.parse("ssh://box"), "/session")
    assert caught.value.hint == "Install ssh."


async def test_a_program_that_may_not_be_run_is_told(tmp_path: Path) -> None:
    """What is there already needs not be installed."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(errors.ConnectError, match="Permission denied") as caught:
        await open_command([str(program)], name="x")
    assert caught.value.hint == f"Make {program} executable for you."


async def test_too_many_open_files_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """That there is no descriptor left for a pipe has nothing to do with the program."""

    def full() -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe", full)
    with pytest.raises(errors.ConnectError, match="Too many open files") as caught:
        await open_command(["sh"], name="x")
    assert "ulimit -n" in (caught.value.hint or "")


async def shell(script: str) -> CommandStream:
    return await open_command(["sh", "-c", script], name="the shell")


async def test_a_failure_in_the_middle_is_a_lost_connection() -> None:
    """After the first byte a failing command is a broken stream, with the same words."""
    async with await shell("printf x; echo gone >&2; exit 4") as stream:
        assert await stream.receive_some() == b"x"
        with pytest.raises(errors.ConnectionLost, match="status 4: gone") as caught:
            await stream.receive_some()
        assert isinstance(caught.value, trio.BrokenResourceError)


async def test_a_command_that_ends_well_is_the_end_of_the_stream() -> None:
    """Status 0 is no failure, whatever stood on stderr."""
    async with await shell("printf x; echo note >&2") as stream:
        assert await stream.receive_some() == b"x"
        assert await stream.receive_some() == b""


async def test_writing_to_a_failed_command_says_why() -> None:
    """Also who only writes gets the command's own words."""
    async with await shell("echo no >&2; exit 5") as stream:
        with pytest.raises(errors.ConnectError, match="status 5: no"):
            await stream.send_all(b"x" * 10_000_000)


async def test_a_talkative_command_does_not_get_stuck() -> None:
    """More on stderr than a pipe holds stops nothing, and its end is what is kept."""
    script = "head -c 1000000 /dev/zero | tr '\\0' a >&2; printf x; read _; echo the end >&2; exit 6"
    async with await shell(script) as stream:
        assert await stream.receive_some() == b"x"
        await stream.send_all(b"\n")
        with pytest.raises(errors.ConnectionLost, match=r"the end$"):
            await stream.receive_some()


async def ended(pids: Sequence[int]) -> None:
    """Wait until none of these processes runs."""
    deadline = trio.current_time() + 5
    while any(_runs(pid) for pid in pids) and trio.current_time() < deadline:
        await trio.lowlevel.checkpoint()
    assert not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_closing_ends_the_command_and_its_children() -> None:
    """A command that reads its end of input ends by itself; one that does not is terminated, with what it started."""
    async with await shell("echo $$; cat") as stream:
        pid = int(await stream.receive_some())
    await ended([pid])
    async with await shell("sleep 1000 & echo $$ $!; exec sleep 1000") as stream:
        pids = [int(word) for word in (await stream.receive_some()).split()]
    await ended(pids)


async def test_a_command_that_ignores_the_request_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not go on SIGTERM is killed after the time limit."""
    monkeypatch.setattr(limits, "COMMAND_EXIT_TIMEOUT", 0.05)
    async with await shell("trap '' TERM; echo $$; while :; do sleep 0.01; done") as stream:
        pid = int(await stream.receive_some())
    await ended([pid])


async def test_a_cancelled_close_kills_at_once() -> None:
    """Cancelling does not leave the command behind, nor wait for it."""
    stream = await shell("trap '' TERM; echo $$; while :; do sleep 1; done")
    pid = int(await stream.receive_some())
    with trio.fail_after(limits.COMMAND_EXIT_TIMEOUT):
        await trio.aclose_forcefully(stream)
    await ended([pid])
    await stream.aclose()


async def test_the_command_does_not_get_the_terminals_signals() -> None:
    """It runs in a session of its own: Ctrl-C is ours to handle."""
    async with await shell("ps -o sid= -p $$ 2>/dev/null || cut -d' ' -f6 /proc/$$/stat") as stream:
        assert int(await stream.receive_some()) != os.getsid(0)


async def test_a_cancelled_read_says_nothing_of_the_command() -> None:
    """Cancelling a read leaves the stream usable."""
    async with await shell("cat") as stream:
        with trio.move_on_after(0.01):
            await stream.receive_some()
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"x"
        await stream.wait_send_all_might_not_block()


async def test_a_closed_stream_says_so() -> None:
    """After closing, reading and writing are errors of the caller; closing twice is none."""
    stream = await shell("cat")
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")
    await stream.aclose()

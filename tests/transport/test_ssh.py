"""ssh to a host without a docker CLI: its socket is forwarded instead, and what was said is said again."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from mobysession import errors, limits
from mobysession.session import open_session
from mobysession.testing import FakeDaemon
from mobysession.transport import ssh
from mobysession.transport.address import SSHAddress
from mobysession.transport.api import EngineApi
from mobysession.transport.command import CommandNotConnected
from mobysession.transport.dial import dial
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.streamlocal import dial_forwarded, forward_argv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.transport.conftest import Daemon, Serve

#: An ssh whose other host has nothing but a socket, which PEER names. With -L it forwards as ssh does.
SSH = """
import os, socket, sys, threading
arguments = sys.argv[1:]
open(os.environ["SSH_LOG"], "a").write(" ".join(arguments) + "\\n")
if "-L" not in arguments:
    os.read(0, int(os.environ["SSH_READS"])) if "SSH_READS" in os.environ else None
    sys.stderr.write(os.environ.get("SSH_SAYS", "sh: 1: docker: not found") + "\\n")
    sys.exit(int(os.environ.get("SSH_STATUS", "127")))
if "SSH_REFUSES" in os.environ:
    sys.stderr.write(os.environ["SSH_REFUSES"] + "\\n")
    sys.exit(255)
here, _, there = arguments[arguments.index("-L") + 1].partition(":")
if "SSH_DEAF" in os.environ:
    print("ready", flush=True)
    sys.stdin.read()
sys.stderr.write(os.environ.get("SSH_GREETS", ""))
sys.stderr.flush()
listener = socket.socket(socket.AF_UNIX)
listener.bind(here)
listener.listen()
print("ready", flush=True)
accepted, _ = listener.accept()
peer = socket.socket(socket.AF_UNIX)
try:
    peer.connect(os.environ["PEER"])
except OSError as error:
    sys.stderr.write("channel 2: open failed: connect failed: open failed\\n")
    open(os.environ["SSH_TOLD"], "w").close() if "SSH_TOLD" in os.environ else None
    accepted.close()
    sys.stdin.read()
def pump(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)
threading.Thread(target=pump, args=(accepted, peer), daemon=True).start()
pump(peer, accepted)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put an ssh on PATH, forget every host, and give the log of its calls."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "ssh.py").write_text(SSH)
    (directory / "ssh").write_text(f'#!/bin/sh\nexec {sys.executable} -IS {directory}/ssh.py "$@"\n')
    (directory / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
    monkeypatch.setenv("SSH_LOG", str(tmp_path / "log"))
    ssh._without.clear()
    # Short, and nobody else's: the kernel allows about a hundred bytes for the path of a socket.
    with tempfile.TemporaryDirectory(prefix="ssh-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield tmp_path / "log"


def calls(log: Path) -> list[str]:
    """Return what each ssh was to do: ``run``, or the socket that it was to forward."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return [line[line.index("-L") + 1].partition(":")[2] if "-L" in line else "run" for line in lines]


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], set[Path]]]:
    """Give a function that tells which directories for forwarded sockets there are, none but of this test."""
    # A socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="ssh-") as own:
        monkeypatch.setattr(tempfile, "tempdir", own)
        yield lambda: set(Path(own).glob("mobysession-ssh-*"))


def test_the_command_line_forwards_a_socket_and_says_when() -> None:
    """No shared connection, failure where it cannot listen, one word when it does; colons in paths are escaped."""
    assert forward_argv(SSHAddress("box", "me", 22), "/tmp/x", "/run/a:b\\c.sock") == [
        *("ssh", "-l", "me", "-p", "22", "-o ConnectTimeout=30", "-nNT"),
        *("-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes"),
        *("-o", "PermitLocalCommand=yes", "-o", "LocalCommand=echo ready"),
        *("-L", "/tmp/x:/run/a\\:b\\\\c.sock", "--", "box"),
    ]


@pytest.mark.parametrize(
    ("says", "status"),
    [
        ("bash: line 1: docker: command not found", "127"),
        ("'docker' is not recognized as an internal or external command", "1"),
        ("docker: 'dial-stdio' is not a docker command.", "1"),
    ],
)
async def test_a_session_without_a_docker_cli_there(
    log: Path, monkeypatch: pytest.MonkeyPatch, says: str, status: str, folders: Callable[[], set[Path]]
) -> None:
    """Whatever a shell calls it, the session is attached through the socket, and nothing stays on the disk."""
    monkeypatch.setenv("SSH_SAYS", says)
    monkeypatch.setenv("SSH_STATUS", status)
    before = folders()
    async with FakeDaemon.listen() as daemon:
        monkeypatch.setenv("PEER", daemon.host.removeprefix("unix://"))
        async with open_session(Endpoint.parse("ssh://me@box")) as session:
            await (await daemon.wait_session(session.id)).health()
            assert folders() != before
    assert calls(log) == ["run", "/var/run/docker.sock"]
    assert folders() == before


async def test_the_host_is_remembered_and_its_path_obeyed(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second connection on there is no detour; the path behind the host is the socket there."""
    async with FakeDaemon.listen() as daemon:
        monkeypatch.setenv("PEER", daemon.host.removeprefix("unix://"))
        api = EngineApi(Endpoint.parse("ssh://box/run/my.sock"))
        for _ in range(2):
            assert (await api.ping()).api == (1, 51)
    assert calls(log) == ["run", "/run/my.sock", "/run/my.sock"]


async def test_a_buildkitd_without_a_buildctl_there(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with buildkitd's socket."""
    async with FakeDaemon.listen(buildkitd=True) as daemon:
        monkeypatch.setenv("PEER", daemon.host.removeprefix("unix://"))
        async with open_session(Endpoint.buildkitd("ssh://box")) as session:
            await (await daemon.wait_session(session.id)).health()
    assert calls(log) == ["run", "/run/buildkit/buildkitd.sock"]


@pytest.mark.parametrize("reads", ["0", "100000"])
async def test_what_was_written_is_written_again(serve: Serve, monkeypatch: pytest.MonkeyPatch, reads: str) -> None:
    """Whether the command dies before a byte of it or behind many, and the end of it is passed on too."""
    sent = bytes(range(256)) * 500
    monkeypatch.setenv("SSH_READS", reads)

    async def echo(stream: trio.abc.Stream) -> None:
        received = b""
        async for data in stream:
            received += bytes(data)
        await stream.send_all(received)

    async with serve(echo) as plain:
        monkeypatch.setenv("PEER", plain.url.removeprefix("unix://"))
        async with await dial(Endpoint.parse("ssh://box")) as stream:
            await stream.send_all(sent[:1000])
            await stream.send_all(sent[1000:])
            assert isinstance(stream, trio.abc.HalfCloseableStream)
            await stream.wait_send_all_might_not_block()
            await stream.send_eof()
            received = b""
            while len(received) < len(sent) and (data := await stream.receive_some()):
                received += data
    assert received == sent


async def test_too_much_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has written more than is kept hears of the missing command."""
    monkeypatch.setattr(limits, "REMOTE_REPLAY", 10)
    monkeypatch.setenv("SSH_READS", "11")
    async with await dial(Endpoint.parse("ssh://box")) as stream:
        await stream.send_all(b"x" * 11)
        with pytest.raises(CommandNotConnected, match="docker: not found"):
            await stream.receive_some()


async def test_a_failure_of_ssh_itself_is_final(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that does not let us in has a command or not: nothing else is tried."""
    monkeypatch.setenv("SSH_SAYS", "me@box: Permission denied (publickey).")
    monkeypatch.setenv("SSH_STATUS", "255")
    with pytest.raises(errors.ConnectError, match="Permission denied"):
        await EngineApi(Endpoint.parse("ssh://me@box")).ping()
    assert calls(log) == ["run"]


async def test_a_host_that_does_not_forward_is_told(
    log: Path, monkeypatch: pytest.MonkeyPatch, folders: Callable[[], set[Path]]
) -> None:
    """Both reasons are in the error, and what the host needs."""
    monkeypatch.setenv("SSH_REFUSES", "Could not request local forwarding.")
    before = folders()
    with pytest.raises(errors.ConnectError, match=r"docker: not found.* instead, .*Could not request") as caught:
        await EngineApi(Endpoint.parse("ssh://me@box")).ping()
    assert "AllowStreamLocalForwarding" in (caught.value.hint or "")
    assert "docker CLI" in (caught.value.hint or "")
    assert folders() == before


async def test_a_socket_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folders: Callable[[], set[Path]]
) -> None:
    """ssh accepts first and finds out then; what it says is the error."""
    monkeypatch.setenv("PEER", str(tmp_path / "none"))
    before = folders()
    async with await dial_forwarded(SSHAddress("box"), name="ssh://box") as stream:
        with pytest.raises(CommandNotConnected, match="open failed: connect failed") as caught:
            await stream.receive_some()
    assert "/var/run/docker.sock" in (caught.value.hint or "")
    assert folders() == before


async def test_what_ssh_says_at_once_is_no_greeting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It may have said why before we know that we are connected."""
    told = tmp_path / "told"
    os.mkfifo(told)
    monkeypatch.setenv("SSH_TOLD", str(told))
    monkeypatch.setenv("PEER", str(tmp_path / "none"))
    monkeypatch.setenv("SSH_GREETS", "Welcome!\n")
    connect = trio.open_unix_socket

    async def connect_late(path: str) -> trio.SocketStream:
        stream = await connect(path)
        await trio.to_thread.run_sync(told.read_bytes)
        return stream

    monkeypatch.setattr(trio, "open_unix_socket", connect_late)
    async with await dial_forwarded(SSHAddress("box"), name="ssh://box") as stream:
        with pytest.raises(CommandNotConnected, match="was closed: channel 2: open failed: connect failed"):
            await stream.receive_some()


async def test_a_forward_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, folders: Callable[[], set[Path]]
) -> None:
    """An ssh that says it listens and does not is an error of the connection, with nothing left on the disk."""
    monkeypatch.setenv("SSH_DEAF", "1")
    before = folders()
    with pytest.raises(CommandNotConnected, match=r"ssh://box: ssh forwards .* cannot be connected to: No such file"):
        await dial_forwarded(SSHAddress("box"), name="ssh://box")
    assert folders() == before


async def test_no_place_for_the_socket_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """To whoever reads the stream too, with the reason why it was tried."""
    monkeypatch.setattr(tempfile, "tempdir", tempfile.gettempdir() + "/none")
    with pytest.raises(errors.ConnectError, match="no directory can be made") as caught:
        await dial_forwarded(SSHAddress("box"), name="ssh://box")
    assert "TMPDIR" in (caught.value.hint or "")
    async with await dial(Endpoint.parse("ssh://box")) as stream:
        with pytest.raises(CommandNotConnected, match=r"docker: not found.* instead, no directory can be made"):
            await stream.receive_some()


async def test_a_place_with_too_long_a_path_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh would speak of a bad specification."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(errors.ConnectError, match="too long a path") as caught:
        await dial_forwarded(SSHAddress("box"), name="ssh://box")
    assert "shorter" in (caught.value.hint or "")
    assert not list(deep.iterdir())


async def test_a_banner_is_no_complaint(serve: Serve, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ssh says before the connection stands does not make a failure of its end."""
    monkeypatch.setenv("SSH_GREETS", "Warning: Permanently added 'box' to the list of known hosts.\n")
    async with serve(daemon.answer(b"all")) as plain:
        monkeypatch.setenv("PEER", plain.url.removeprefix("unix://"))
        async with await dial_forwarded(SSHAddress("box"), name="ssh://box") as stream:
            await stream.send_all(b"\r\n\r\n")
            assert [await stream.receive_some() for _ in range(2)] == [b"all", b""]


async def test_cancelling_a_forward_leaves_nothing(
    serve: Serve, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, folders: Callable[[], set[Path]]
) -> None:
    """Neither a process nor a directory, wherever it is cancelled."""
    before = folders()
    async with serve(daemon.answer()) as plain:
        monkeypatch.setenv("PEER", plain.url.removeprefix("unix://"))
        for seconds in (0.0, 0.001, 0.01, 0.05):
            with trio.move_on_after(seconds):
                async with await dial_forwarded(SSHAddress("box"), name="ssh://box"):
                    await trio.sleep_forever()
            assert folders() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222 - it does not wait

"""Dialling sockets and ports, and what is said when nobody answers."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from mobysession import errors
from mobysession.transport.dial import dial
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.transport.conftest import Daemon, Serve


async def test_a_unix_socket_with_spaces_and_percents_in_its_path(serve: Serve, daemon: Daemon) -> None:
    """The path is taken as it is written, and the stream can be closed in one direction."""
    async with serve(daemon.answer(b"hello")) as endpoint, await dial(endpoint) as stream:
        await stream.send_all(b"x\r\n\r\n")
        assert await stream.receive_some() == b"hello"
        assert isinstance(stream, trio.abc.HalfCloseableStream)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_a_port_is_dialled_with_keepalive_and_without_delay(serve_tcp: Serve, daemon: Daemon, host: str) -> None:
    """IPv4, IPv6 and names; the connection survives idle hours behind NAT and sends small answers at once."""
    async with serve_tcp(daemon.answer(b"hello"), host=host) as endpoint, await dial(endpoint) as stream:
        assert isinstance(stream, trio.SocketStream)
        assert stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 30
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def fails(endpoint: Endpoint, *words: str) -> errors.ConnectError:
    with pytest.raises(errors.ConnectError) as caught:
        await dial(endpoint)
    for word in (*words, str(endpoint)):
        assert word in str(caught.value)
    assert caught.value.hint
    assert str(caught.value).isprintable()
    return caught.value


async def test_a_missing_socket_is_told(tmp_path: Path) -> None:
    """The error names the path and who chose it."""
    await fails(Endpoint.parse(f"unix://{tmp_path}/none", source="DOCKER_HOST"), "no socket", "DOCKER_HOST")
    (tmp_path / "file").touch()
    await fails(Endpoint.parse(f"unix://{tmp_path}/file/none"), "no socket")


async def test_a_missing_buildkitd_is_told_as_one(tmp_path: Path) -> None:
    """The hint names what names a buildkitd, and no variable of docker's."""
    with pytest.raises(errors.ConnectError, match="there is no socket") as caught:
        await dial(Endpoint.buildkitd(f"unix://{tmp_path}/none.sock"))
    assert "BUILDKIT_HOST" in (caught.value.hint or "")
    assert "DOCKER_HOST" not in (caught.value.hint or "")


async def test_a_path_that_is_written_as_in_a_url_is_told(tmp_path: Path) -> None:
    """Docker takes %20 for three characters, and so do we; where the other path is a socket, the hint names it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "a b"))
        failure = await fails(Endpoint.parse(f"unix://{tmp_path}/a%20b"), "no socket")
        assert f"unix://{tmp_path}/a b" in str(failure.hint)
    failure = await fails(Endpoint.parse(f"unix://{tmp_path}/a%20c"), "no socket")
    assert "a c" not in str(failure.hint)


async def test_a_file_that_is_no_socket_is_told(tmp_path: Path) -> None:
    """A file where a socket should be is named as such."""
    (tmp_path / "file").touch()
    await fails(Endpoint.parse(f"unix://{tmp_path}/file"), "is not a socket")


async def test_a_socket_that_nobody_serves_is_told(tmp_path: Path) -> None:
    """What a dead daemon leaves behind."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "dead"))
    await fails(Endpoint.parse(f"unix://{tmp_path}/dead"), "nobody listens")


async def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    """The system's bound on socket paths is its own error."""
    await fails(Endpoint.parse(f"unix://{tmp_path}/{'x' * 120}"), "too long")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
async def test_a_forbidden_socket_is_told_with_what_to_do(tmp_path: Path) -> None:
    """Without permission the hint is about the docker group, not about a stopped daemon."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "mine"))
        sock.listen()
        (tmp_path / "mine").chmod(0o600)
        for parent in [tmp_path, *tmp_path.parents][:3]:
            parent.chmod(0o755)
        os.seteuid(65534)
        try:
            failure = await fails(Endpoint.parse(f"unix://{tmp_path}/mine"), "no permission")
        finally:
            os.seteuid(0)
        assert "docker" in str(failure.hint)


async def test_a_full_backlog_is_waited_for(tmp_path: Path) -> None:
    """A daemon that is slow to accept gets its connections later, and none that is broken."""
    path = tmp_path / "busy.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(0)
        endpoint = Endpoint.parse(f"unix://{path}")
        first = await dial(endpoint)
        async with trio.open_nursery() as nursery:
            second: list[trio.abc.Stream] = []

            async def dial_second() -> None:
                second.append(await dial(endpoint))

            nursery.start_soon(dial_second)
            await trio.testing.wait_all_tasks_blocked()
            assert not second
            sock.accept()[0].close()
        await second[0].send_all(b"x")
        sock.accept()[0].close()
        await first.aclose()
        await second[0].aclose()


async def test_dialling_ends_in_time(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A daemon that never accepts is given up after the time limit."""
    path = tmp_path / "stuck.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(0)
        async with await dial(Endpoint.parse(f"unix://{path}")):
            await fails(Endpoint.parse(f"unix://{path}"), "within 30 seconds")


async def test_a_port_that_nobody_serves_is_told() -> None:
    """Refused is refused, on every address that a name has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        await fails(Endpoint.parse(f"tcp://127.0.0.1:{port}"), "nobody listens")
        await fails(Endpoint.parse(f"tcp://localhost:{port}"), "nobody listens")


async def test_an_unknown_host_is_told() -> None:
    """A name that does not resolve is named."""
    await fails(Endpoint.parse("tcp://no-such-host.invalid:1"), "'no-such-host.invalid'", "is not known")


@pytest.mark.parametrize("url", ["tcp://a..b:1", f"tcp://{'x' * 64}.com:1", "https://a..b"])
async def test_a_name_that_no_host_can_have_is_told(url: str) -> None:
    """A label that is empty or too long, which Python refuses to look up, is a host that is not known."""
    await fails(Endpoint.parse(url), "is not known")

"""Host strings, taken apart."""

from __future__ import annotations

import pytest

from mobysession import errors
from mobysession.transport.address import Address, SSHAddress, TCPAddress, UnixAddress, parse_address

ADDRESSES: dict[str, Address] = {
    "unix:///var/run/docker.sock": UnixAddress("/var/run/docker.sock"),
    "unix:///a b/100%25.sock": UnixAddress("/a b/100%25.sock"),
    "unix://relative.sock": UnixAddress("relative.sock"),
    "unix://": UnixAddress("/var/run/docker.sock"),
    " tcp://box:1 ": TCPAddress("tcp", "box", 1),
    "tcp://box": TCPAddress("tcp", "box", 2375),
    "tcp://box:2376/": TCPAddress("tcp", "box", 2376),
    "tcp://box:2376/docker/one/": TCPAddress("tcp", "box", 2376, "/docker/one"),
    "tcp://": TCPAddress("tcp", "localhost", 2375),
    "tcp://:2376": TCPAddress("tcp", "localhost", 2376),
    "tcp://[::1]:2376/p": TCPAddress("tcp", "::1", 2376, "/p"),
    "tcp://[fe80::1%eth0]": TCPAddress("tcp", "fe80::1%eth0", 2375),
    "http://box": TCPAddress("http", "box", 80),
    "https://box": TCPAddress("https", "box", 443),
    "box:2375": TCPAddress("tcp", "box", 2375),
    "ssh://box": SSHAddress("box"),
    "ssh://me@box:22": SSHAddress("box", "me", 22),
    "ssh://me@[::1]:22/run/user/1000/docker.sock": SSHAddress("::1", "me", 22, "/run/user/1000/docker.sock"),
    "ssh://box/": SSHAddress("box"),
}


@pytest.mark.parametrize(("url", "address"), ADDRESSES.items(), ids=ADDRESSES)
def test_a_host_string_is_taken_apart(url: str, address: Address) -> None:
    """Every form that the docker CLI takes gives scheme, host, port, path and user."""
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "not an address"),
        ("unix:///a\nb", "not an address"),
        ("/var/run/docker.sock", "is a path"),
        ("./docker.sock", "is a path"),
        ("ftp://box", "'ftp'"),
        ("npipe://docker_engine", "no pipe"),
        ("fd://", "'fd'"),
        ("tcp://box:0", "port"),
        ("tcp://box:65536", "port"),
        ("tcp://box:-1", "port"),
        ("tcp://box:docker", "port"),
        ("tcp://box:٢", "port"),
        ("tcp://::1:2375", "host"),
        ("tcp://[::1", "host"),
        ("tcp://[::1]2375", "host"),
        ("tcp://[box]:1", "host"),
        ("tcp://box?x=1", "query"),
        ("tcp://box/#f", "fragment"),
        ("tcp://my box", "space"),
        ("ssh://", "no host"),
        ("ssh://me@", "no host"),
        ("ssh://@box", "no host"),
        ("ssh://-oProxyCommand=x", "no host"),
        ("ssh://-l@box", "no host"),
        ("ssh://box?x", "query"),
    ],
)
def test_a_malformed_host_string_is_told_with_what_to_write_instead(url: str, words: str) -> None:
    """The error names the part that is wrong, and the hint says what would be right."""
    with pytest.raises(errors.EndpointError) as caught:
        parse_address(url)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.hint


@pytest.mark.parametrize("url", ["ssh://me:swordfish@box", "tcp://me:swordfish@box:1", "tcp://swordfish@box:1"])
def test_a_password_in_a_host_string_is_refused_and_not_shown(url: str) -> None:
    """Neither tcp nor ssh takes a password, and the error does not repeat it."""
    with pytest.raises(errors.EndpointError, match="box") as caught:
        parse_address(url)
    assert "swordfish" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("tcp://box", "box:2375"),
        ("tcp://[::1]:1", "[::1]:1"),
        ("tcp://[fe80::1%eth0]:1", "[fe80::1]:1"),
        ("unix:///a/b", "api.moby.localhost"),
        ("ssh://box", "docker.example.com"),
    ],
)
def test_the_host_line_is_one_that_the_daemon_takes(url: str, host: str) -> None:
    """Host and port over the network, else a dummy without slashes, which Go's server would refuse."""
    assert parse_address(url).host_header == host

"""Host strings, taken apart (moby/moby client/request.go, docker/cli opts/hosts.go).

They look like URLs and are not quite: what follows ``unix://`` is a path as the file system has it, never
percent-encoded, and a scheme may be missing. No error shows a password that somebody wrote into one. What is not a
socket, a port or ssh is in ``remote``, which loads with the first such address: start-up.

The addresses are named tuples and not dataclasses because those take four times as long to define, at every start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from mobysession.errors import EndpointError

if TYPE_CHECKING:
    from mobysession.transport.remote import RemoteAddress

__all__ = ["DEFAULT_SOCKET", "Address", "SSHAddress", "TCPAddress", "UnixAddress", "parse_address"]

DEFAULT_SOCKET = "/var/run/docker.sock"
_PORTS = {"tcp": 2375, "http": 80, "https": 443}
_HINT = "Write unix:///path/to/docker.sock, tcp://HOST:PORT or ssh://[USER@]HOST[:PORT]."
_COMMAND = "command:"
_REMOTE = frozenset({"docker-container", "podman-container", "nerdctl-container", "kube-pod", "npipe"})


class UnixAddress(NamedTuple):
    """A socket in the file system."""

    path: str

    @property
    def host_header(self) -> str:
        """A dummy, as docker's own client sends it: Go's server demands one, and takes none with slashes."""
        return "api.moby.localhost"


class TCPAddress(NamedTuple):
    """A port in the network. ``host`` is without brackets; ``prefix`` is empty or begins with a slash."""

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def host_header(self) -> str:
        """Host and port as HTTP writes them; a zone is nobody else's business (RFC 6874 section 1)."""
        host = self.host.partition("%")[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


class SSHAddress(NamedTuple):
    """A host with an SSH server and a docker CLI. ``socket`` is the daemon's there; None: what that CLI finds."""

    host: str
    user: str | None = None
    port: int | None = None
    socket: str | None = None

    @property
    def host_header(self) -> str:
        """A dummy, as docker's own client sends it."""
        return "docker.example.com"


Address: TypeAlias = "UnixAddress | TCPAddress | SSHAddress | RemoteAddress"


def parse_address(url: str) -> Address:
    """Take a host string apart.

    Raises:
        EndpointError: it is malformed or of an unknown scheme; the user must change it.
    """
    url = url.strip()
    if not url or not url.isprintable():
        raise EndpointError(f"{url!r} is not an address of a Docker daemon", hint=_HINT)
    scheme, separator, rest = url.partition("://")
    if scheme in _REMOTE or url.startswith(_COMMAND):
        from mobysession.transport.remote import parse_remote  # only for who uses one: start-up

        return parse_remote(url)
    if not separator:
        return _without_scheme(url)
    if scheme == "unix":
        return UnixAddress(rest or DEFAULT_SOCKET)
    if scheme in _PORTS:
        return _tcp(url, scheme, rest)
    if scheme == "ssh":
        return _ssh(url, rest)
    raise EndpointError(f"{scheme!r} is not a way to reach a Docker daemon from here", hint=_scheme_hint(scheme))


def _scheme_hint(scheme: str) -> str:
    if scheme == "fd":
        return "fd:// is an address for the daemon to listen on; clients use the unix:// socket."
    return _HINT


def _without_scheme(url: str) -> Address:
    if url.startswith(("/", ".", "~")):
        raise EndpointError(f"{url!r} is a path, not an address", hint=f"Write unix://{url}")
    return _tcp(url, "tcp", url)


def _tcp(url: str, scheme: str, rest: str) -> TCPAddress:
    authority, slash, prefix = rest.partition("/")
    if "@" in authority:
        raise EndpointError(
            f"the address of {scheme}://{authority.rpartition('@')[2]} has a user, and the Engine API knows none",
            hint="Leave out what stands before the @.",
        )
    if any(mark in rest for mark in "?# "):
        raise EndpointError(f"{url!r} has a query, a fragment or a space", hint=_HINT)
    host, port = _host_and_port(url, authority)
    return TCPAddress(scheme, host or "localhost", port or _PORTS[scheme], (slash + prefix).rstrip("/"))


def _ssh(url: str, rest: str) -> SSHAddress:
    authority, slash, path = rest.partition("/")
    user, at, host_and_port = authority.rpartition("@")
    if ":" in user:
        raise EndpointError(
            f"the address ssh://...@{host_and_port} has a password, and ssh takes none",
            hint="Use an SSH agent or a key, and leave the password out.",
        )
    if any(mark in rest for mark in "?# "):
        raise EndpointError(f"{url!r} has a query, a fragment or a space", hint=_HINT)
    host, port = _host_and_port(url, host_and_port)
    # ssh itself could take a leading dash for an option, or a shell on the way for one.
    if not host or (at and not user) or host.startswith("-") or user.startswith("-"):
        raise EndpointError(f"{url!r} names no host to reach by ssh", hint=_HINT)
    return SSHAddress(host, user or None, port, slash + path if path else None)


def _host_and_port(url: str, authority: str) -> tuple[str, int | None]:
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        valid = bool(bracket) and ":" in host and (not rest or rest.startswith(":"))
        port = rest[1:]
    else:
        host, _, port = authority.partition(":")
        valid = ":" not in port
    if not valid:
        raise EndpointError(f"the host in {url!r} is malformed", hint="Write an IPv6 address in brackets: [::1]:2375")
    if not port:
        return host, None
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise EndpointError(f"the port in {url!r} is not a number from 1 to 65535", hint=_HINT)
    return host, int(port)

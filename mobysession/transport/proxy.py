"""An HTTP proxy between here and a daemon's port: which one, and the tunnel through it.

Which one is what Go's clients, and so docker's, take from the environment: ``HTTPS_PROXY`` where TLS is spoken, else
``HTTP_PROXY``, in capitals or not, and none for what ``NO_PROXY`` lists (names, ``.suffixes``, addresses, networks,
with a port or without; ``*`` is everything), for ``localhost`` and for loopback addresses. In a CGI program
``HTTP_PROXY`` is what somebody sent in a header, and does not count.

The tunnel is ``CONNECT`` (RFC 9110 section 9.3.6), also for what is not in TLS: upgraded connections would not get
through otherwise. Docker's CLI sends its plain requests to such a proxy as they are, and its upgrades past it.

Source: golang/net http/httpproxy/proxy.go.
"""

from __future__ import annotations

import base64
import ipaddress
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import trio

from mobysession import limits
from mobysession.errors import ConnectError, EndpointError, ProxyRefused
from mobysession.protocol.http1 import one_line
from mobysession.transport.failure import reason_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from mobysession.transport.address import TCPAddress

__all__ = ["Proxy", "open_tunnel", "parse_proxy", "proxy_of"]

_SCHEMES: Final = {"http": 80, "https": 443}
_HEAD_END: Final = b"\r\n\r\n"
_HINTS: Final = {
    407: "It wants a login: write HTTP_PROXY=http://USER:PASSWORD@HOST:PORT (HTTPS_PROXY where the daemon speaks TLS).",
    403: "It does not let connections to that port through; where it is not needed, add the host to NO_PROXY.",
    405: "It does not know CONNECT; where it is not needed, add the host to NO_PROXY.",
}
_HINT: Final = "Where the daemon can be reached without the proxy, add its host to NO_PROXY."


class Proxy(NamedTuple):
    """The address of a proxy. ``login`` is user and password with a colon, or empty. Its ``str()`` shows neither."""

    scheme: str
    host: str
    port: int
    login: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __repr__(self) -> str:
        return str(self)


def parse_proxy(text: str) -> Proxy:
    """Take the address of a proxy apart; without a scheme it is one of HTTP.

    Raises:
        EndpointError: it is malformed, or of a kind that is not spoken here; the user must change it.
    """
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        host, port = url.hostname, url.port
    except ValueError:
        host = port = url = None
    if url is None or not host:
        # Not shown: it may have a password anywhere.
        raise EndpointError("the address of the HTTP proxy is malformed", hint="Write http://[USER:PASSWORD@]HOST:PORT")
    if url.scheme not in _SCHEMES:
        raise EndpointError(
            f"a proxy of {url.scheme} is not spoken here",
            hint="Use an HTTP proxy, add the daemon's host to NO_PROXY, or reach it by ssh://.",
        )
    login = f"{unquote(url.username or '')}:{unquote(url.password or '')}" if url.username or url.password else ""
    return Proxy(url.scheme, host, port or _SCHEMES[url.scheme], login)


def proxy_of(address: TCPAddress, *, tls: bool, environ: Mapping[str, str]) -> str | None:
    """Return the address of the proxy through which the environment wants a daemon to be reached; None: directly."""
    names = ("HTTPS_PROXY", "https_proxy") if tls else ("HTTP_PROXY", "http_proxy")
    found = next((value for value in map(environ.get, names) if value), None)
    if found is None or (not tls and environ.get("REQUEST_METHOD")):
        return None
    excluded = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    return None if _is_excluded(address.host.lower(), address.port, excluded) else found


def _is_excluded(host: str, port: int, excluded: str) -> bool:
    ip = _ip(host)
    if host == "localhost" or (ip is not None and ip.is_loopback):
        return True
    entries = filter(None, (entry.strip().lower() for entry in excluded.split(",")))
    return any(entry == "*" or _matches(entry, host, ip, port) for entry in entries)


def _matches(entry: str, host: str, ip: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int) -> bool:
    if "/" in entry:
        try:
            return ip is not None and ip in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, wanted = _split(entry)
    if not name or (wanted and wanted != str(port)):
        return False
    if (listed := _ip(name)) is not None:
        return ip == listed
    name = name.removeprefix("*")
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")


def _split(entry: str) -> tuple[str, str]:
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        return name, rest.removeprefix(":")
    return (entry, "") if entry.count(":") != 1 else (entry.partition(":")[0], entry.partition(":")[2])


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


async def open_tunnel(
    proxy: Proxy, address: TCPAddress, *, name: str, connect: Callable[[str, int], Awaitable[trio.SocketStream]]
) -> trio.abc.Stream:
    """Open a stream to an address through a proxy; the caller owns it.

    Args:
        proxy: the proxy.
        address: where to.
        name: of the endpoint, for messages.
        connect: opens a connection to a host and a port.

    Raises:
        ProxyRefused: the proxy answered, and not with a tunnel.
        ConnectError: it could not be reached, or it broke the connection.

    Cancel: nothing stays open.
    """
    stream: trio.abc.Stream
    try:
        stream = await connect(proxy.host, proxy.port)
    except OSError as error:
        raise ConnectError(f"{name}: the proxy {proxy} cannot be reached: {reason_of(error)}", hint=_HINT) from error
    try:
        if proxy.scheme == "https":
            context = await trio.to_thread.run_sync(ssl.create_default_context)
            stream = trio.SSLStream(stream, context, server_hostname=proxy.host, https_compatible=True)
        await stream.send_all(_request(proxy, address))
        status, words = _parse_head(await _read_head(stream))
        if not 200 <= status < 300:
            raise ProxyRefused(
                f"{name}: the proxy {proxy} refused a tunnel with status {status}: {words}",
                status=status,
                hint=_HINTS.get(status, _HINT),
            )
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise ConnectError(f"{name}: the proxy {proxy} broke the connection: {reason_of(error)}", hint=_HINT) from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def _request(proxy: Proxy, address: TCPAddress) -> bytes:
    lines = [f"CONNECT {address.host_header} HTTP/1.1", f"Host: {address.host_header}"]
    if proxy.login:
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(proxy.login.encode()).decode()}")
    return "\r\n".join([*lines, "", ""]).encode("ascii", "replace")


async def _read_head(stream: trio.abc.Stream) -> bytes:
    """Read up to the end of a head, and not a byte of what follows: it is the daemon's, which may speak first."""
    head = bytearray()
    while not head.endswith(_HEAD_END):
        byte = await stream.receive_some(1)
        head += byte
        if not byte or len(head) > limits.MAX_PROXY_HEAD:
            break
    return bytes(head)


def _parse_head(head: bytes) -> tuple[int, str]:
    """Return the status and its words; 0 for what is no answer of HTTP."""
    line = head.partition(b"\r\n")[0].decode("latin-1")
    version, _, rest = line.partition(" ")
    code, _, words = rest.partition(" ")
    if not (version.startswith("HTTP/1.") and code.isascii() and code.isdecimal() and head.endswith(_HEAD_END)):
        return 0, f"it answered {one_line(line)!r}" if line else "it closed the connection"
    return int(code), one_line(words) or "no reason given"

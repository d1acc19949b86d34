"""An endpoint becomes a byte stream: unix sockets, TCP, TLS, ssh; what else there is dials itself (``remote``).

Whatever fails here is named after the endpoint and who chose it, and ends in what the user can do about it. A stream
that was half made is closed again, also when the dialling is cancelled.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from mobysession import limits
from mobysession.errors import ConnectError
from mobysession.transport.address import SSHAddress, TCPAddress, UnixAddress
from mobysession.transport.failure import reason_of, system_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession.transport.endpoint import Endpoint

__all__ = ["dial"]

_KEEPALIVE_SECONDS = 30  # what Go sets on the connections it hijacks: a session may be idle behind NAT for hours
_BACKLOG_PAUSE = 0.05  # seconds before the second try; doubled from then on
_LONGEST_PAUSE = 1.0
_RUNNING_HINT = "Is the daemon running? Name another one with --host, DOCKER_HOST or a docker context."
_BUILDKITD_HINT = "Is buildkitd running? Name another one with --host or BUILDKIT_HOST."


async def dial(
    endpoint: Endpoint, *, timeout: float = limits.CONNECT_TIMEOUT, alpn: Sequence[str] = ("http/1.1",)
) -> trio.abc.Stream:
    """Open a stream to a daemon.

    Args:
        endpoint: where it is.
        timeout: seconds until the connection must stand, TLS included.
        alpn: protocols to offer where there is TLS; ``h2`` only to speak gRPC at once.

    Returns: a stream that the caller owns; a ``trio.abc.HalfCloseableStream`` unless it is TLS.

    Raises:
        ConnectError: nothing accepts connections there, or not from this user; TLSError when TLS failed.
        EndpointError: a TLS file of the endpoint cannot be used; the user must mend it.

    Cancel: nothing stays open.
    """
    address = endpoint.address
    if not isinstance(address, UnixAddress | TCPAddress | SSHAddress):
        return await address.dial(endpoint)  # in its own time: a container may have to be made first
    with trio.move_on_after(timeout):
        if isinstance(address, UnixAddress):
            return await _dial_unix(endpoint, address)
        if isinstance(address, SSHAddress):
            from mobysession.transport.ssh import dial_ssh  # only for who uses ssh: start-up

            return await dial_ssh(address, name=str(endpoint), buildkitd=endpoint.is_buildkitd)
        stream = await _dial_tcp(endpoint, address)
        return stream if endpoint.tls is None else await _wrap_tls(endpoint, stream, address.host, alpn)
    raise ConnectError(
        f"{endpoint} did not accept a connection within {timeout:g} seconds", hint=_running_hint(endpoint)
    )


async def _dial_unix(endpoint: Endpoint, address: UnixAddress) -> trio.SocketStream:
    pause = _BACKLOG_PAUSE
    try:
        while True:
            stream = await trio.open_unix_socket(address.path)
            try:
                stream.socket.getpeername()
            except OSError as error:
                # A full backlog: on unix sockets connect() neither waits for it nor fails in a way that trio sees.
                stream.socket.close()
                if error.errno != errno.ENOTCONN:
                    raise
                await trio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return stream
    except OSError as error:
        raise _socket_failure(endpoint, address.path, error) from error


def _socket_failure(endpoint: Endpoint, path: str, error: OSError) -> ConnectError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConnectError(
            f"no permission to use the socket of {endpoint}",
            hint="Join the group that owns it (usually docker, then log in again), use sudo, or a rootless daemon.",
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return ConnectError(f"there is no socket at {endpoint}", hint=_percent_hint(path) or _running_hint(endpoint))
    if error.errno == errno.ECONNREFUSED:
        if not _is_socket(path):
            return ConnectError(f"{endpoint} is not a socket", hint=_running_hint(endpoint))
        return ConnectError(f"nobody listens at {endpoint}", hint=_running_hint(endpoint))
    return ConnectError(f"cannot connect to {endpoint}: {error.strerror or error}", hint=_running_hint(endpoint))


def _running_hint(endpoint: Endpoint) -> str:
    return _BUILDKITD_HINT if endpoint.is_buildkitd else _RUNNING_HINT


def _percent_hint(path: str) -> str | None:
    """Say what somebody may have meant who wrote a path as URLs have it; docker does not take it for that either."""
    if "%" not in path:
        return None
    from urllib.parse import unquote

    meant = unquote(path)
    return f"There is one at {meant}: paths are taken as they are, write unix://{meant}" if _is_socket(meant) else None


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


async def _dial_tcp(endpoint: Endpoint, address: TCPAddress) -> trio.abc.Stream:
    if endpoint.proxy is not None:
        from mobysession.transport.proxy import open_tunnel, parse_proxy  # only for who has one: start-up

        return await open_tunnel(parse_proxy(endpoint.proxy), address, name=str(endpoint), connect=_connect)
    try:
        return await _connect(address.host, address.port)
    except OSError as error:
        raise _tcp_failure(endpoint, address.host, error) from error


async def _connect(host: str, port: int) -> trio.SocketStream:
    try:
        stream = await trio.open_tcp_stream(host, port)
    except UnicodeError as error:
        # An empty label, or one of more than 63 characters: Python cannot even ask for such a name.
        raise socket.gaierror(socket.EAI_NONAME, "no host can have this name") from error
    _keep_alive(stream.socket)
    return stream


def _keep_alive(sock: trio.socket.SocketType) -> None:
    with suppress(OSError):  # closed by the other side already: the first read tells
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL"):  # the second is the first one's name on macOS
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, _KEEPALIVE_SECONDS)


def _tcp_failure(endpoint: Endpoint, host: str, error: OSError) -> ConnectError:
    if isinstance(error, socket.gaierror):
        return ConnectError(
            f"the host {host!r} of {endpoint} is not known: {error.strerror}", hint=_running_hint(endpoint)
        )
    if isinstance(system_error(error), ConnectionRefusedError):
        return ConnectError(f"nobody listens at {endpoint}", hint=_running_hint(endpoint))
    return ConnectError(f"cannot connect to {endpoint}: {reason_of(error)}", hint=_running_hint(endpoint))


async def _wrap_tls(
    endpoint: Endpoint, stream: trio.abc.Stream, host: str, alpn: Sequence[str]
) -> trio.SSLStream[trio.abc.Stream]:
    from mobysession.transport.tls import tls_failure

    config = endpoint.tls
    assert config is not None
    try:
        context = await trio.to_thread.run_sync(functools.partial(config.context, alpn))
        secured = trio.SSLStream(
            stream, context, server_hostname=config.server_name or host.partition("%")[0], https_compatible=True
        )
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        failure = tls_failure(error, str(endpoint))
        raise failure or ConnectError(f"{endpoint} broke the connection in the TLS handshake") from error
    except ValueError as error:
        # It begins with a dot. It was reached all the same, through a proxy, or the name is the user's own.
        await trio.aclose_forcefully(stream)
        raise ConnectError(f"no certificate of {endpoint} can have its name: {reason_of(error)}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured

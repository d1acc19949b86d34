"""Where a listener listens: addresses as a user writes them, and what they leave in the file system.

The socket file of a process that did not end well is replaced, that of a living one is not, and ours goes with us,
unless another has taken its place meanwhile.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeGuard

import trio

from mobysession import limits
from mobysession.errors import EndpointError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    Listener = trio.abc.Listener[trio.abc.Stream]

__all__ = ["OpenedListeners", "open_listeners", "target"]

_UNIX = "unix://"
_FORMS = "unix:///path or tcp://host:port (port 0: any that is free)"


async def open_listeners(listeners: str | Listener | Iterable[str | Listener]) -> OpenedListeners:
    """Return ``listeners``, which belong to the result from now on, with those for addresses opened.

    Raises:
        EndpointError: nothing can listen at an address; the user must act. Then all are closed.
        UsageError: it is no address; the caller must act.
    """
    wanted = list(listeners) if _is_many(listeners) else [listeners]
    opened = OpenedListeners()
    # First of all what is open already, which must be closed whatever becomes of the others.
    opened.extend(one for one in wanted if isinstance(one, trio.abc.Listener))
    try:
        for address in wanted:
            if not isinstance(address, str | trio.abc.Listener):
                raise UsageError(f"{address!r} is neither an address, which is a str, nor a listener of trio's")
            if isinstance(address, str):
                opened.extend(await _open_address(address))
                if address.startswith(_UNIX):
                    opened.made(address.removeprefix(_UNIX))
    except BaseException:
        await opened.aclose()
        raise
    return opened


def _is_many(listeners: object) -> TypeGuard[Iterable[str | Listener]]:
    return isinstance(listeners, Iterable) and not isinstance(listeners, str | bytes)


async def _open_address(address: str) -> Sequence[Listener]:
    scheme, _, rest = address.partition("://")
    try:
        if address.startswith(_UNIX) and rest:
            return [_open_unix(rest)]
        host, colon, port = rest.rpartition(":")
        if scheme == "tcp" and colon and port.isdecimal() and len(port) <= 5 and int(port) < 2**16:
            return await trio.open_tcp_listeners(int(port), host=host.strip("[]") or None)
    except OSError as error:
        raise EndpointError(f"nothing can listen at {address}: {error.strerror or error}") from error
    except UnicodeError as error:
        # An empty label, or one of more than 63 characters.
        raise EndpointError(f"nothing can listen at {address}: there is no such host") from error
    raise EndpointError(f"{address!r} is no address to listen at", hint=f"It must look like {_FORMS}.")


def _open_unix(path: str) -> Listener:
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(path)
        listening.listen(limits.ACCEPT_BACKLOG)
        return trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    except BaseException:
        listening.close()
        raise


def _remove_stale(path: str) -> None:
    """Remove the socket that a process left behind which did not end well: nobody answers there."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(OSError):
                os.unlink(path)
        except OSError:
            return


def target(listener: Listener) -> str | None:
    """Return where ``listener`` can be reached, as gRPC's clients take it; None where only its maker knows."""
    if not isinstance(listener, trio.SocketListener):
        return None
    name = listener.socket.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class OpenedListeners(list["Listener"]):
    """Listeners, closed together; the sockets made for them go from the file system, unless another took the place."""

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[str, tuple[int, int] | None] = {}

    def made(self, path: str) -> None:
        """Remember the file of a socket that was made for one of them."""
        self._files[path] = _identity(path)

    async def aclose(self) -> None:
        """Close all and remove their files; doing it again does nothing."""
        while self._files:
            path, identity = self._files.popitem()
            if identity is not None and _identity(path) == identity:
                with suppress(OSError):
                    os.unlink(path)
        # Forcefully is at once, so that a cancellation need not, and must not, come between two of them.
        with trio.CancelScope(shield=True):
            for listener in self:
                await trio.aclose_forcefully(listener)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino

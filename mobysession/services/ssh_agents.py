"""Where a forwarded SSH agent comes from: a socket that an agent listens on, key files, or a stream of the user's.

Each source serves one connection at a time of those that a build step opens; there may be many at once. Behind a socket
is the user's own agent, to which a raw stream would give full control: keys could be added, removed, locked. Only what
a client of it needs, listing and signing, is passed on therefore, message by message, unless ``raw`` is asked for.

Source: moby/buildkit session/sshforward/sshprovider/agentprovider.go.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from mobysession import limits
from mobysession.concurrency import open_nursery
from mobysession.errors import RemoteProtocolError, SshError, UsageError
from mobysession.services.agent_frames import (
    EXTENSION,
    EXTENSION_FAILURE,
    FAILURE,
    REMOVE_ALL_RSA_IDENTITIES,
    REQUEST_IDENTITIES,
    REQUEST_RSA_IDENTITIES,
    RSA_IDENTITIES_ANSWER,
    SIGN_REQUEST,
    SUCCESS,
    AgentFrames,
    encode_frame,
    parse_identities,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mobysession.services.agent_frames import Identity
    from mobysession.services.ssh_keys import KeyRing, Passphrase

__all__ = ["Connection", "SshAgent", "SshKeys", "SshSource", "SshStream"]

_AUTH_SOCK: Final = "SSH_AUTH_SOCK"
_PASSED_ON: Final = frozenset((REQUEST_IDENTITIES, SIGN_REQUEST))
#: What is answered here, as the reference does; whatever is not listed fails.
_ANSWERS: Final = {
    REQUEST_RSA_IDENTITIES: encode_frame(RSA_IDENTITIES_ANSWER, bytes(4)),
    REMOVE_ALL_RSA_IDENTITIES: encode_frame(SUCCESS),
    EXTENSION: encode_frame(EXTENSION_FAILURE),
}
_FAILURE: Final = encode_frame(FAILURE)


class Connection(ABC):
    """One connection that a build step opened: bytes both ways."""

    @abstractmethod
    async def receive(self) -> bytes | memoryview | None:
        """Return the next bytes of the client; None once it sends no more."""

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Send bytes to the client."""


class SshSource(ABC):
    """Something that answers as an SSH agent, or takes an agent's place."""

    @abstractmethod
    def check(self) -> list[Identity]:
        """See that it can be used and return the keys it has, before a build starts; blocking, in bounds.

        Raises:
            SshError: it cannot be used; the user must act.
        """

    @abstractmethod
    async def serve(self, connection: Connection) -> None:
        """Serve one connection until either side ends it.

        Raises:
            SshError: it cannot be used (any more).

        Cancel: the agent's side is closed.
        """


class SshAgent(SshSource):
    """The agent that listens on a socket.

    Args:
        path: the socket; None: the one that ``SSH_AUTH_SOCK`` names when the agent is used.
        raw: pass every message on. A build step can then add, remove and lock the agent's keys.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, raw: bool = False) -> None:
        self._path = None if path is None else os.fspath(path)
        self._raw = raw

    def __repr__(self) -> str:
        return f"SshAgent({self._path or _AUTH_SOCK}{', raw=True' if self._raw else ''})"

    @property
    def path(self) -> str:
        """The path of the socket; SshError where ``SSH_AUTH_SOCK`` is to name it and does not."""
        path = self._path or os.environ.get(_AUTH_SOCK)
        if not path:
            raise SshError(
                f"no SSH agent: {_AUTH_SOCK} is not set",
                hint='Start one with: eval "$(ssh-agent)" && ssh-add, or give the path of a key.',
            )
        return path

    def check(self) -> list[Identity]:
        """Connect, and return the keys that the agent lists; none are asked of what is passed on raw."""
        path = self.path
        if self._raw:
            _check_socket(path)
            return []
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(limits.AGENT_CONNECT_TIMEOUT)
                connection.connect(path)
                connection.sendall(encode_frame(REQUEST_IDENTITIES))
                return parse_identities(_first_frame(connection, path))
        except OSError as error:
            raise _unreachable(path, error) from error
        except RemoteProtocolError as error:
            raise SshError(f"{path} is not an SSH agent: {error.message}") from error

    async def serve(self, connection: Connection) -> None:
        """Pass the messages of one connection on; see the class for which."""
        async with _dial(self.path) as agent:
            if self._raw:
                await _relay(connection, agent)
            else:
                await _filter(connection, agent)


class SshKeys(SshSource):
    """Private keys in files, held by an agent inside this process.

    ed25519, ECDSA and RSA keys are known, in OpenSSH's format or as PEM.

    Args:
        paths: the files.
        passphrase: for those that are encrypted, or a function that is called with the path of each and returns it. An
            attribute too, which counts until the keys are read.

    Raises:
        UsageError: no path was given.
    """

    def __init__(self, *paths: str | os.PathLike[str], passphrase: Passphrase | None = None) -> None:
        if not paths:
            raise UsageError("SshKeys needs the path of a private key")
        self._paths = tuple(os.fspath(path) for path in paths)
        self.passphrase = passphrase
        self._ring: KeyRing | None = None
        # Of two connections at once only one may ask for a passphrase.
        self._reading = threading.Lock()

    def __repr__(self) -> str:
        return f"SshKeys({', '.join(self._paths)})"

    def check(self) -> list[Identity]:
        """Read and decrypt the keys, the first time, and return them."""
        return list(self._keys().identities)

    async def serve(self, connection: Connection) -> None:
        """Answer one connection's requests from the keys, one after the other."""
        # Left behind where the call is cancelled: it may be waiting for somebody to type a passphrase.
        ring: KeyRing = await trio.to_thread.run_sync(self._keys, abandon_on_cancel=True)
        frames = AgentFrames(limits.MAX_AGENT_REQUEST)
        while (data := await connection.receive()) is not None:
            for request in frames.receive_data(data):
                # An RSA signature takes milliseconds, which no other call should wait for.
                await connection.send(await trio.to_thread.run_sync(ring.answer, request))

    def _keys(self) -> KeyRing:
        with self._reading:
            if self._ring is None:
                from mobysession.services.ssh_keys import load_key_ring  # loads cryptography

                self._ring = load_key_ring(self._paths, self.passphrase)
            return self._ring


class SshStream(SshSource):
    """Whatever a function of the user's connects to, passed on raw: an agent elsewhere, or no agent at all.

    Args:
        connect: an async function without arguments that returns a new `trio.abc.Stream` for each connection.
    """

    def __init__(self, connect: Callable[[], Awaitable[trio.abc.Stream]]) -> None:
        self._connect = connect

    def check(self) -> list[Identity]:
        """Return nothing: what a function connects to is seen when a build step asks for it."""
        return []

    async def serve(self, connection: Connection) -> None:
        """Pass the bytes of one connection both ways."""
        try:
            agent = await self._connect()
        except Exception as error:  # of any kind: the function is not ours
            raise SshError(f"the function that connects to an SSH agent failed with {type(error).__name__}") from error
        async with agent:
            await _relay(connection, agent)


@asynccontextmanager
async def _dial(path: str) -> AsyncIterator[trio.abc.HalfCloseableStream]:
    try:
        with trio.fail_after(limits.AGENT_CONNECT_TIMEOUT):
            stream = await trio.open_unix_socket(path)
    except (OSError, trio.TooSlowError) as error:
        raise _unreachable(path, error) from error
    async with stream:
        yield stream


async def _filter(connection: Connection, agent: trio.abc.Stream) -> None:
    """Ask the agent what may be asked, one request after the other, and answer the rest here."""
    requests, answers = AgentFrames(limits.MAX_AGENT_REQUEST), AgentFrames()
    while (data := await connection.receive()) is not None:
        for request in requests.receive_data(data):
            if request[0] not in _PASSED_ON:
                await connection.send(_ANSWERS.get(request[0], _FAILURE))
                continue
            answer = await _ask(agent, request, answers)
            if answer is None:
                return
            await connection.send(encode_frame(answer[0], answer[1:]))


async def _ask(agent: trio.abc.Stream, request: bytes, answers: AgentFrames) -> bytes | None:
    """Return the agent's answer, without its length; None when it hangs up."""
    try:
        await agent.send_all(encode_frame(request[0], request[1:]))
        while data := await agent.receive_some(limits.AGENT_CHUNK):
            messages = answers.receive_data(data)
            if len(messages) > 1:
                raise RemoteProtocolError("the SSH agent gave more answers than it was asked for")
            if messages:
                return messages[0]
    except trio.BrokenResourceError as error:
        raise SshError("the connection to the SSH agent broke") from error
    return None


async def _relay(connection: Connection, agent: trio.abc.Stream) -> None:
    """Pass bytes both ways. The client's end is the agent's half-close; the agent's end is the end."""

    async def pass_on() -> None:
        while (data := await connection.receive()) is not None:
            await agent.send_all(data)
        if isinstance(agent, trio.abc.HalfCloseableStream):
            await agent.send_eof()
        else:
            await agent.aclose()

    try:
        async with open_nursery() as nursery:
            nursery.start_soon(pass_on)
            while data := await agent.receive_some(limits.AGENT_CHUNK):
                await connection.send(bytes(data))
            nursery.cancel_scope.cancel()
    except trio.BrokenResourceError as error:
        raise SshError("the connection to the SSH agent broke") from error
    except trio.ClosedResourceError:
        # By ourselves, for a client that had nothing more to say to an agent that knows no half-close.
        return


def _first_frame(connection: socket.socket, path: str) -> bytes:
    frames = AgentFrames()
    deadline = time.monotonic() + limits.AGENT_LIST_TIMEOUT
    while True:
        # For the whole answer, however it drips.
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        data = connection.recv(limits.AGENT_CHUNK)
        if not data:
            break
        messages = frames.receive_data(data)
        if messages:
            return messages[0]
    raise SshError(f"the SSH agent at {path} hung up when it was asked for its keys")


def _check_socket(path: str) -> None:
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            raise SshError(f"{path} is not a socket", hint="Give the path of a private key without raw=true.")
    except (OSError, ValueError) as error:
        raise _unreachable(path, error) from error


def _unreachable(path: str, error: Exception) -> SshError:
    if isinstance(error, trio.TooSlowError | TimeoutError):
        reason = "it does not answer"
    else:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return SshError(f"no SSH agent at {path}: {reason}", hint="See whether it runs with: ssh-add -l")

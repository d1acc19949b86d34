"""A process in a container of a Docker engine, and the bytes of its stdin and stdout: a ``docker exec`` of our own.

::

    POST /containers/NAME/exec        {"Cmd": [...], "AttachStdin": true, ...}    201 {"Id": ID}
    POST /exec/ID/start               Connection: Upgrade, Upgrade: tcp           101; then raw input, framed output
    GET  /exec/ID/json                at the end                                  its exit status

That the program is not in the container is told by the engine as output of that program, on stdout, and only the exit
status shows that it never ran.
(moby/moby daemon/server/router/container/exec.go; engines 20.10.24 and 28.5.2)
"""

from __future__ import annotations

import json
import operator
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import trio

from mobysession import limits
from mobysession.errors import ConnectError, EndpointError, MobysessionError, RemoteProtocolError, UpgradeRefused
from mobysession.jsontext import parse_json
from mobysession.protocol.http1 import one_line
from mobysession.protocol.stdcopy import STDOUT, SYSTEM, StdcopyDecoder
from mobysession.transport.api import EngineApi
from mobysession.transport.command import CommandLost, CommandNotConnected
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.hijack import hijack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession.transport.hijack import HijackedStream
    from mobysession.transport.remote import ContainerAddress

__all__ = [
    *("JSON", "MISSING", "ContainerUnavailable", "ExecStream", "dial_container", "find_engine", "open_exec"),
    "parse_object",
]

#: The header line of a body in JSON.
JSON: Final = ("Content-Type", "application/json")
_SHOWN: Final = 1000  # bytes of its last words that fit into a message
#: How an engine begins to say that it could not run the program, on its stdout. No server of HTTP/2 begins so.
_NEVER_RAN: Final = b"OCI runtime"
#: The status for what does not exist.
MISSING: Final = 404
_STOPPED: Final = 409


class ContainerUnavailable(ConnectError):
    """There is no such container (``status`` 404), or it does not run (409)."""

    def __init__(self, message: str, *, status: int, hint: str | None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


async def dial_container(address: ContainerAddress, *, name: str) -> trio.abc.Stream:
    """Open a stream to the buildkitd in a container; see `mobysession.transport.dial.dial`.

    Raises:
        ContainerUnavailable: it is not there or does not run, and was not to be booted.
        EndpointError: what is to be asked for the container is no engine.
        TransportError: the engine could not be asked.

    Cancel: nothing stays open; what was booted goes on running.
    """
    engine = await trio.to_thread.run_sync(find_engine, address, name)
    if address.boot is not None:
        from mobysession.transport.boot import boot_container  # only for who boots one

        await boot_container(engine, address, name=name)
    return await open_exec(engine, address.name, address.argv, name=name)


def find_engine(address: ContainerAddress, name: str) -> Endpoint:
    """Return the endpoint of the engine that has the container; blocking, as it reads files."""
    if address.engine is not None:
        engine = Endpoint.from_env(host=address.engine)
    elif address.context is not None:
        engine = Endpoint.from_env(context=address.context)
    else:
        engine = Endpoint.from_env()
    if engine.is_buildkitd:
        raise EndpointError(
            f"{name}: the engine of the container is to be {engine}, which is a buildkitd",
            hint="Name the engine: docker-container://NAME?host=unix:///var/run/docker.sock, or ?context=NAME",
        )
    return engine


async def open_exec(engine: Endpoint, container: str, argv: Sequence[str], *, name: str) -> ExecStream:
    """Run a program in a container and return the stream to it, which the caller owns.

    That it was accepted does not mean that it runs: the first read tells.

    Args:
        engine: the Docker engine.
        container: its name or ID.
        argv: the program, found on the container's PATH, and its arguments.
        name: what it leads to, for messages.

    Raises:
        ContainerUnavailable: the container is not there, or does not run.
        TransportError: the engine could not be asked, or does not let a program run there.

    Cancel: nothing stays open; the program's input ends.
    """
    wanted = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Tty": False, "Cmd": list(argv)}
    created = await _post(engine, f"/containers/{quote(container, safe='')}/exec", wanted, name)
    exec_id = created.get("Id")
    if not isinstance(exec_id, str) or not exec_id:
        raise ConnectError(f"{name}: the engine accepted a program for the container and gave no ID for it")
    body = json.dumps({"Detach": False, "Tty": False}).encode()
    target = f"/exec/{quote(exec_id, safe='')}/start"
    try:
        stream = await hijack(engine, target, [JSON], protocol="tcp", body=body)
    except UpgradeRefused as error:
        if error.status != _STOPPED:
            raise
        # It ended between the two requests.
        raise _unavailable(name, engine, error.status) from error
    kind = HalfCloseableExecStream if isinstance(stream, trio.abc.HalfCloseableStream) else ExecStream
    return kind(stream, engine, exec_id, name=name, program=argv[0])


def _unavailable(name: str, engine: Endpoint, status: int) -> ContainerUnavailable:
    words = "does not exist" if status == MISSING else "does not run"
    return ContainerUnavailable(
        f"{name}: the container {words}, says {engine}",
        status=status,
        hint="Add ?boot=1 to the address to have it made and started, or start it by hand.",
    )


async def _post(engine: Endpoint, path: str, document: object, name: str) -> dict[str, object]:
    body = json.dumps(document).encode()
    async with EngineApi(engine).request("POST", path, headers=[JSON], body=body) as response:
        if response.status >= 400:
            error = await response.error(f"POST {path}")
            if response.status in (MISSING, _STOPPED):
                raise _unavailable(name, engine, response.status) from error
            raise ConnectError(f"{name}: {error.message}") from error
        return parse_object(await response.read(limits.MAX_REFUSAL_BODY, timeout=limits.HANDSHAKE_TIMEOUT))


def parse_object(content: bytes) -> dict[str, object]:
    """Return a JSON object; an empty one where it is none, for then nothing that is looked for is in it."""
    try:
        document = parse_json(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


class ExecStream(trio.abc.Stream):
    """The stdin and stdout of a program in a container; made by `open_exec`. Of its stderr the end is kept."""

    def __init__(self, stream: HijackedStream, engine: Endpoint, exec_id: str, *, name: str, program: str) -> None:
        self.transport_stream: trio.abc.Stream = stream
        self._engine = engine
        self._id = exec_id
        self._name = name
        self._program = program
        self._decoder = StdcopyDecoder()
        self._received = b""
        self._said = b""
        self._delivered = False
        self._at_end = False
        self._failure: MobysessionError | None = None

    @property
    def last_words(self) -> str:
        """What it wrote to stderr, the end of it, in one line."""
        return one_line(self._said[-_SHOWN:].decode("utf-8", "replace"))

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read what the program wrote to stdout. Cancel: nothing is lost.

        Raises:
            CommandNotConnected: it failed, and its stderr says why, or it is not in the container.
            CommandLost: the same, after it had delivered something.
        """
        # What is no whole number is refused at once, and not only when something has come.
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._failure is not None:
            raise self._failure
        if self._received or self._at_end:
            await trio.lowlevel.checkpoint()
        while not self._received and not self._at_end:
            await self._fill()
        self._delivered = self._delivered or bool(self._received)
        if max_bytes is None or max_bytes >= len(self._received):
            data, self._received = self._received, b""
        else:
            data, self._received = self._received[:max_bytes], self._received[max_bytes:]
        return data

    async def _fill(self) -> None:
        self._take(bytes(await self.transport_stream.receive_some(limits.READ_SIZE)))
        if not self._delivered and self._received.startswith(_NEVER_RAN):
            await self._collect_words()
        if self._at_end:
            await self._check()

    def _take(self, data: bytes) -> None:
        if not data:
            self._at_end = True
            return
        try:
            pieces = self._decoder.receive_data(data)
        except RemoteProtocolError as error:
            raise (CommandLost if self._delivered else CommandNotConnected)(f"{self._name}: {error.message}") from error
        output = []
        for number, piece in pieces:
            if number == STDOUT:
                output.append(piece)
            else:
                self._said = (self._said + piece)[-limits.COMMAND_STDERR :]
                self._at_end = self._at_end or number == SYSTEM
        # Mostly one, and then it is not copied.
        self._received = output[0] if len(output) == 1 and not self._received else b"".join([self._received, *output])

    async def _collect_words(self) -> None:
        """Read to the end what the engine says in the program's place, and take it for the words of its failure."""
        with trio.move_on_after(limits.COMMAND_EXIT_TIMEOUT):
            while not self._at_end and len(self._received) <= limits.COMMAND_STDERR:
                self._take(bytes(await self.transport_stream.receive_some(limits.READ_SIZE)))
        self._said, self._received, self._at_end = self._said + self._received, b"", True

    async def _check(self) -> None:
        """Raise when the program has failed."""
        status = await self.exit_status()
        whole = self._decoder.is_between_frames
        if whole and (status == 0 or (status is None and not self._said)):
            return
        failure = CommandLost if self._delivered else CommandNotConnected
        ended = f"ended with status {status}" if status else "ended" if whole else "was cut off"
        words = self.last_words or "it did not say why"
        error = failure(f"{self._name}: {self._program} in the container {ended}: {words}", hint=self._hint())
        error.status, self._failure = status, error
        raise error

    def _hint(self) -> str | None:
        if _NEVER_RAN in self._said:
            return f"The container's image must have {self._program} on its PATH, as moby/buildkit has."
        return None

    async def exit_status(self) -> int | None:
        """Return the status that the program has ended with; None where it runs, or the engine cannot say."""
        try:
            with trio.move_on_after(limits.HANDSHAKE_TIMEOUT):
                status = (await EngineApi(self._engine).get_json(f"/exec/{quote(self._id, safe='')}/json")).get(
                    "ExitCode"
                )
                return status if isinstance(status, int) else None
        except MobysessionError:  # what is known of the program's end is all there is to tell
            return None
        return None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write to the program's stdin. Cancel: any part may have been sent."""
        await self.transport_stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until ``send_all`` might not block."""
        await self.transport_stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the connection, which ends the program's input; the program ends by itself. Cancel: it is closed."""
        self._received, self._at_end = b"", False  # what is read now must fail
        self._failure = None
        await self.transport_stream.aclose()


class HalfCloseableExecStream(ExecStream, trio.abc.HalfCloseableStream):
    """The same over a connection that can be closed in one direction."""

    transport_stream: trio.abc.HalfCloseableStream

    async def send_eof(self) -> None:
        """End the program's input; what it still has to say can be read."""
        await self.transport_stream.send_eof()

"""The SSH service: a build step connects to an agent inside its container, and it is one of ours that answers.

``moby.sshforward.v1.SSH/CheckAgent`` asks whether there is an agent of an ID, before the step starts.
``ForwardAgent`` is one connection to it, bytes both ways, and a step may open many. Only the IDs given to `Ssh` are
ever answered.

Source: moby/buildkit session/sshforward.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from mobysession import limits
from mobysession._pb.ssh_pb2 import CheckAgentRequest, CheckAgentResponse
from mobysession.errors import RpcError, SshError, StatusCode, UsageError
from mobysession.services.bytes_message import decode_bytes_message, encode_bytes_message
from mobysession.services.ssh_agents import Connection, SshAgent, SshKeys, SshSource

if TYPE_CHECKING:
    from mobysession.rpc.registrar import Registrar
    from mobysession.rpc.server import ServerCall
    from mobysession.services.agent_frames import Identity

__all__ = ["Ssh", "SshAgents", "parse_ssh_spec", "ssh_agents"]

_CHECK: Final = "/moby.sshforward.v1.SSH/CheckAgent"
_FORWARD: Final = "/moby.sshforward.v1.SSH/ForwardAgent"
_ID: Final = "buildkit.ssh.id"
_DEFAULT: Final = "default"
_log = logging.getLogger("mobysession.services")

#: SSH agents as a build takes them: specs for `parse_ssh_spec`, or what each ID stands for.
SshAgents: TypeAlias = Sequence[str] | Mapping[str, SshSource]


class Ssh:
    """Give the daemon these SSH agents, and no others.

    Args:
        agents: what each ID stands for; ``default`` is what a Dockerfile means that names none. The mapping is copied.

    Raises:
        UsageError: an ID is empty, or an agent is no `SshSource`; the caller must change it.
    """

    def __init__(self, agents: Mapping[str, SshSource]) -> None:
        self._agents = dict(agents)
        self._connections = 0
        for agent_id, agent in self._agents.items():
            if not agent_id:
                raise UsageError("the ID of an SSH agent is a text that is not empty")
            if not isinstance(agent, SshSource):
                raise UsageError(
                    f"the SSH agent {agent_id!r} cannot come from an object of type {type(agent).__name__}",
                    hint="Give an SshAgent, SshKeys or an SshStream.",
                )

    def __repr__(self) -> str:
        return f"Ssh({', '.join(self._agents)})"

    @property
    def ids(self) -> tuple[str, ...]:
        """The IDs that are answered, in the order given."""
        return tuple(self._agents)

    def offers(self, subject: str) -> bool:
        """Tell whether an ID is answered."""
        return (subject or _DEFAULT) in self._agents

    def check(self) -> dict[str, list[Identity]]:
        """See that every agent can be used, before a build starts, and return the keys of each; blocking.

        Raises:
            SshError: one cannot; the message names its ID and the user must act.
        """
        found = {}
        for agent_id, agent in self._agents.items():
            try:
                found[agent_id] = agent.check()
            except SshError as error:
                raise SshError(f"SSH agent {agent_id!r}: {error.message}", hint=error.hint) from error
            for key in found[agent_id]:
                _log.info("SSH agent %s has %s", agent_id, key)
            if not found[agent_id]:
                _log.info("SSH agent %s lists no keys", agent_id)
        return found

    def register(self, registrar: Registrar) -> None:
        """Add CheckAgent and ForwardAgent."""
        registrar.unary_unary(_CHECK, self._check_agent, CheckAgentRequest)
        registrar.stream(_FORWARD, self._forward_agent)

    async def _check_agent(self, request: CheckAgentRequest, _call: ServerCall) -> CheckAgentResponse:
        self._find(request.ID)
        return CheckAgentResponse()

    async def _forward_agent(self, call: ServerCall) -> None:
        agent = self._find(next(iter(call.values(_ID)), ""))
        if self._connections >= limits.MAX_AGENT_CONNECTIONS:
            raise RpcError(
                StatusCode.RESOURCE_EXHAUSTED,
                f"more than {limits.MAX_AGENT_CONNECTIONS} connections to SSH agents at once",
            )
        self._connections += 1
        try:
            await agent.serve(_CallConnection(call))
        finally:
            self._connections -= 1

    def _find(self, agent_id: str) -> SshSource:
        agent = self._agents.get(agent_id or _DEFAULT)
        if agent is None:
            # Not NOT_FOUND: the engines know these words.
            raise RpcError(StatusCode.UNKNOWN, f"unset ssh forward key {agent_id or _DEFAULT}")
        return agent


class _CallConnection(Connection):
    """A ForwardAgent call as the connection that it carries."""

    def __init__(self, call: ServerCall) -> None:
        self._call = call

    async def receive(self) -> bytes | memoryview | None:
        message = await self._call.receive()
        return None if message is None else decode_bytes_message(message)

    async def send(self, data: bytes) -> None:
        chunk = limits.AGENT_CHUNK
        await self._call.send_batch(
            [encode_bytes_message(data[start : start + chunk]) for start in range(0, len(data), chunk)]
        )


def ssh_agents(given: SshAgents) -> dict[str, SshSource]:
    """Return what each ID stands for; looks at the disk.

    Raises:
        UsageError: a spec makes no sense, or two have one ID.
        SshError: a path in one does not exist.
    """
    if isinstance(given, Mapping):
        return dict(given)
    agents: dict[str, SshSource] = {}
    for spec in given:
        agent_id, source = parse_ssh_spec(spec)
        if agent_id in agents:
            raise UsageError(f"ssh: the ID {agent_id} is given twice", hint="Several keys of one ID: ID=KEY,KEY...")
        agents[agent_id] = source
    return agents


def parse_ssh_spec(spec: str) -> tuple[str, SshSource]:
    """Read an agent as ``docker buildx build --ssh`` takes it: ``ID`` or ``ID=PATH[,PATH...][,raw=true]``.

    A path is the socket of an agent, or a private key; several are keys of one agent. Without a path the agent is that
    of ``SSH_AUTH_SOCK``.

    Raises:
        UsageError: sockets and keys are mixed, or something else makes no sense.
        SshError: a path does not exist.

    Source: moby/buildkit session/sshforward/sshprovider/agentprovider.go, docker/buildx util/buildflags/ssh.go.
    """
    agent_id, _, rest = spec.partition("=")
    if not agent_id:
        raise UsageError(f"ssh: {spec!r} has no ID", hint="Write default, ID=SOCKET or ID=KEY[,KEY...].")
    paths, raw = [], False
    for part in filter(None, rest.split(",")):
        key, separator, value = part.partition("=")
        if separator and key == "raw":
            raw = _boolean(value)
        else:
            paths.append(part)
    sockets = [path for path in paths if _is_socket(path)]
    if len(sockets) > 1 or (sockets and len(paths) > 1):
        raise UsageError(
            f"ssh: {agent_id} names a socket and something else", hint="One socket, or any number of keys."
        )
    if sockets or not paths:
        return agent_id, SshAgent(*sockets, raw=raw)
    if raw:
        raise UsageError(f"ssh: {agent_id} is raw, and {paths[0]} is no socket", hint="Give a socket, or no raw=true.")
    return agent_id, SshKeys(*paths)


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("1", "t", "true"):
        return True
    if lowered in ("0", "f", "false"):
        return False
    raise UsageError(f"ssh: raw is true or false, not {text!r}")


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SshError(
            f"ssh: {os.fspath(path)}: {reason}", hint="Give the socket of an agent, or a private key."
        ) from error

"""File systems that operations lead to, and what the next command runs in.

They never change: each method returns another.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mobysession._pb import ops_pb2
from mobysession.errors import UsageError
from mobysession.llb import files
from mobysession.llb.mounts import EMPTY, NO_OUTPUT, Mount
from mobysession.llb.vertex import Output, Vertex, check_texts, parse_platform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from mobysession.llb.definition import Definition

__all__ = ["Run", "State", "diff", "merge", "scratch"]

_NETWORKS = {"sandbox": ops_pb2.UNSET, "host": ops_pb2.HOST, "none": ops_pb2.NONE}
_SECURITY = {"sandbox": ops_pb2.SANDBOX, "insecure": ops_pb2.INSECURE}
_SHELL = ("/bin/sh", "-c")
_AGENT_SOCKET = "/run/buildkit/ssh_agent.{}"


@dataclass(frozen=True)
class State:
    """A file system, and what the next command would run in.

    Attributes:
        output: the operation that leads to it; None is an empty one.
        environment: variables, as pairs.
        cwd: working directory, absolute; relative paths count from it.
        user: ``user[:group]``; empty is root.
        platform: what commands run on, and images are taken for; empty: what the definition is made for.
    """

    output: Output | None = None
    environment: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    user: str = ""
    platform: str = ""

    def env(self, **variables: str) -> State:
        """Set variables for the commands that follow."""
        return replace(self, environment=tuple({**dict(self.environment), **variables}.items()))

    def dir(self, path: str) -> State:
        """Change the working directory; it is made where a command runs in it."""
        check_texts(path=path)
        return replace(self, cwd=posixpath.normpath(posixpath.join(self.cwd, path)))

    def as_user(self, user: str) -> State:
        """Run the commands that follow as ``user``, a name or a number, also ``user:group``."""
        check_texts(user=user)
        return replace(self, user=user)

    def with_platform(self, platform: str) -> State:
        """Run what follows for ``platform``, and take the image that this is for it.

        Raises:
            UsageError: it is none.
        """
        parse_platform(platform)
        output = self.output
        if output is not None and output.vertex.takes_platform and not output.vertex.op.HasField("platform"):
            vertex = output.vertex
            op = ops_pb2.Op()
            op.CopyFrom(vertex.op)
            op.platform.CopyFrom(parse_platform(platform))
            pinned = Vertex(
                op,
                vertex.inputs,
                caps=vertex.caps,
                name=vertex.name,
                ignore_cache=vertex.ignore_cache,
                takes_platform=True,
            )
            output = Output(pinned, output.number)
        return replace(self, output=output, platform=platform)

    def run(
        self,
        command: str | Sequence[str],
        *,
        mounts: Iterable[Mount] = (),
        env: Mapping[str, str] | None = None,
        secret_env: Mapping[str, str] | None = None,
        network: str = "sandbox",
        security: str = "sandbox",
        readonly: bool = False,
        hosts: Mapping[str, str] | None = None,
        hostname: str = "",
        ulimits: Mapping[str, tuple[int, int]] | None = None,
        exit_codes: Sequence[int] = (),
        ignore_cache: bool = False,
        name: str = "",
    ) -> Run:
        """Run a command in this file system.

        Args:
            command: for the shell, or the words of one without a shell.
            mounts: what it sees besides; see `mobysession.llb.bind`, `cache`, `secret`, `ssh`, `tmpfs`.
            env: variables for this command alone.
            secret_env: secrets that it gets as variables, by the variable's name.
            network: ``sandbox`` (what the engine gives), ``host`` or ``none``.
            security: ``insecure`` gives it all that the engine may; the build must be allowed to.
            readonly: the root cannot be written; the result is this state then.
            hosts: further lines of /etc/hosts: addresses by name.
            hostname: what the machine is called there.
            ulimits: soft and hard limits, by name.
            exit_codes: those that are no failure; none is 0 alone.
            ignore_cache: run it always.
            name: what progress calls it.

        Raises:
            UsageError: there is no command, no such network, or two mounts on one place.
        """
        for table, value, what in ((_NETWORKS, network, "network"), (_SECURITY, security, "security")):
            if value not in table:
                raise UsageError(f"there is no {what} {value!r}", hint=f"Choose {' or '.join(table)}.")
        arguments = _words(command)
        if not arguments:
            raise UsageError("there is no command to run")
        root = Mount(ops_pb2.Mount(dest="/", readonly=readonly), self.output, not readonly, ("exec.mount.bind",))
        placed, socket = _placed([root, *mounts])
        variables = {**dict(self.environment), **(env or {})}
        if socket:
            variables.setdefault("SSH_AUTH_SOCK", socket)
        meta = ops_pb2.Meta(
            args=arguments,
            env=[f"{key}={value}" for key, value in variables.items()],
            cwd=self.cwd,
            user=self.user,
            hostname=hostname,
            extraHosts=[ops_pb2.HostIP(Host=host, IP=address) for host, address in (hosts or {}).items()],
            ulimit=[ops_pb2.Ulimit(Name=key, Soft=soft, Hard=hard) for key, (soft, hard) in (ulimits or {}).items()],
            validExitCodes=exit_codes,
        )
        op = ops_pb2.Op(exec=ops_pb2.ExecOp(meta=meta, network=_NETWORKS[network], security=_SECURITY[security]))
        for variable, secret_id in (secret_env or {}).items():
            op.exec.secretenv.add(ID=secret_id, name=variable, optional=False)
        if self.platform:
            op.platform.CopyFrom(parse_platform(self.platform))
        inputs, outputs = _connect(op.exec, placed)
        asked = {
            "exec.meta.network": network != "sandbox",
            "exec.meta.security": security != "sandbox",
            "exec.meta.ulimit": ulimits,
            "exec.validexitcode": exit_codes,
            "exec.secretenv": secret_env,
        }
        # That BuildKit itself sets a PATH where there is none is one of them.
        caps = {"exec.meta.base", "exec.meta.setsdefaultpath", *(cap for mount in placed for cap in mount.caps)}
        caps.update(cap for cap, is_asked in asked.items() if is_asked)
        vertex = Vertex(op, inputs, caps=caps, name=name, ignore_cache=ignore_cache, takes_platform=True)
        result = Output(vertex, outputs["/"]) if "/" in outputs else self.output
        return Run(
            output=result,
            environment=self.environment,
            cwd=self.cwd,
            user=self.user,
            platform=self.platform,
            mounts=tuple((target, Output(vertex, index)) for target, index in outputs.items()),
        )

    def file(self, *actions: files.FileAction, ignore_cache: bool = False, name: str = "") -> State:
        """Do things to files, one after the other, in one step; see `mobysession.llb.mkdir`, `mkfile`, `copy`, `rm`.

        Raises:
            UsageError: there is nothing to do, or an owner makes no sense.
        """
        if not actions:
            raise UsageError("there is nothing to do")
        for action in actions:
            if not isinstance(action, files.FileAction):
                raise UsageError(f"file takes actions, as mkdir(...), not an object of type {type(action).__name__}")
        op, inputs, caps = files.file_op(self.output, self.cwd, actions)
        return replace(self, output=Output(Vertex(op, inputs, caps=caps, name=name, ignore_cache=ignore_cache)))

    def copy(
        self,
        source: State,
        src: str,
        dest: str,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        contents: bool = False,
        parents: bool = False,
        wildcard: bool = False,
        empty_ok: bool = False,
        follow: bool = False,
        unpack: bool = False,
        mode: int | str | None = None,
        owner: files.Owner | None = None,
        created: datetime | None = None,
        name: str = "",
    ) -> State:
        """Copy from another state; the arguments are those of `mobysession.llb.copy`."""
        action = files.copy(
            source,
            src,
            dest,
            include=include,
            exclude=exclude,
            contents=contents,
            parents=parents,
            wildcard=wildcard,
            empty_ok=empty_ok,
            follow=follow,
            unpack=unpack,
            mode=mode,
            owner=owner,
            created=created,
        )
        return self.file(action, name=name)

    def definition(self, *, platform: str = "", with_sources: bool = False) -> Definition:
        """Return the graph that leads here, to be solved.

        Args:
            platform: what commands run on, and images are taken for, where they say nothing else; empty is the engine's
                own.
            with_sources: send the Python files in which the operations were written along, so that a failure shows the
                line that it comes from.

        Raises:
            UsageError: ``platform`` is none, or this is an empty file system.
        """
        from mobysession.llb.definition import Definition

        if self.output is None:
            raise UsageError("nothing leads to an empty file system, so that there is nothing to solve")
        return Definition.of(self.output, platform=platform or self.platform, with_sources=with_sources)


@dataclass(frozen=True)
class Run(State):
    """What a command left: the root, which it is itself, and the mounts that could be written."""

    mounts: tuple[tuple[str, Output], ...] = ()

    def mount(self, target: str) -> State:
        """Return what the command left in the mount on ``target``.

        Raises:
            UsageError: there was none that could be written.
        """
        output = dict(self.mounts).get(target)
        if output is None:
            raise UsageError(f"nothing that could be written was mounted on {target}")
        return State(output, platform=self.platform)


def _words(command: object) -> list[str]:
    """Return the words of a command, those of a shell for one that is a text."""
    if isinstance(command, str):
        return [*_SHELL, command]
    if isinstance(command, bytes) or not isinstance(command, Iterable):
        raise UsageError(f"a command is a text or a list of words, not an object of type {type(command).__name__}")
    words = list(command)
    for word in words:
        check_texts(command=word)
    return words


def _placed(mounts: Iterable[Mount]) -> tuple[list[Mount], str]:
    """Return the mounts with their places, the root first, and the socket of the first agent."""
    placed: list[Mount] = []
    socket, agents = "", 0
    for mount in mounts:
        if mount.message.mountType == ops_pb2.SSH:
            if not mount.message.dest:
                message = ops_pb2.Mount()
                message.CopyFrom(mount.message)
                message.dest = _AGENT_SOCKET.format(agents)
                mount = mount._replace(message=message)
            socket = socket or mount.message.dest
            agents += 1
        placed.append(mount)
    places = [mount.message.dest for mount in placed]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise UsageError(f"two mounts are on {twice}")
    return sorted(placed, key=lambda mount: mount.message.dest), socket


def _connect(op: ops_pb2.ExecOp, mounts: Sequence[Mount]) -> tuple[list[Output], dict[str, int]]:
    """Add mounts to a command; return its inputs, and the numbers of its results by their places."""
    inputs: list[Output] = []
    outputs: dict[str, int] = {}
    for mount in mounts:
        message = op.mounts.add()
        message.CopyFrom(mount.message)
        message.input = EMPTY
        if mount.source is not None:
            if mount.source not in inputs:
                inputs.append(mount.source)
            message.input = inputs.index(mount.source)
        message.output = NO_OUTPUT
        if mount.has_output:
            message.output = outputs[message.dest] = len(outputs)
    return inputs, outputs


def scratch() -> State:
    """Start from an empty file system."""
    return State()


def merge(*states: State, name: str = "") -> State:
    """Lay file systems over each other, the last on top, without copying a file.

    Raises:
        UsageError: fewer than two are left when empty ones are taken out, or something is no state.
    """
    _check_states("merge", states)
    outputs = [state.output for state in states if state.output is not None]
    if len(outputs) < 2:
        raise UsageError("it takes two states to merge")
    op = ops_pb2.Op(merge=ops_pb2.MergeOp(inputs=[ops_pb2.MergeInput(input=at) for at in range(len(outputs))]))
    return replace(states[0], output=Output(Vertex(op, outputs, caps=("mergeop",), name=name)))


def diff(lower: State, upper: State, *, name: str = "") -> State:
    """Return what ``upper`` has changed against ``lower``; merged onto another state it is changed there too.

    Raises:
        UsageError: one of them is no state.
    """
    _check_states("diff", (lower, upper))
    inputs = [output for output in (lower.output, upper.output) if output is not None]
    lower_at = EMPTY if lower.output is None else 0
    upper_at = EMPTY if upper.output is None else len(inputs) - 1
    difference = ops_pb2.DiffOp(
        lower=ops_pb2.LowerDiffInput(input=lower_at), upper=ops_pb2.UpperDiffInput(input=upper_at)
    )
    if not inputs:
        return scratch()
    return replace(upper, output=Output(Vertex(ops_pb2.Op(diff=difference), inputs, caps=("diffop",), name=name)))


def _check_states(function: str, given: Sequence[object]) -> None:
    for one in given:
        if not isinstance(one, State):
            raise UsageError(
                f"{function} takes states, not an object of type {type(one).__name__}",
                hint="Give each as an argument of its own." if isinstance(one, list | tuple) else None,
            )

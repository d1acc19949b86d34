"""Addresses that are neither a socket nor a port nor ssh: containers, pods, commands and Windows' named pipes.

=====================================================  =================================================================
``docker-container://NAME``                            the buildkitd in a container of a Docker engine, which is asked
                                                       itself: no docker binary. ``?context=`` or ``?host=`` names the
                                                       engine; ``?boot=1`` has the container made and started (``boot``)
``podman-container://NAME``                            the same by ``podman exec -i``
``nerdctl-container://NAME``                           by ``nerdctl exec -i``; ``?namespace=``
``kube-pod://[CONTEXT/]POD``                           by ``kubectl exec -i``; ``?context=``, ``?namespace=``,
                                                       ``?container=``
``command:PROGRAM [ARGUMENT...]``                      whatever the program's stdin and stdout lead to; quoted as for a
                                                       shell, and no shell is run
``npipe:////./pipe/NAME``                              a named pipe of Windows
=====================================================  =================================================================

What stands in containers and pods is a buildkitd; ``buildctl dial-stdio`` there copies between its stdin and stdout and
buildkitd's socket. ``?addr=`` tells it which socket. What is behind a command or a pipe, the user knows.

Source: moby/buildkit client/connhelper, docker/buildx driver/docker-container.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import parse_qsl, unquote

from mobysession.errors import EndpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import trio

    from mobysession.transport.endpoint import Endpoint

__all__ = ["CommandAddress", "ContainerAddress", "PipeAddress", "RemoteAddress", "parse_remote"]

_CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_POD_NAME = re.compile(r"[a-z0-9][-a-z0-9.]*")
_PIPE = re.compile(r"//[^/]+/pipe/.+")
_PROGRAMS = {"podman-container": "podman", "nerdctl-container": "nerdctl", "kube-pod": "kubectl"}


class RemoteAddress:
    """An address that knows itself how to get there.

    Attributes:
        daemon: what is there, whatever the endpoint says; None: what the endpoint says.
    """

    daemon: ClassVar[Literal["docker", "buildkitd"] | None] = None

    @property
    def host_header(self) -> str:
        """A dummy, as docker's own client sends it to what is behind a command."""
        return "docker.example.com"

    async def dial(self, endpoint: Endpoint) -> trio.abc.Stream:
        """Open a stream, which the caller owns; raises and is cancelled as `mobysession.transport.dial.dial` is."""
        raise AssertionError(f"the address of {endpoint} cannot be dialled")


@dataclass(frozen=True)
class CommandAddress(RemoteAddress):
    """What the stdin and stdout of a program lead to. ``hint``: what a user can do when it fails."""

    argv: tuple[str, ...]
    hint: str | None = None

    async def dial(self, endpoint: Endpoint) -> trio.abc.Stream:
        """Start the program; whether it gets through, the first read tells."""
        from mobysession.transport.command import open_command

        return await open_command(self.argv, name=str(endpoint), hint=self.hint)


@dataclass(frozen=True)
class ProgramAddress(CommandAddress):
    """A buildkitd in a container or a pod, which a program of the user's reaches."""

    daemon: ClassVar[Literal["docker", "buildkitd"] | None] = "buildkitd"


@dataclass(frozen=True)
class ContainerAddress(RemoteAddress):
    """A buildkitd in a container of a Docker engine.

    Attributes:
        name: of the container.
        engine: host string of the engine; None: the one that the environment, or ``context``, names.
        context: a docker context that names the engine.
        argv: what to run in the container.
        boot: how to make the container where it is not there, by option; None: it must be there and run.
    """

    name: str
    engine: str | None = None
    context: str | None = None
    argv: tuple[str, ...] = ("buildctl", "dial-stdio")
    boot: Mapping[str, str] | None = field(default=None, hash=False, repr=False)
    daemon: ClassVar[Literal["docker", "buildkitd"] | None] = "buildkitd"

    async def dial(self, endpoint: Endpoint) -> trio.abc.Stream:
        """Run ``buildctl dial-stdio`` in the container, which is made and started before where that was asked for."""
        from mobysession.transport.container import dial_container

        return await dial_container(self, name=str(endpoint))


@dataclass(frozen=True)
class PipeAddress(RemoteAddress):
    """A named pipe of Windows; ``path`` as Windows writes it."""

    path: str

    @property
    def host_header(self) -> str:
        """A dummy, as docker's own client sends it for what is local."""
        return "api.moby.localhost"

    async def dial(self, endpoint: Endpoint) -> trio.abc.Stream:
        """Open the pipe."""
        from mobysession.transport.pipe import dial_pipe

        return await dial_pipe(self.path, name=str(endpoint))


def parse_remote(url: str) -> RemoteAddress:
    """Take an address of one of these schemes apart.

    Raises:
        EndpointError: it is malformed; the user must change it.
    """
    scheme, _, rest = url.partition("://")
    if url.startswith("command:"):
        return _command(url)
    if scheme == "npipe":
        return _pipe(url, rest)
    place, _, query = rest.partition("?")
    options = _options(url, query)
    if scheme == "docker-container":
        return _container(url, place, options)
    argv = _pod(url, place, options) if scheme == "kube-pod" else _other_container(url, scheme, place, options)
    reached = (*argv, *_buildctl(options), "dial-stdio")
    _refuse_unknown(url, options)
    return ProgramAddress(reached, f"Try: {shlex.join((*argv, 'buildctl', 'debug', 'workers'))}")


def _command(url: str) -> CommandAddress:
    try:
        argv = shlex.split(url.removeprefix("command:"))
    except ValueError as error:
        raise EndpointError(
            f"the command in {url!r} cannot be taken apart: {error}", hint="Quote its words as for a shell."
        ) from None
    if not argv:
        raise EndpointError(f"{url!r} names no command", hint="Write command:PROGRAM ARGUMENT ...")
    return CommandAddress(tuple(argv), f"Try it by hand: {shlex.join(argv)}")


def _pipe(url: str, rest: str) -> PipeAddress:
    if not _PIPE.fullmatch(rest.replace("\\", "/")):
        raise EndpointError(f"{url!r} names no pipe", hint="Write npipe:////./pipe/docker_engine")
    return PipeAddress(rest.replace("/", "\\"))


def _options(url: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if query and not options:
        raise EndpointError(f"the options in {url!r} cannot be read", hint="Write ?NAME=VALUE&NAME=VALUE")
    return options


def _refuse_unknown(url: str, options: Mapping[str, str]) -> None:
    """Complain about options that nobody has taken out."""
    if options:
        raise EndpointError(
            f"{url.partition('?')[0]} has no option {next(iter(options))!r}",
            hint="docs/attaching.md lists the options of each kind of address.",
        )


def _named(url: str, place: str, pattern: re.Pattern[str], what: str) -> str:
    name = unquote(place.rstrip("/"))
    if not pattern.fullmatch(name):
        raise EndpointError(f"{url!r} names no {what}", hint=f"Write {url.partition('://')[0]}://NAME")
    return name


def _buildctl(options: dict[str, str]) -> list[str]:
    addr = options.pop("addr", "")
    return ["buildctl", *(["--addr", addr] if addr else [])]


def _container(url: str, place: str, options: dict[str, str]) -> ContainerAddress:
    name = _named(url, place, _CONTAINER_NAME, "container")
    engine, context = options.pop("host", None), options.pop("context", None)
    if engine and context:
        raise EndpointError(f"{url!r} has a host and a context; either names the engine")
    argv = (*_buildctl(options), "dial-stdio")
    boot: dict[str, str] | None = None
    if options.pop("boot", "0").lower() not in ("0", "false"):
        from mobysession.transport.boot import BOOT_OPTIONS

        boot = {key: options.pop(key) for key in list(options) if key in BOOT_OPTIONS or key.startswith("env.")}
    _refuse_unknown(url, options)
    return ContainerAddress(name, engine or None, context or None, argv, boot)


def _other_container(url: str, scheme: str, place: str, options: dict[str, str]) -> list[str]:
    name = _named(url, place, _CONTAINER_NAME, "container")
    space = options.pop("namespace", "") if scheme == "nerdctl-container" else ""
    return [_PROGRAMS[scheme], *(["--namespace", space] if space else []), "exec", "-i", name]


def _pod(url: str, place: str, options: dict[str, str]) -> list[str]:
    # The names of some contexts have slashes themselves.
    before, _, pod = place.rstrip("/").rpartition("/")
    context, space = options.pop("context", "") or unquote(before), options.pop("namespace", "")
    container = options.pop("container", "")
    name = _named(url, pod, _POD_NAME, "pod")
    return [
        _PROGRAMS["kube-pod"],
        *([f"--context={context}"] if context else []),
        *([f"--namespace={space}"] if space else []),
        "exec",
        *([f"--container={container}"] if container else []),
        *("-i", name, "--"),
    ]

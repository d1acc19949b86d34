"""Where a daemon is, and who said so.

The order is the docker CLI's (docker/cli cli/command/cli.go): a host given explicitly; ``DOCKER_HOST``; the context
that ``DOCKER_CONTEXT`` names; the one that ``currentContext`` of ``config.json`` names; the default socket. Only where
the default socket does not exist, and nothing else was asked for, the one of a rootless daemon is taken instead.

=========================================  ============================================================================
``unix:///path``                           the path is taken as it is written, with spaces and percent signs
``tcp://host[:port][/prefix]``             port 2375, also with TLS; the prefix is put before the paths of requests
``http://...``, ``https://...``            the same with port 80; with TLS and port 443
``ssh://[user@]host[:port][/socket]``      the daemon on that host, through the ``ssh`` binary and the docker CLI there,
                                           or where that is missing through a forwarded socket
``host:port``                              ``tcp://host:port``
``docker-container://NAME`` and others     containers, pods, commands, named pipes: `mobysession.transport.remote`
=========================================  ============================================================================

For addresses of tcp, ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` count as with the docker CLI, and
``DOCKER_API_VERSION`` pins the version of the API that is spoken: what the engine has beyond it is not used.

A buildkitd is no Docker daemon: it is named by ``BUILDKIT_HOST``, speaks gRPC only, and is found with `buildkitd`.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mobysession import dockerconfig, limits
from mobysession.errors import EndpointError, UsageError
from mobysession.transport.address import DEFAULT_SOCKET, SSHAddress, TCPAddress, UnixAddress, parse_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobysession.transport.address import Address
    from mobysession.transport.tls import TLSConfig

__all__ = ["Endpoint"]

_DEFAULT_TLS_URL = "tcp://localhost:2376"
_DEFAULT_BUILDKITD = "unix:///run/buildkit/buildkitd.sock"
_DEFAULT_CONTEXT = "default"
_PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")
_logger = logging.getLogger("mobysession.transport")


@dataclass(frozen=True)
class Endpoint:
    """A daemon's address and what is needed to speak to it.

    Attributes:
        url: the address as it was written.
        source: who named it: ``--host``, ``DOCKER_HOST``, ``context "x"``, ``default socket`` ...
        tls: how to speak TLS; None: in plain text. Only addresses of tcp have it.
        headers: header lines for every request, from ``HttpHeaders`` of config.json; metadata where gRPC is spoken at
            once.
        daemon: ``docker`` for an engine, ``buildkitd`` for a BuildKit on its own.
        proxy: an HTTP proxy to go through, ``http://[user:password@]host:port``; only addresses of tcp have it.
        api_version: the Engine API to speak, such as ``1.41``; None: the engine's newest.
        is_default: nothing named it, not even the context ``default``: it is what the docker CLI takes by itself.
        address: ``url``, taken apart.
    """

    url: str
    source: str = "--host"
    tls: TLSConfig | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    daemon: Literal["docker", "buildkitd"] = "docker"
    proxy: str | None = field(default=None, repr=False)
    api_version: str | None = None
    is_default: bool = field(default=False, repr=False, compare=False)
    address: Address = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        address = parse_address(self.url)
        object.__setattr__(self, "address", address)
        if not isinstance(address, UnixAddress | TCPAddress | SSHAddress) and address.daemon is not None:
            object.__setattr__(self, "daemon", address.daemon)
        if self.api_version is not None:
            object.__setattr__(self, "api_version", _checked_version(self.api_version))
        if not isinstance(address, TCPAddress):
            object.__setattr__(self, "tls", None)  # DOCKER_TLS_VERIFY does not concern sockets and ssh
            object.__setattr__(self, "proxy", None)
        elif address.scheme == "https" and self.tls is None:
            from mobysession.transport.tls import TLSConfig  # only for who uses TLS: start-up

            object.__setattr__(self, "tls", TLSConfig())

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        tls: TLSConfig | None = None,
        source: str = "--host",
        headers: tuple[tuple[str, str], ...] = (),
        proxy: str | None = None,
        api_version: str | None = None,
    ) -> Endpoint:
        """Take a host string as it is given to ``--host``; of the environment nothing counts here.

        Raises:
            EndpointError: it is malformed or of an unknown scheme; the user must change it.
        """
        return cls(url, source, tls, headers, proxy=proxy, api_version=api_version)

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        config_dir: str | os.PathLike[str] | None = None,
        host: str | None = None,
        context: str | None = None,
    ) -> Endpoint:
        """Find the daemon that the docker CLI would find; blocking, as it reads files.

        Args:
            environ: the variables; None: the process's own.
            config_dir: directory of config.json and of the contexts; None: what DOCKER_CONFIG says.
            host: what ``--host`` was given.
            context: what ``--context`` was given.

        Raises:
            EndpointError: what was found is malformed, unknown or unreadable; the user must change it. Where a host is
                given, or DOCKER_HOST is set, a config.json that cannot be read costs its HttpHeaders, and a warning.
            UsageError: both a host and a context are given.
        """
        environ = os.environ if environ is None else environ
        if host and context:
            raise UsageError("a host and a context are given; either names a daemon", hint="Leave one of them out.")
        return _in_environment(cls._find(environ, config_dir, host, context), environ)

    @staticmethod
    def _find(
        environ: Mapping[str, str],
        config_dir: str | os.PathLike[str] | None,
        host: str | None,
        context: str | None,
    ) -> Endpoint:
        variable = environ.get("DOCKER_HOST")
        if host:
            return _explicit(environ, host, "--host", config_dir)
        if variable and context in (None, "", _DEFAULT_CONTEXT):
            return _explicit(environ, variable, "DOCKER_HOST", config_dir)
        config = dockerconfig.load(config_dir, environ=environ)
        for name, origin in (
            (context, "--context"),
            (environ.get("DOCKER_CONTEXT"), "DOCKER_CONTEXT"),
            (config.current_context, f"currentContext of {config.path}"),
        ):
            if name == _DEFAULT_CONTEXT:
                return _default(environ, config)
            if name:
                return _from_context(name, config, f'context "{name}", from {origin}')
        return replace(_default(environ, config), is_default=True)

    @classmethod
    def from_context(
        cls,
        name: str,
        *,
        config_dir: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Endpoint:
        """Read a docker context; blocking. ``default`` stands for the environment, or else the default socket.

        Raises:
            EndpointError: there is none of this name, or it cannot be used; the user must choose another.
        """
        if name == _DEFAULT_CONTEXT:
            return cls.from_env(environ, config_dir=config_dir, context=name)
        environ = os.environ if environ is None else environ
        config = dockerconfig.load(config_dir, environ=environ)
        return _in_environment(_from_context(name, config, f'context "{name}"'), environ)

    @classmethod
    def buildkitd(
        cls,
        url: str | None = None,
        *,
        tls: TLSConfig | None = None,
        source: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Endpoint:
        """Return the endpoint of a buildkitd.

        Args:
            url: its address: ``unix://``, ``tcp://``, ``ssh://``, where ``buildctl`` is the command on the other host,
                or one of `mobysession.transport.remote`; None: what BUILDKIT_HOST says, or else buildkitd's own default
                socket.
            tls: how to speak TLS; only addresses of tcp have it.
            source: who named it.
            environ: the variables; None: the process's own.

        Raises:
            EndpointError: it is malformed or of an unknown scheme; the user must change it.
        """
        if url is not None:
            return cls(url, source or "--host", tls, daemon="buildkitd")
        named = (os.environ if environ is None else environ).get("BUILDKIT_HOST")
        return cls(
            named or _DEFAULT_BUILDKITD,
            source or ("BUILDKIT_HOST" if named else "default buildkitd socket"),
            tls,
            daemon="buildkitd",
        )

    @property
    def is_buildkitd(self) -> bool:
        """True where a BuildKit on its own is, and no Docker daemon around it."""
        return self.daemon == "buildkitd"

    def as_buildkitd(self) -> Endpoint:
        """Return the same address, for a buildkitd."""
        return self if self.is_buildkitd else replace(self, daemon="buildkitd")

    @property
    def host(self) -> str:
        """The value for the Host line of HTTP/1.1 requests."""
        return self.address.host_header

    def target(self, path: str) -> str:
        """Return the request target for a path of the API, behind the prefix of the address and the pinned version."""
        if self.api_version is not None and not path.startswith("/_ping"):  # which tells of versions, and has none
            path = f"/v{self.api_version}{path}"
        return self.address.prefix + path if isinstance(self.address, TCPAddress) else path

    @property
    def pinned_api(self) -> tuple[int, int] | None:
        """The version that is spoken, as numbers to compare; None: the engine's newest."""
        if self.api_version is None:
            return None
        major, _, minor = self.api_version.partition(".")
        return int(major), int(minor)

    def answer_timeout(self, seconds: float) -> float:
        """Return how long a first answer may take where ``seconds`` are meant: ssh and the like connect only then."""
        return seconds if isinstance(self.address, UnixAddress | TCPAddress) else seconds + limits.CONNECT_TIMEOUT

    def __str__(self) -> str:
        return f"{self.url} ({self.source})"


def _in_environment(endpoint: Endpoint, environ: Mapping[str, str]) -> Endpoint:
    """Return the endpoint with what the environment says of the way to it."""
    version = environ.get("DOCKER_API_VERSION") or None
    proxy = None
    if isinstance(endpoint.address, TCPAddress) and any(map(environ.get, _PROXIES)):
        from mobysession.transport.proxy import proxy_of  # only for who has one: start-up

        proxy = proxy_of(endpoint.address, tls=endpoint.tls is not None, environ=environ)
    return replace(endpoint, proxy=proxy, api_version=version) if proxy or version else endpoint


def _checked_version(text: str) -> str:
    """Return a version of the API without the letter that some write before it."""
    version = text.strip().removeprefix("v")
    major, _, minor = version.partition(".")
    if not all(part.isascii() and part.isdecimal() for part in (major, minor)):
        raise EndpointError(f"{text!r} is not a version of the Engine API", hint="DOCKER_API_VERSION is like 1.41.")
    return version


def _from_context(name: str, config: dockerconfig.DockerConfig, source: str) -> Endpoint:
    from mobysession.transport.contexts import load_context  # only for who uses contexts: start-up

    context = load_context(name, config.path.parent)
    return Endpoint(context.host, source, context.tls, config.http_headers)


def _explicit(environ: Mapping[str, str], url: str, source: str, config_dir: str | os.PathLike[str] | None) -> Endpoint:
    try:
        config = dockerconfig.load(config_dir, environ=environ)
    except EndpointError as error:
        headers = dockerconfig.custom_headers(environ)  # what is wrong with these is wrong
        directory = Path(config_dir) if config_dir is not None else dockerconfig.config_dir(environ)
        config = dockerconfig.DockerConfig(path=directory / "config.json", http_headers=headers)
        _logger.warning("%s; going on without it, as %s names the daemon", error.message, source)
    # Files that only a port would need are not looked for, and not missed, for a socket.
    wanted = isinstance(parse_address(url), TCPAddress)
    tls = _tls(environ, config) if wanted else None
    return Endpoint(url, source, tls, config.http_headers)


def _tls(environ: Mapping[str, str], config: dockerconfig.DockerConfig) -> TLSConfig | None:
    if not environ.get("DOCKER_TLS_VERIFY") and not environ.get("DOCKER_TLS"):
        return None
    from mobysession.transport.tls import TLSConfig  # as above

    return TLSConfig.from_env(environ, config_dir=config.path.parent)


def _default(environ: Mapping[str, str], config: dockerconfig.DockerConfig) -> Endpoint:
    headers = config.http_headers
    tls = _tls(environ, config)
    if tls is not None:
        return Endpoint(_DEFAULT_TLS_URL, "default address with TLS", tls, headers)
    runtime_dir = environ.get("XDG_RUNTIME_DIR")
    rootless = Path(runtime_dir, "docker.sock") if runtime_dir else None
    if rootless is not None and not Path(DEFAULT_SOCKET).exists() and rootless.exists():
        source = f"rootless socket, as {DEFAULT_SOCKET} does not exist"
        _logger.info("using the %s: %s", source, rootless)
        return Endpoint(f"unix://{rootless}", source, None, headers)
    return Endpoint(f"unix://{DEFAULT_SOCKET}", "default socket", None, headers)

"""What is done before an engine is asked: look at the disk, choose services, refuse what the engine would ignore."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from mobysession import dockerconfig
from mobysession.build.outputs import check_outputs
from mobysession.errors import EndpointError, UnsupportedByEngine
from mobysession.identity import shared_key
from mobysession.redaction import Redactor
from mobysession.services.auth import Auth
from mobysession.services.filesync import FileSync
from mobysession.transport.api import EngineApi

if TYPE_CHECKING:
    from pathlib import Path

    from mobysession.build.options import BuildOptions
    from mobysession.rpc.registrar import Attachable
    from mobysession.transport.endpoint import Endpoint

__all__ = ["Prepared", "prepare", "refuse_unsupported"]

_log = logging.getLogger("mobysession.build")

#: The Engine API version since which the frontend knows shm-size and ulimits (Docker 23); older ones ignore them
#: silently.
_RESOURCES_SINCE = (1, 42)


class Prepared(NamedTuple):
    """A build that may be asked for: its options, the session's name and key, the Dockerfile, what is hosted.

    Attributes:
        options: as given, and the proxies of docker's configuration among the build arguments.
        redactor: knows every secret that a service has given away.
    """

    options: BuildOptions
    name: str
    shared_key: str
    dockerfile: Path
    files: FileSync
    services: tuple[Attachable, ...]
    redactor: Redactor


def prepare(options: BuildOptions, url: str) -> Prepared:
    """Check everything that the disk can tell; blocking.

    Args:
        options: what to build.
        url: the daemon's address as it was written, which docker's configuration may have proxies for.

    Raises:
        ProviderError: the context, the Dockerfile, a secret or an output file cannot be used.
    """
    context, directory, dockerfile = options.directories()
    files = FileSync({"context": context, "dockerfile": directory})
    files.check()
    redactor = Redactor()
    services: list[Attachable] = [files, Auth(options.credentials, redactor=redactor)]
    if options.secrets:
        from mobysession.services.secrets import Secrets

        secrets = Secrets(options.secrets, redactor=redactor)
        secrets.check()
        services.append(secrets)
    check_outputs(options)
    return Prepared(
        _with_proxies(options, url),
        context.resolve().name,
        shared_key(context),
        directory / dockerfile,
        files,
        (*services, *options.services),
        redactor,
    )


def _with_proxies(options: BuildOptions, url: str) -> BuildOptions:
    """Add the build arguments for the proxies in docker's configuration that are not given already."""
    try:
        arguments = dockerconfig.load().proxy_arguments(url)
    except EndpointError as error:
        _log.warning("%s; building without its proxies", error.message)
        return options
    return replace(options, build_args={**arguments, **options.build_args}) if arguments else options


async def refuse_unsupported(endpoint: Endpoint, options: BuildOptions) -> None:
    """Ask the engine's version where an option would be ignored by an old one; UnsupportedByEngine where it is."""
    wanted = [name for name, given in (("shm_size", options.shm_size), ("ulimits", options.ulimits)) if given]
    if not wanted:
        return
    ping = await EngineApi(endpoint).ping()
    if ping.api < _RESOURCES_SINCE:
        raise UnsupportedByEngine(
            f"{' and '.join(wanted)} would be ignored by this engine (API {ping.api_version})",
            hint="Docker 23 and later have it.",
        )

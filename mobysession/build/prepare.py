"""What is done before an engine is asked: look at the disk, choose services, refuse what the engine would ignore."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mobysession.build.outputs import check_outputs
from mobysession.errors import UnsupportedByEngine
from mobysession.identity import shared_key
from mobysession.services.auth import Auth
from mobysession.services.filesync import FileSync
from mobysession.transport.api import EngineApi

if TYPE_CHECKING:
    from pathlib import Path

    from mobysession.build.options import BuildOptions
    from mobysession.rpc.registrar import Attachable
    from mobysession.transport.endpoint import Endpoint

__all__ = ["Prepared", "prepare", "refuse_unsupported"]

#: The Engine API version since which the frontend knows shm-size and ulimits (Docker 23); older ones ignore them
#: silently.
_RESOURCES_SINCE = (1, 42)


class Prepared(NamedTuple):
    """A build that may be asked for: the session's name and key, the Dockerfile, what is hosted."""

    name: str
    shared_key: str
    dockerfile: Path
    files: FileSync
    services: tuple[Attachable, ...]


def prepare(options: BuildOptions) -> Prepared:
    """Check everything that the disk can tell; blocking.

    Raises:
        ProviderError: the context, the Dockerfile, a secret or an output file cannot be used.
    """
    context, directory, dockerfile = options.directories()
    files = FileSync({"context": context, "dockerfile": directory})
    files.check()
    services: list[Attachable] = [files, Auth(options.credentials)]
    if options.secrets:
        from mobysession.services.secrets import Secrets

        secrets = Secrets(options.secrets)
        secrets.check()
        services.append(secrets)
    check_outputs(options)
    return Prepared(
        context.resolve().name, shared_key(context), directory / dockerfile, files, (*services, *options.services)
    )


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

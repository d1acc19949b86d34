"""What is done before an engine is asked: look at the disk, choose services, refuse what the engine would ignore."""

from __future__ import annotations

import logging
import os
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
    from collections.abc import Mapping
    from pathlib import Path

    from mobysession.build.cache_stores import LocalStores
    from mobysession.build.contexts import Contexts, SourceFile
    from mobysession.build.leaks import LeakWatch
    from mobysession.build.options import BuildOptions
    from mobysession.filesync.sources import SourceLike
    from mobysession.rpc.registrar import Attachable
    from mobysession.services.filesend import FileSend
    from mobysession.transport.endpoint import Endpoint

__all__ = ["Prepared", "prepare", "refuse_unsupported"]

_log = logging.getLogger("mobysession.build")

#: The Engine API version since which the frontend knows shm-size, ulimits and named contexts (Docker 23); older ones
#: ignore them silently.
_RESOURCES_SINCE = (1, 42)


class Prepared(NamedTuple):
    """A build that may be asked for: its options, the session's name and key, the Dockerfile, what is hosted.

    Attributes:
        options: as given, and the proxies of docker's configuration among the build arguments.
        redactor: knows every secret that a service has given away.
        outputs: takes what the engine sends; None where it sends nothing.
        stores: the OCI layouts that it reads and writes; None where there can be none.
        leaks: looks for secrets where they do not belong; None where there are no secrets.
    """

    options: BuildOptions
    name: str
    shared_key: str
    dockerfile: Path | SourceFile
    files: FileSync
    services: tuple[Attachable, ...]
    redactor: Redactor
    outputs: FileSend | None = None
    stores: LocalStores | None = None
    leaks: LeakWatch | None = None


def prepare(options: BuildOptions, url: str) -> Prepared:
    """Check everything that the disk can tell; blocking.

    Args:
        options: what to build.
        url: the daemon's address as it was written, which docker's configuration may have proxies for.

    Raises:
        ProviderError: the context, the Dockerfile, a secret, an SSH agent or an output file cannot be used.
        OutputError: an output cannot be written.
    """
    upload: Attachable | None = None
    if "-" in (options.context, options.file):
        from mobysession.build.standard_input import dockerfile_from_stdin, upload_stdin

        contexts: _Directories | Contexts
        if options.context == "-":
            options, contexts, upload = upload_stdin(options)
        else:
            contexts = dockerfile_from_stdin(options)
    else:
        contexts = _contexts(options)
    files = FileSync(contexts.sources, strict=options.strict)
    files.check()
    redactor = Redactor()
    leaks: LeakWatch | None = None
    services: list[Attachable] = [files, Auth(options.credentials, redactor=redactor)]
    if options.secrets:
        from mobysession.build.leaks import LeakWatch as Watch
        from mobysession.services.secrets import Secrets

        leaks = Watch(options.arguments(), options.labels)
        secrets = Secrets(options.secrets, redactor=redactor, build=contexts.name, on_value=leaks.look)
        secrets.check()
        secrets.watch_known()
        services.append(secrets)
    if options.ssh:
        from mobysession.services.ssh import Ssh, ssh_agents

        agents = Ssh(ssh_agents(options.ssh))
        agents.check()
        services.append(agents)
    stores: LocalStores | None = None
    if options.cache_from or options.cache_to or options.build_contexts:
        from mobysession.build.cache_stores import open_stores

        stores = open_stores(options, redactor)
        options = stores.options
        if stores.stores:
            from mobysession.services.content import Content

            services.append(Content(stores.stores))
    check_outputs(options)
    if upload is not None:
        services.append(upload)
    outputs = _receive_outputs(options)
    if options.services:
        from mobysession.build.callbacks import receive_found

        outputs = receive_found(options, outputs)
    if outputs is not None:
        services.append(outputs)
    return Prepared(
        _with_proxies(options, url),
        contexts.name,
        contexts.shared_key,
        contexts.dockerfile,
        files,
        (*services, *options.services),
        redactor,
        outputs,
        stores,
        leaks,
    )


class _Directories(NamedTuple):
    """As `mobysession.build.contexts.Contexts`, which a build of a directory need not load: start-up."""

    sources: Mapping[str, SourceLike]
    name: str
    shared_key: str
    dockerfile: Path | SourceFile


def _contexts(options: BuildOptions) -> _Directories | Contexts:
    if options.build_contexts or not isinstance(options.context, (str, os.PathLike)):
        from mobysession.build.contexts import contexts_of

        return contexts_of(options)
    context, directory, dockerfile = options.directories()
    sources = {"context": context, "dockerfile": directory}
    return _Directories(sources, context.resolve().name, shared_key(context), directory / dockerfile)


def _receive_outputs(options: BuildOptions) -> FileSend | None:
    """Check the outputs; return the service that takes those which the engine sends."""
    if not options.outputs:
        return None
    from mobysession.build.exports import check_destinations, targets_of
    from mobysession.services.filesend import FileSend

    outputs = options.exports()
    check_destinations(outputs, tags=options.tags, platforms=options.platforms)
    targets = targets_of(outputs)
    return FileSend(targets) if targets else None


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
    if endpoint.is_buildkitd:
        # It has no Engine API to be asked by; all of these are older than the BuildKits that are around on their own.
        if options.driver == "classic":
            raise UnsupportedByEngine("a buildkitd has no POST /build", hint="Use driver='auto' (--driver auto).")
        return
    if options.outputs:
        from mobysession.build.exports import refuse_impossible

        await refuse_impossible(endpoint, options.exports())
    if options.cache_from or options.cache_to:
        from mobysession.build.cache import refuse_impossible as refuse_caches

        await refuse_caches(endpoint, options)
    if options.build_contexts:
        from mobysession.build.layouts import refuse_layouts

        await refuse_layouts(endpoint, options.build_contexts)
    ignored = {"shm_size": options.shm_size, "ulimits": options.ulimits, "build_contexts": options.build_contexts}
    wanted = [name for name, given in ignored.items() if given]
    if not wanted:
        return
    ping = await EngineApi(endpoint).ping()
    if ping.api < _RESOURCES_SINCE:
        raise UnsupportedByEngine(
            f"{' and '.join(wanted)} would be ignored by this engine (API {ping.api_version})",
            hint="Docker 23 and later have it.",
        )

"""What is done before an engine is asked: look at the disk, choose services, refuse what the engine would ignore."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from mobysession import dockerconfig
from mobysession.build.outputs import check_outputs
from mobysession.errors import EndpointError, UnsupportedByEngine, UsageError
from mobysession.identity import shared_key
from mobysession.redaction import Redactor
from mobysession.services.auth import Auth
from mobysession.services.filesync import FileSync
from mobysession.transport.api import EngineApi

if TYPE_CHECKING:
    from collections.abc import Mapping

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
#: That since which a solve may have rules on its sources (Docker 24, BuildKit 0.11).
_POLICIES_SINCE = (1, 43)


#: Variables that add to a build.
_MEANT = frozenset(("SOURCE_DATE_EPOCH", "DOCKER_DEFAULT_PLATFORM", "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"))


class Prepared(NamedTuple):
    """A build that may be asked for: its options, the session's name and key, the Dockerfile, what is hosted.

    Attributes:
        options: as given, and the proxies of docker's configuration among the build arguments.
        redactor: knows every secret that a service has given away.
        outputs: takes what the engine sends; None where it sends nothing.
        stores: the OCI layouts that it reads and writes; None where there can be none.
        leaks: looks for secrets where they do not belong; None where there are no secrets.
        given_attrs: the attributes of the frontend that were given, without those that are found.
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
    given_attrs: Mapping[str, str] = MappingProxyType({})


def prepare(options: BuildOptions, url: str) -> Prepared:
    """Check everything that the disk can tell; blocking.

    Args:
        options: what to build.
        url: the daemon's address as it was written, which docker's configuration may have proxies for.

    Raises:
        ProviderError: the context, the Dockerfile, a secret, an SSH agent or an output file cannot be used.
        OutputError: an output cannot be written.
    """
    if _needs_more(options):
        from mobysession.build.shorthands import with_environment

        options = with_environment(options)
    given_attrs = options.frontend_attrs
    options, contexts, upload = _look(options)
    options = _with_found(options, contexts)
    files = FileSync(contexts.sources, strict=options.strict)
    files.check()
    redactor = Redactor()
    leaks: LeakWatch | None = None
    services: list[Attachable | None] = [files, Auth(options.credentials, redactor=redactor)]
    if options.secrets:
        secrets, leaks = _give_secrets(options, contexts.name, redactor)
        services.append(secrets)
    if options.ssh:
        services.append(_forward_agents(options))
    stores: LocalStores | None = None
    if options.cache_from or options.cache_to or options.build_contexts or _writes_layout(options):
        from mobysession.build.cache_stores import open_stores

        stores = open_stores(options, redactor)
        options = stores.options
        services.append(stores.service())
    check_outputs(options)
    outputs = _receive_outputs(options)
    if options.services:
        from mobysession.build.callbacks import receive_found

        outputs = receive_found(options, outputs)
    services += [upload, outputs]
    return Prepared(
        _with_proxies(options, url),
        contexts.name,
        contexts.shared_key,
        contexts.dockerfile,
        files,
        (*(service for service in services if service is not None), *options.services),
        redactor,
        outputs,
        stores,
        leaks,
        given_attrs,
    )


class _Directories(NamedTuple):
    """As `mobysession.build.contexts.Contexts`, which a build of a directory need not load: start-up."""

    sources: Mapping[str, SourceLike]
    name: str
    shared_key: str
    dockerfile: Path | SourceFile


def _look(options: BuildOptions) -> tuple[BuildOptions, _Directories | Contexts, Attachable | None]:
    """Return the options, the trees to offer, and what uploads a context from stdin."""
    if "-" not in (options.context, options.file):
        return options, _contexts(options), None
    from mobysession.build.standard_input import dockerfile_from_stdin, upload_stdin

    if options.context == "-":
        return upload_stdin(options)
    return options, dockerfile_from_stdin(options), None


def _give_secrets(options: BuildOptions, name: str, redactor: Redactor) -> tuple[Attachable, LeakWatch]:
    from mobysession.build.leaks import LeakWatch
    from mobysession.services.secrets import Secrets

    leaks = LeakWatch(options.arguments(), options.labels)
    secrets = Secrets(options.secrets, redactor=redactor, build=name, on_value=leaks.look)
    secrets.check()
    secrets.watch_known()
    return secrets, leaks


def _forward_agents(options: BuildOptions) -> Attachable:
    from mobysession.services.ssh import Ssh, ssh_agents

    agents = Ssh(ssh_agents(options.ssh))
    agents.check()
    return agents


def _contexts(options: BuildOptions) -> _Directories | Contexts:
    if options.is_graph:
        from mobysession.build.graph import graph_contexts

        return graph_contexts(options)
    if _looks_remote(options.context):
        from mobysession.build.remote import is_remote_context, remote_contexts

        if is_remote_context(options.context):
            return remote_contexts(options)
    if options.build_contexts or not isinstance(options.context, (str, os.PathLike)):
        from mobysession.build.contexts import contexts_of

        return contexts_of(options)
    context, directory, dockerfile = options.directories()
    sources = {"context": context, "dockerfile": directory}
    return _Directories(sources, context.resolve().name, shared_key(context), directory / dockerfile)


def _looks_remote(context: object) -> bool:
    """Tell apart, without loading anything, what cannot be an address."""
    return isinstance(context, str) and (":" in context or context.startswith("github.com/"))


def _needs_more(options: BuildOptions) -> bool:
    """Tell whether short options or variables have something to add; most builds need not load what does it."""
    shorthands = options.push or options.load or options.source_policy is not None
    return shorthands or not _MEANT.isdisjoint(os.environ) or "BUILDKIT_INLINE_CACHE" in options.build_args


def _with_found(options: BuildOptions, contexts: _Directories | Contexts) -> BuildOptions:
    """Add what the frontend is told of a context besides its files: its address, or what git knows of it."""
    found: dict[str, str] = {}
    if options.is_graph:
        return options
    if _looks_remote(options.context) or options.build_contexts or options.file == "-":
        from mobysession.build.remote import context_attributes, is_git_ssh, is_remote_context

        found |= context_attributes(options, local_dockerfile="dockerfile" in contexts.sources)
        if not options.ssh and is_remote_context(options.context) and is_git_ssh(str(options.context)):
            options = replace(options, ssh=("default",))
    directory = contexts.sources.get("context")
    if isinstance(options.context, (str, os.PathLike)) and directory is not None and _in_repository(options.context):
        from mobysession.build.vcs import vcs_attributes

        found |= vcs_attributes(contexts.sources, context=Path(options.context), dockerfile=contexts.dockerfile)
    return replace(options, frontend_attrs={**found, **options.frontend_attrs}) if found else options


def _in_repository(path: str | os.PathLike[str]) -> bool:
    at = os.path.realpath(path)
    while not os.path.exists(os.path.join(at, ".git")):
        above = os.path.dirname(at)
        if above == at:
            return False
        at = above
    return True


def _writes_layout(options: BuildOptions) -> bool:
    return bool(options.outputs) and any(output.is_layout for output in options.exports())


def _receive_outputs(options: BuildOptions) -> FileSend | None:
    """Check the outputs; return the service that takes those which the engine sends."""
    if not options.outputs:
        return None
    from mobysession.build.exports import check_destinations, targets_of
    from mobysession.services.filesend import FileSend

    outputs = options.exports()
    if options.iidfile is not None and all(output.type in ("local", "tar", "cacheonly") for output in outputs):
        raise UsageError("no output is an image, whose ID iidfile could have", hint="Leave iidfile out.")
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
    # In capitals only, as buildx has them: BuildKit sets both in RUN. In whichever case one is given, it counts.
    given = {name.upper() for name in options.build_args}
    added = {name: value for name, value in arguments.items() if name.isupper() and name not in given}
    return replace(options, build_args={**added, **options.build_args}) if added else options


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
    if options.is_graph:
        # What is left is for frontends.
        return
    if options.build_contexts:
        from mobysession.build.layouts import refuse_layouts

        await refuse_layouts(endpoint, options.build_contexts)
    ignored = {
        "shm_size": options.shm_bytes(),
        "ulimits": options.ulimits,
        "build_contexts": options.build_contexts,
        "cgroup_parent": options.cgroup_parent,
    }
    wanted = [name for name, given in ignored.items() if given]
    if not wanted and options.source_policy is None:
        return
    ping = await EngineApi(endpoint).ping()
    if options.source_policy is not None and ping.api < _POLICIES_SINCE:
        raise UnsupportedByEngine(
            f"source_policy would be ignored by this engine (API {ping.api_version})",
            hint="Docker 24 and later have it.",
        )
    if wanted and ping.api < _RESOURCES_SINCE:
        raise UnsupportedByEngine(
            f"{' and '.join(wanted)} would be ignored by this engine (API {ping.api_version})",
            hint="Docker 23 and later have it.",
        )

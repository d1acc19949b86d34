"""Builds without a Dockerfile: a graph of LLB in the place of the context.

The graph says itself what is done. What a frontend would be told has no place here and is refused; what concerns the
solve and its result (secrets, caches, outputs, tags) is as in any build. An image gets its configuration from
``image_config``, for there is no Dockerfile to say it. Only the result of a frontend can have one: this side plays it.

Source: moby/buildkit exporter/containerimage/exptypes/types.go for the configuration.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobysession.build.contexts import Contexts, key_of_sources, local_sources
from mobysession.errors import UnsupportedByEngine, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from mobysession._pb import control_pb2
    from mobysession.build.options import BuildOptions
    from mobysession.buildkit.control import Control
    from mobysession.buildkit.gateway import Bridge
    from mobysession.llb import Definition

__all__ = ["ask_for_graph", "graph_contexts"]

#: What only a frontend can make something of.
_OF_FRONTENDS = (
    *("file", "target", "build_args", "no_cache_filter", "pull", "add_hosts", "shm_size", "ulimits", "annotations"),
    *("attests", "provenance", "sbom", "cgroup_parent", "call", "frontend_attrs"),
)
#: The keys of a container's configuration, as docker has them, which are those of an image's too.
_CONFIG_KEYS = frozenset(
    (
        *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"),
        *("ArgsEscaped", "Healthcheck", "Shell", "OnBuild"),
    )
)


def _check(options: BuildOptions) -> None:
    for name in _OF_FRONTENDS:
        if getattr(options, name):
            raise UsageError(f"{name} is for a Dockerfile, and a graph says itself what is done", hint="Leave it out.")
    if options.network != "default":
        raise UsageError("network is for a Dockerfile", hint="Give it to the command: run(..., network=...).")
    if options.driver == "classic":
        raise UsageError("a graph can only be asked for by the Control API", hint="Use driver='auto'.")
    if len(options.platforms) > 1:
        raise UsageError("a graph is built for one platform at a time")
    if unknown := sorted(set(options.image_config or ()) - _CONFIG_KEYS):
        raise UsageError(f"image_config has no {unknown[0]!r}", hint=f"It has {', '.join(sorted(_CONFIG_KEYS))}.")


def _definition(options: BuildOptions) -> Definition:
    platform = options.built_for()[0] if options.platforms else ""
    return options.graph().definition(platform=platform)


def graph_contexts(options: BuildOptions) -> Contexts:
    """Return the trees that a graph reads, which the named contexts are.

    Raises:
        UsageError: one is missing, or options do not go together with a graph.
    """
    _check(options)
    wanted = _definition(options).locals
    sources = local_sources(options)
    for name in wanted:
        if name not in sources:
            raise UsageError(
                f"the graph reads a tree {name!r}, and none is given", hint="Give it in build_contexts, by that name."
            )
    for name in sources:
        if name not in wanted:
            raise UsageError(f"the graph does not read a tree {name!r}")
    return Contexts(dict(sources), "graph", key_of_sources(*sources.values()), Path())


async def ask_for_graph(
    control: Control, request: control_pb2.SolveRequest, options: BuildOptions
) -> Callable[..., Awaitable[control_pb2.SolveResponse]] | None:
    """Make ``request`` ask for the graph; return how it is to be asked where that is another way than usual.

    Raises:
        UnsupportedByEngine: the engine does not say for what it builds, and ``image_config`` needs to know.
    """
    request.Frontend = ""
    request.FrontendAttrs.clear()
    request.Definition.CopyFrom(_definition(options).message)
    if options.no_cache:
        for digest in request.Definition.metadata:
            request.Definition.metadata[digest].ignore_cache = True
    if options.image_config is None and not options.labels:
        return None
    platform = options.built_for()[0] if options.platforms else await _platform(control)
    return partial(_ask_with_configuration, config=json.dumps(_configuration(platform, options)).encode())


async def _ask_with_configuration(
    control: Control,
    request: control_pb2.SolveRequest,
    *,
    config: bytes,
    metadata: Sequence[tuple[str, str | bytes]] = (),
) -> control_pb2.SolveResponse:
    """Play the frontend: only its result can have a configuration."""
    from mobysession._pb import gateway_pb2
    from mobysession.buildkit.gateway import play_frontend

    inner = gateway_pb2.SolveRequest(Definition=request.Definition)
    for entry in request.Cache.Imports:
        inner.CacheImports.add(Type=entry.Type, Attrs=entry.Attrs)
    request.ClearField("Definition")

    async def solve(bridge: Bridge) -> gateway_pb2.Result:
        result = await bridge.solve(inner)
        result.metadata["containerimage.config"] = config
        return result

    return (await play_frontend(control, request, solve, metadata=metadata)).response


async def _platform(control: Control) -> str:
    platforms = [platform for worker in await control.list_workers() for platform in worker.platforms]
    if not platforms:
        raise UnsupportedByEngine("this engine does not tell for what it builds", hint="Name the platform.")
    return platforms[0]


def _configuration(platform: str, options: BuildOptions) -> Mapping[str, Any]:
    system, architecture, *variant = platform.split("/")
    config: dict[str, Any] = dict(options.image_config or {})
    if options.labels:
        config["Labels"] = {**config.get("Labels", {}), **options.labels}
    return {
        "architecture": architecture,
        "os": system,
        **({"variant": variant[0]} if variant else {}),
        "config": config,
        "rootfs": {"type": "layers"},
    }

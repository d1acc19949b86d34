"""What short options and the environment add to a build before anything is asked.

``push`` and ``load`` are outputs; some build arguments mean more than an argument; and variables that other tools of
this field know count here too: ``SOURCE_DATE_EPOCH``, ``DOCKER_DEFAULT_PLATFORM``,
``EXPERIMENTAL_BUILDKIT_SOURCE_POLICY``.

Source: docker/buildx commands/build.go (toOptions, RunBuild) and build/opt.go (toSolveOpt).
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from mobysession.build.exports import Output
from mobysession.build.fields import parse_bool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobysession.build.options import BuildOptions

__all__ = ["with_environment", "with_shorthands"]

_EPOCH: Final = "SOURCE_DATE_EPOCH"
_PLATFORM: Final = "DOCKER_DEFAULT_PLATFORM"
_POLICY: Final = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"
_INLINE_CACHE: Final = "BUILDKIT_INLINE_CACHE"


def with_shorthands(outputs: Sequence[Output], *, push: bool, load: bool) -> list[Output]:
    """Return outputs, with those that ``push`` and ``load`` stand for where there is none that they could be."""
    result = list(outputs)
    if push:
        images = [number for number, output in enumerate(result) if output.type in ("image", "registry")]
        for number in images:
            attrs = {**result[number].attrs, "push": "true"}
            result[number] = Output(result[number].type, attrs=attrs)
        if not images:
            result.append(Output("registry"))
    if load and not any(output.type == "docker" and output.dest is None for output in result):
        result.append(Output("docker"))
    return result


def with_environment(options: BuildOptions) -> BuildOptions:
    """Return the options with outputs in place of shorthands, and with what variables and arguments add; blocking.

    Raises:
        UsageError, ContextError: the source policy is none, or cannot be read.
    """
    added: dict[str, Any] = {}
    if options.push or options.load:
        added |= {"outputs": options.exports(), "push": False, "load": False}
    if _EPOCH not in options.build_args and (epoch := os.environ.get(_EPOCH)):
        added["build_args"] = {**options.build_args, _EPOCH: epoch}
    if not options.platforms and (platform := os.environ.get(_PLATFORM)):
        added["platforms"] = [one.strip() for one in platform.split(",")]
    if parse_bool(options.build_args.get(_INLINE_CACHE) or "") and options.driver != "classic":
        # POST /build has this of its own accord.
        added["cache_to"] = [*options.cache_to, "type=inline"]
    if options.source_policy is not None or _POLICY in os.environ:
        from mobysession.build.source_policy import read_source_policy  # only for who has one: start-up

        added["source_policy"] = read_source_policy(options)
    return replace(options, **added) if added else options

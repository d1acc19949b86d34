"""``mobysession build``: the options of ``docker buildx build``, by their names."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from mobysession.cli.app import run_async
from mobysession.cli.parser import offer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser
    from mobysession.services.secrets import SecretSource

__all__ = ["SYNOPSIS", "add_options", "run"]


SYNOPSIS = " PATH"
_OUTPUTS = tuple(f"type={kind}" for kind in ("local", "tar", "oci", "docker", "image", "registry", "cacheonly"))


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    add = parser.add_argument
    several: dict[str, Any] = {"action": "append", "default": []}
    add("context", metavar="PATH", help="The directory that COPY and ADD read.")
    add("-f", "--file", metavar="FILE", help="Dockerfile [default: PATH/Dockerfile]")
    add("-t", "--tag", dest="tags", **several, metavar="NAME[:TAG]", help="Name of the image.")
    add("--target", metavar="STAGE", help="Stage to build.")
    add("--build-arg", dest="build_args", **several, metavar="NAME[=VALUE]", help="Build argument.")
    add("--label", dest="labels", **several, metavar="NAME[=VALUE]", help="Label of the image.")
    add("--no-cache", action="store_true", help="Use no cache.")
    add("--no-cache-filter", **several, metavar="STAGE[,STAGE]", help="Use no cache for these stages.")
    add("--pull", action="store_true", help="Ask for newer base images.")
    add("--platform", dest="platforms", **several, metavar="OS/ARCH[,OS/ARCH]", help="Platform to build for.")
    add("--add-host", dest="add_hosts", **several, metavar="HOST:IP", help="Line for /etc/hosts.")
    network = "What RUN may reach: default, none or host [default: default]"
    offer(add("--network", default="default", metavar="MODE", help=network), "default", "none", "host")
    add("--shm-size", metavar="SIZE", help="Size of /dev/shm, as 64m.")
    add("--ulimit", dest="ulimits", **several, metavar="NAME=SOFT[:HARD]", help="Limit for RUN.")
    mount = "Secret for RUN --mount=type=secret."
    add("--secret", dest="secrets", **several, metavar="id=ID[,src=FILE|,env=NAME]", help=mount)
    result = "Where the result goes: DIR for type=local, - for a tar on stdout [default: the engine's image store]"
    output = "DIR|-|type=TYPE[,dest=PATH][,KEY=VALUE]"
    offer(add("-o", "--output", dest="outputs", **several, metavar=output, help=result), *_OUTPUTS)
    add("--iidfile", metavar="FILE", help="Write the image ID to this file.")
    add("--metadata-file", metavar="FILE", help="Write the engine's response to it, as JSON.")
    add("-q", "--quiet", action="store_true", help="Show no progress, print the image ID.")
    progress = "auto, plain, tty or quiet [env: BUILDKIT_PROGRESS; default: auto]"
    offer(add("--progress", metavar="KIND", help=progress), "auto", "plain", "tty", "quiet")
    driver = "How the engine is asked: control, classic or auto [default: auto]"
    offer(add("--driver", default="auto", metavar="KIND", help=driver), "auto", "control", "classic")


def run(target: Target, options: argparse.Namespace) -> int:
    """Build an image from the directory PATH, in the engine's BuildKit."""
    from mobysession.build.build import build_with
    from mobysession.build.options import BuildOptions

    build = BuildOptions(
        context=options.context,
        file=options.file,
        tags=options.tags,
        target=options.target,
        build_args=dict(map(_assignment, options.build_args)),
        labels={name: value or "" for name, value in map(_assignment, options.labels)},
        no_cache=options.no_cache,
        no_cache_filter=_listed(options.no_cache_filter),
        pull=options.pull,
        platforms=_listed(options.platforms),
        add_hosts=options.add_hosts,
        network=options.network,
        shm_size=options.shm_size,
        ulimits=options.ulimits,
        secrets=_secrets(options.secrets),
        outputs=options.outputs,
        iidfile=options.iidfile,
        metadata_file=options.metadata_file,
        driver=options.driver,
    )
    view = "quiet" if options.quiet else options.progress or os.environ.get("BUILDKIT_PROGRESS") or "auto"
    result = run_async(_build, build_with, build, target, view)
    if not result.image_id or any(output.is_stdout for output in build.exports()):
        return 0
    if view == "quiet":
        print(result.image_id, flush=True)
    elif not options.tags:
        print(f"image: {result.image_id}", file=sys.stderr)
    return 0


async def _build(build_with: Any, options: Any, target: Target, view: str) -> Any:
    return await build_with(options, endpoint=target.endpoint(), progress=view)


def _secrets(specs: Sequence[str]) -> dict[str, SecretSource]:
    if not specs:
        return {}
    from mobysession.services.secrets import parse_secret_spec

    return dict(parse_secret_spec(spec) for spec in specs)


def _assignment(text: str) -> tuple[str, str | None]:
    name, separator, value = text.partition("=")
    return name, value if separator else None


def _listed(texts: Sequence[str]) -> list[str]:
    return [part for text in texts for part in text.split(",") if part]

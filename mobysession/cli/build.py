"""``mobysession build``: the options of ``docker buildx build``, by their names."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from mobysession.cli.app import run_async

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mobysession.cli.app import Target
    from mobysession.services.secrets import SecretSource

__all__ = ["command"]


def _words(*words: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Complete an option's value; what else is given is judged by the build, in its own words."""
    return lambda _context, _parameter, begun: [word for word in words if word.startswith(begun)]


@click.command("build")
@click.argument("context", metavar="PATH", type=click.Path())
@click.option("-f", "--file", metavar="FILE", type=click.Path(), help="Dockerfile [default: PATH/Dockerfile]")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME[:TAG]", help="Name of the image.")
@click.option("--target", metavar="STAGE", help="Stage to build.")
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="Build argument.")
@click.option("--label", "labels", multiple=True, metavar="NAME[=VALUE]", help="Label of the image.")
@click.option("--no-cache", is_flag=True, help="Use no cache.")
@click.option("--no-cache-filter", multiple=True, metavar="STAGE[,STAGE]", help="Use no cache for these stages.")
@click.option("--pull", is_flag=True, help="Ask for newer base images.")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH[,OS/ARCH]", help="Platform to build for.")
@click.option("--add-host", "add_hosts", multiple=True, metavar="HOST:IP", help="Line for /etc/hosts.")
@click.option(
    "--network",
    default="default",
    metavar="MODE",
    shell_complete=_words("default", "none", "host"),
    help="What RUN may reach: default, none or host [default: default]",
)
@click.option("--shm-size", metavar="SIZE", help="Size of /dev/shm, as 64m.")
@click.option("--ulimit", "ulimits", multiple=True, metavar="NAME=SOFT[:HARD]", help="Limit for RUN.")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="id=ID[,src=FILE|,env=NAME]",
    help="Secret for RUN --mount=type=secret.",
)
@click.option("--iidfile", metavar="FILE", type=click.Path(), help="Write the image ID to this file.")
@click.option("--metadata-file", metavar="FILE", type=click.Path(), help="Write the engine's response to it, as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress, print the image ID.")
@click.option(
    "--progress",
    metavar="KIND",
    shell_complete=_words("auto", "plain", "tty", "quiet"),
    help="auto, plain, tty or quiet [env: BUILDKIT_PROGRESS; default: auto]",
)
@click.option(
    "--driver",
    default="auto",
    metavar="KIND",
    shell_complete=_words("auto", "control", "classic"),
    help="How the engine is asked: control, classic or auto [default: auto]",
)
@click.pass_obj
def command(daemon: Target, /, quiet: bool, progress: str | None, **given: Any) -> int:
    """Build an image from the directory PATH, in the engine's BuildKit."""
    from mobysession.build.build import build_with
    from mobysession.build.options import BuildOptions

    given["build_args"] = dict(_assignment(text) for text in given["build_args"])
    given["labels"] = {name: value or "" for name, value in map(_assignment, given["labels"])}
    given["secrets"] = _secrets(given["secrets"])
    for name in ("platforms", "no_cache_filter"):
        given[name] = [part for text in given[name] for part in text.split(",") if part]
    options = BuildOptions(**given)
    view = "quiet" if quiet else progress or os.environ.get("BUILDKIT_PROGRESS") or "auto"
    result = run_async(_build, build_with, options, daemon, view)
    if quiet or view == "quiet":
        click.echo(result.image_id)
    elif not options.tags:
        click.echo(f"image: {result.image_id}", file=sys.stderr)
    return 0


async def _build(build_with: Any, options: Any, daemon: Target, view: str) -> Any:
    return await build_with(options, endpoint=daemon.endpoint(), progress=view)


def _secrets(specs: Sequence[str]) -> dict[str, SecretSource]:
    if not specs:
        return {}
    from mobysession.services.secrets import parse_secret_spec

    return dict(parse_secret_spec(spec) for spec in specs)


def _assignment(text: str) -> tuple[str, str | None]:
    name, separator, value = text.partition("=")
    return name, value if separator else None

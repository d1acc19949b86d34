"""``mobysession context explain``: what of a directory a build would send, and why."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mobysession.cli.app import run_async
from mobysession.cli.parser import add_commands
from mobysession.cli.tables import print_json

if TYPE_CHECKING:
    import argparse

    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser
    from mobysession.filesync import Source

__all__ = ["SYNOPSIS", "add_options", "run"]

SYNOPSIS = " COMMAND [ARGS]..."


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    summary = "Say what would be sent, and which pattern leaves out what."
    add = add_commands(parser)("explain", summary, " [PATH]").add_argument
    add("path", nargs="?", default=".", metavar="PATH", help="The directory that would be built [default: .]")
    add("-f", "--file", metavar="PATH", help="The Dockerfile, whose own .dockerignore counts where it has one.")
    add("-a", "--all", action="store_true", help="Name everything, not only what a pattern decides.")
    add("--json", action="store_true", help="Print JSON.")
    against = "Build it on this engine, keep nothing, and list what the engine asked for."
    add("--against", metavar="ENGINE", help=against)


def run(target: Target, options: argparse.Namespace) -> int:
    """Explain what of a directory a build would send."""
    from mobysession.filesync import Directory
    from mobysession.filesync.explain import explain_context
    from mobysession.filesync.explain_text import as_value, render

    source: Source = Directory(options.path)
    folder, name = _dockerfile(options)
    explanation = explain_context(source, dockerfile=name, dockerfile_source=folder)
    failure = None
    if options.against:
        from mobysession.build.requested import requested_files

        explanation.requested, failure = run_async(requested_files, options.against, source, options.file)
    if options.json:
        print_json(as_value(explanation))
    else:
        _print(render(explanation, every=options.all))
    if failure is not None:
        raise failure
    return 0


def _dockerfile(options: argparse.Namespace) -> tuple[Source | None, str]:
    if options.file is None:
        return None, "Dockerfile"
    from pathlib import Path

    from mobysession.errors import ContextError
    from mobysession.filesync import Directory

    path = Path(options.file)
    if options.file != "-" and not path.is_file():
        raise ContextError(f"there is no Dockerfile {path.absolute()}")
    return Directory(path.parent), path.name


def _print(text: str) -> None:
    # Names may have bytes that no encoding has.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))

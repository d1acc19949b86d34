"""``mobysession llb dump``: a definition of LLB, read from a file or from stdin, made readable."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mobysession.cli.parser import add_commands
from mobysession.cli.tables import print_json

if TYPE_CHECKING:
    import argparse

    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser

__all__ = ["SYNOPSIS", "add_options", "run"]

SYNOPSIS = " COMMAND [ARGS]..."


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    dump = add_commands(parser)("dump", "Print a definition as JSON, or as a graph for Graphviz.", " [FILE]")
    file = "What State.definition().to_bytes() gave, or another client of BuildKit [default: stdin]"
    dump.add_argument("file", nargs="?", default="-", metavar="FILE", help=file)
    dump.add_argument("--dot", action="store_true", help="Print the language of Graphviz.")


def run(target: Target, options: argparse.Namespace) -> int:
    """Look at a build as BuildKit is asked for it."""
    from mobysession.errors import ContextError
    from mobysession.llb import Definition

    try:
        if options.file == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(options.file, "rb") as file:
                data = file.read()
    except OSError as error:
        raise ContextError(f"{options.file} cannot be read: {(error.strerror or 'failed').lower()}") from error
    definition = Definition.parse(data)
    if options.dot:
        sys.stdout.write(definition.as_dot())
    else:
        print_json(definition.as_json())
    return 0

"""``mobysession bake``: the options of ``docker buildx bake``, by their names."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from mobysession.cli.app import run_async
from mobysession.cli.build import print_answer
from mobysession.cli.parser import add_attach, add_progress, offer
from mobysession.cli.tables import print_json, print_table

if TYPE_CHECKING:
    import argparse

    from mobysession.bake.definition import Definition, Selection
    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser

__all__ = ["SYNOPSIS", "add_options", "run"]

SYNOPSIS = " [TARGET]..."
_LISTS = ("targets", "variables")


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    add = parser.add_argument
    several: dict[str, Any] = {"action": "append", "default": []}
    add("targets", nargs="*", metavar="TARGET", help="Targets, groups or patterns of them [default: default]")
    usual = "docker-bake.hcl, docker-bake.json, compose.yaml, ..."
    add("-f", "--file", dest="files", **several, metavar="FILE", help=f"Bake or compose file [default: {usual}]")
    add("--set", dest="sets", **several, metavar="TARGET.KEY=VALUE", help="Change a target; += adds to a list.")
    add("--var", dest="variables", **several, metavar="NAME=VALUE", help="Value of a variable.")
    add("--print", action="store_true", help="Print what would be built, as JSON, and build nothing.")
    offer(add("--list", metavar="WHAT", help="Print what there is: targets or variables[,format=json]"), *_LISTS)
    add("--push", action="store_true", help="Send images to their registries, as --set *.push=true.")
    add("--load", action="store_true", help="Put images into the engine's store, as --set *.load=true.")
    add("--no-cache", action="store_true", help="Use no cache.")
    add("--pull", action="store_true", help="Ask for newer base images.")
    add("--provenance", metavar="BOOL|KEY=VALUE", help="As --set *.attest=type=provenance.")
    add("--sbom", metavar="BOOL|KEY=VALUE", help="As --set *.attest=type=sbom.")
    leave = "Leave for what the files want: network.host, security.insecure, ssh, fs.read=PATH, fs.write=PATH, ..."
    add("--allow", **several, metavar="ENTITLEMENT", help=leave)
    call = "Ask for something else than a build, as --set *.call=NAME: check, outline, targets."
    offer(add("--call", metavar="NAME[,format=json]", help=call), "build", "check", "outline", "targets")
    add("--check", dest="call", action="store_const", const="check", help="As --call check.")
    add("--metadata-file", metavar="FILE", help="Write the engine's responses to it by target, as JSON.")
    add_progress(parser)
    add_attach(parser)


def run(target: Target, options: argparse.Namespace) -> int:
    """Build the targets of bake files or compose files, side by side."""
    from mobysession.bake.read import read_definition
    from mobysession.errors import UsageError

    if options.print and options.list:
        raise UsageError("--print and --list exclude each other")
    definition = read_definition(options.files, variables=dict(map(_assignment, options.variables)))
    if options.list:
        return _list(definition, options.list)
    sets = [*options.sets, *_shorthands(options)]
    selection = definition.select(options.targets, sets)
    if options.print:
        print(selection.as_json(), flush=True)
        return 0
    from mobysession.bake.grants import refuse_ungranted

    refuse_ungranted(selection, options.allow)
    view = options.progress or os.environ.get("BUILDKIT_PROGRESS") or target.view(options.attach) or "auto"
    results = run_async(_bake, selection, target, options, view)
    return _print_results(selection, results, view)


def _assignment(text: str) -> tuple[str, str]:
    from mobysession.errors import UsageError

    name, separator, value = text.partition("=")
    if not name or not separator:
        raise UsageError(f"--var {text!r} is not NAME=VALUE")
    return name, value


def _shorthands(options: argparse.Namespace) -> list[str]:
    """Return the overrides that the other options are short for."""
    flags = (("push", options.push), ("load", options.load), ("no-cache", options.no_cache), ("pull", options.pull))
    sets = [f"*.{key}=true" for key, given in flags if given]
    if options.call:
        sets.append(f"*.call={options.call}")
    for kind in ("sbom", "provenance"):
        if given := getattr(options, kind):
            from mobysession.build.fields import parse_bool

            flag = parse_bool(given)
            rest = given if flag is None else f"disabled={'false' if flag else 'true'}"
            sets.append(f"*.attest=type={kind},{rest}")
    return sets


async def _bake(selection: Selection, target: Target, options: argparse.Namespace, view: str) -> Any:
    from mobysession.bake.bake import bake_selection

    return await bake_selection(
        selection,
        endpoint=target.endpoint(options.attach),
        progress=view,
        metadata_file=options.metadata_file,
        attach=options.attach,
    )


def _print_results(selection: Selection, results: Any, view: str) -> int:
    """Print what the engine answered where it was asked, and the images that have no name."""
    from mobysession.build.calls import Call
    from mobysession.build.outputs import told_id

    status = 0
    for name, result in results.items():
        if result.answer is not None:
            target = selection.targets[name]
            call = Call.parse(target["call"])
            assert call is not None  # a build is not answered
            status = print_answer(result.answer, call, target["dockerfile"], target=name) or status
        elif view == "quiet" and (found := told_id(result)):
            print(found, flush=True)
        elif result.image_id and not result.tags and view not in ("none", "rawjson") and name not in selection.linked:
            print(f"{name}: {result.image_id}", file=sys.stderr)
    return status


def _list(definition: Definition, what: str) -> int:
    from mobysession.build.fields import split_pairs
    from mobysession.errors import UsageError

    kind, _, rest = what.partition(",")
    given = split_pairs("--list", rest) if rest else {}
    kind = kind.removeprefix("type=")
    if kind not in _LISTS or set(given) - {"format"} or given.get("format", "table") not in ("table", "json"):
        raise UsageError(f"--list {what!r} is unknown", hint="Write targets or variables, and ,format=json behind it.")
    rows = _target_rows(definition) if kind == "targets" else _variable_rows(definition)
    if given.get("format") == "json":
        print_json([{key: value for key, value in row.items() if value not in ("", None)} for row in rows])
        return 0
    heads = ("name", "description") if kind == "targets" else ("name", "type", "value", "description")
    titles = [head.upper() if head != "name" else kind[:-1].upper() for head in heads]
    print_table(titles, ([_cell(row, head) for head in heads] for row in rows), gap=2)
    return 0


def _cell(row: dict[str, Any], head: str) -> str:
    if head == "description" and row.get("targets"):
        return row["description"] or ", ".join(row["targets"])
    return "<null>" if row.get(head) is None and head == "value" else str(row.get(head) or "")


def _target_rows(definition: Definition) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in sorted(definition.names, key=lambda name: (name != "default", name)):
        group = definition.groups.get(name)
        described = group.description if group is not None else definition.targets[name].get("description", "")
        rows.append({"name": name, "description": described, "targets": group.targets if group is not None else ""})
        rows[-1]["group"] = True if group is not None else ""
    return rows


def _variable_rows(definition: Definition) -> list[dict[str, Any]]:
    return [one.__dict__ for one in sorted(definition.variables, key=lambda one: one.name)]

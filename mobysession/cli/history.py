"""``mobysession history``: the builds that an engine remembers."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, BinaryIO

from mobysession.cli.app import run_async
from mobysession.cli.parser import add_commands
from mobysession.cli.tables import add_format, age, print_json, print_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from mobysession.buildkit.history import BuildRecord, History
    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser
    from mobysession.transport.endpoint import Endpoint

__all__ = ["SYNOPSIS", "add_options", "run"]

SYNOPSIS = " COMMAND [ARGS]..."

_REF = "A build's ID, the beginning of one, or ^N for the Nth before the newest [default: the newest]"
#: Attributes of the frontend that a line of their own tells, and those that only say how it is spoken to.
_TOLD = ("build-arg:", "label:", "vcs:", "frontend.caps")


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    command = add_commands(parser)
    ls = command("ls", "List builds, the newest first.", "")
    ls.add_argument("--active", action="store_true", help="Only those that run.")
    ls.add_argument("--limit", type=_positive, metavar="COUNT", help="As many at most [default: 50]")
    text = "Only these: status=error, ref=ID, repository=URL, startedAt>=24h, duration>30s; all of them hold."
    ls.add_argument("--filter", action="append", default=[], metavar="FILTER", help=text)
    ls.add_argument("--no-trunc", action="store_true", help="Print names as long as they are.")
    add_format(ls)
    inspect = command("inspect", "Show what was asked for in a build, and how it went.", " [REF]")
    inspect.add_argument("ref", nargs="?", default="", metavar="REF", help=_REF)
    text = "Print a file of the build instead: a digest, or a type such as https://slsa.dev/provenance/v1."
    inspect.add_argument("--attachment", metavar="DIGEST|TYPE", help=text)
    add_format(inspect)
    logs = command("logs", "Print a build's progress as it was.", " [REF]")
    logs.add_argument("ref", nargs="?", default="", metavar="REF", help=_REF)
    rm = command("rm", "Forget builds.", " REF...|--all")
    rm.add_argument("refs", nargs="*", metavar="REF", help="A build's ID, or ^N.")
    rm.add_argument("--all", action="store_true", help="Forget all that have ended.")
    export = command("export", "Write builds into a .dockerbuild archive.", " [REF...]")
    export.add_argument("refs", nargs="*", metavar="REF", help=_REF)
    export.add_argument("-o", "--output", metavar="PATH", help="Where it goes [default: stdout]")
    export.add_argument("--all", action="store_true", help="All that have ended.")
    export.add_argument("--finalize", action="store_true", help="Wait for the traces, and put them in.")


def _positive(text: str) -> int:
    import argparse

    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def run(target: Target, options: argparse.Namespace) -> int:
    """Look at the builds that an engine remembers."""
    if options.action == "export":
        _export(target.endpoint(), options)
        return 0
    actions = {"ls": _list, "inspect": _inspect, "logs": _logs, "rm": _remove}
    run_async(actions[options.action], target.endpoint(), options)
    return 0


async def _list(endpoint: Endpoint, options: argparse.Namespace) -> None:
    from datetime import UTC, datetime

    from mobysession import limits
    from mobysession.buildkit.control import open_control

    async with open_control(endpoint) as control:
        records = await control.history.list(
            active=options.active, filters=options.filter, limit=options.limit or limits.HISTORY_RECORDS
        )
    if options.format == "json":
        print_json([_summary(record) for record in records])
        return
    now = datetime.now(UTC)
    rows = [
        (
            record.ref,
            _shortened(record.name, options.no_trunc),
            record.status,
            age(record.created, now),
            _duration(record),
            f"{record.completed_steps}/{record.steps}",
            str(record.cached_steps),
        )
        for record in records
    ]
    print_table(("BUILD ID", "NAME", "STATUS", "CREATED", "DURATION", "STEPS", "CACHED"), rows)


def _shortened(name: str, whole: bool) -> str:
    return name if whole or len(name) <= 36 else f"..{name[-34:]}"


def _duration(record: BuildRecord) -> str:
    seconds = record.duration
    if seconds is None:
        return ""
    return f"{seconds:.1f}s" if seconds < 60 else f"{int(seconds // 60)}m {int(seconds % 60):2d}s"


def _summary(record: BuildRecord) -> dict[str, Any]:
    return {
        "ref": record.ref,
        "name": record.name,
        "status": record.status,
        "created": record.created,
        "completed": record.completed,
        "duration": record.duration,
        "steps": record.steps,
        "completed_steps": record.completed_steps,
        "cached_steps": record.cached_steps,
        "warnings": record.warnings,
        "pinned": record.pinned,
    }


async def _inspect(endpoint: Endpoint, options: argparse.Namespace) -> None:
    from mobysession.buildkit.control import open_control

    async with open_control(endpoint) as control:
        record = await control.history.get(options.ref)
        if options.attachment:
            # Bytes as they are: nothing of ours may be among them.
            async with aclosing(control.history.read(_attachment(record, options.attachment))) as pieces:
                async for piece in pieces:
                    sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
    value = {
        **_summary(record),
        "frontend": record.frontend,
        "attributes": dict(sorted(record.attributes.items())),
        "response": dict(sorted(record.response.items())),
        "error": {"code": record.code.name, "message": record.error} if record.error else None,
        "blobs": record.blobs,
    }
    if options.format == "json":
        print_json(value)
    else:
        _print_record(record)


def _attachment(record: BuildRecord, wanted: str) -> str:
    from mobysession.errors import ApiError

    for blob in record.blobs:
        if wanted in (blob.digest, blob.kind, blob.media_type):
            return blob.digest
    kinds = ", ".join(sorted({blob.kind or blob.media_type for blob in record.blobs})) or "none"
    raise ApiError(f"build {record.ref} has no file {wanted!r}", status=404, hint=f"It has {kinds}.")


def _print_record(record: BuildRecord) -> None:
    from mobysession.buildkit.printable import printable

    attributes = record.attributes
    lines = {
        "Ref": record.ref,
        "Name": record.name,
        "Status": record.status,
        "Created": f"{record.created:%Y-%m-%d %H:%M:%S} UTC" if record.created else "",
        "Duration": _duration(record),
        "Steps": f"{record.completed_steps}/{record.steps}, {record.cached_steps} cached",
        "Warnings": str(record.warnings) if record.warnings else "",
        "Frontend": record.frontend,
        "Error": record.error,
        "Pinned": "yes" if record.pinned else "",
    }
    for name, value in lines.items():
        if value:
            print(f"{name + ':':<12} {printable(value)}")
    groups = {
        "Build arguments": _below("build-arg:", attributes),
        "Labels": _below("label:", attributes),
        "Asked for": {key: value for key, value in attributes.items() if not key.startswith(_TOLD)},
    }
    for title, values in groups.items():
        if values:
            print(f"\n{title}:")
            for key, value in sorted(values.items()):
                print(f"  {printable(key)}={printable(value)}")
    if record.blobs:
        print("\nFiles:")
        for blob in record.blobs:
            platform = f" {blob.platform}" if blob.platform else ""
            print(f"  {printable(blob.digest)} {printable(blob.kind or blob.media_type)}{printable(platform)}")
    sys.stdout.flush()


def _below(prefix: str, attributes: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in attributes.items() if key.startswith(prefix)}


async def _logs(endpoint: Endpoint, options: argparse.Namespace) -> None:
    from mobysession.buildkit.control import open_control
    from mobysession.buildkit.status import BuildStatus
    from mobysession.progress.plain import PlainView

    status, view = BuildStatus(), PlainView(sys.stdout)
    async with open_control(endpoint) as control:
        record = await control.history.get(options.ref)
        try:
            async with aclosing(control.history.logs(record.ref)) as messages:
                async for message in messages:
                    view.update(status, status.apply(message))
        finally:
            view.close()


async def _remove(endpoint: Endpoint, options: argparse.Namespace) -> None:
    from mobysession.buildkit.control import open_control

    async with open_control(endpoint) as control:
        for record in await _chosen(control.history, options):
            await control.history.remove(record.ref)
            print(record.ref)
    sys.stdout.flush()


async def _chosen(history: History, options: argparse.Namespace) -> list[BuildRecord]:
    from mobysession.errors import UsageError

    if options.all:
        if options.refs:
            raise UsageError("builds are named, and --all says all")
        return [record for record in await history.list(limit=sys.maxsize) if record.status != "running"]
    if not options.refs and options.action == "rm":
        raise UsageError("no build is named", hint="Name builds, or say --all.")
    # All are found before the first is changed: ^N counts from the newest.
    return [await history.get(ref) for ref in options.refs or [""]]


def _export(endpoint: Endpoint, options: argparse.Namespace) -> None:
    from mobysession.errors import OutputError, UsageError

    if options.output in (None, "-"):
        if sys.stdout.isatty():
            raise UsageError("an archive is not written to a terminal", hint="Name a file with --output.")
        run_async(_export_to, endpoint, options, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    import os
    from pathlib import Path

    # Beside its place first: what is there stays as it was until the new one is complete.
    temporary = Path(f"{options.output}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            run_async(_export_to, endpoint, options, file)
        temporary.replace(options.output)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"{options.output} cannot be written: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)


async def _export_to(endpoint: Endpoint, options: argparse.Namespace, to: BinaryIO) -> None:
    from mobysession.buildkit.control import open_control
    from mobysession.errors import ApiError

    async with open_control(endpoint) as control:
        records = await _chosen(control.history, options)
        if options.finalize:
            for record in records:
                if record.trace is None:
                    await control.history.finalize(record.ref)
            records = [await control.history.get(record.ref) for record in records]
        if not records:
            raise ApiError("there are no records of builds", status=404)
        workers = await control.list_workers()
        platform = next((platform for worker in workers for platform in worker.platforms), "")
        await control.history.export(records, to, platform=platform)

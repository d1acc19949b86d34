"""``mobysession sessions``: the sessions that processes of this user hold on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mobysession.cli.app import run_async
from mobysession.cli.parser import add_commands
from mobysession.cli.tables import local_time, print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser
    from mobysession.state.sessions import SessionAnnouncement

__all__ = ["SYNOPSIS", "add_options", "run"]

SYNOPSIS = " COMMAND [ARGS]..."


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    command = add_commands(parser)
    ls = command("ls", "List the sessions whose processes live.", "")
    inspect = command("inspect", "Show what a session is like, as its process says.", " ID")
    events = command("events", "Show what happens on a session until it ends, a line of JSON each.", " ID")
    abort = command("abort", "End what a session is doing.", " ID")
    for one in (inspect, events, abort):
        one.add_argument("session_id", metavar="ID", help="Session ID, or how it begins.")
    for one in (ls, inspect):
        one.add_argument("--json", action="store_true", help="Print JSON.")
    abort.add_argument("--reason", default="", metavar="TEXT", help="What its process is told.")


def run(target: Target, options: argparse.Namespace) -> int:
    """See, watch and end the sessions of your processes on this machine."""
    from mobysession.state.location import state_path

    found = run_async(_list) if state_path().exists() else []
    if options.action == "ls":
        _print_list(found, options.json)
        return 0
    announcement = _choose(found, options.session_id)
    if options.action == "inspect":
        _print_inspection(run_async(_inspect, announcement), options.json)
    elif options.action == "events":
        run_async(_watch, announcement)
    else:
        run_async(_abort, announcement, options.reason)
    return 0


async def _list() -> list[SessionAnnouncement]:
    from mobysession.state.sessions import SessionDirectory
    from mobysession.state.store import open_store

    async with open_store() as store:
        return await SessionDirectory(store).list()


def _choose(found: list[SessionAnnouncement], wanted: str) -> SessionAnnouncement:
    from mobysession.errors import UsageError

    if not wanted:
        # Of a variable that is not set; every ID begins with nothing.
        raise UsageError("the session ID is empty", hint="See which: mobysession sessions ls")
    chosen = [one for one in found if one.session_id == wanted]
    chosen = chosen or [one for one in found if one.session_id.startswith(wanted)]
    if len(chosen) == 1:
        return chosen[0]
    hint = "See which: mobysession sessions ls"
    if chosen:
        raise UsageError(f"{len(chosen)} sessions begin with {wanted!r}", hint=hint)
    raise UsageError(f"no process that lives has announced a session {wanted!r}", hint=hint)


async def _inspect(announcement: SessionAnnouncement) -> dict[str, Any]:
    from mobysession.session.local import open_local_session

    async with open_local_session(announcement) as session:
        return await session.inspect()


async def _watch(announcement: SessionAnnouncement) -> None:
    import json
    from contextlib import aclosing

    from mobysession.session.local import open_local_session

    async with open_local_session(announcement) as session, aclosing(session.events()) as events:
        async for event in events:
            print(json.dumps(event), flush=True)


async def _abort(announcement: SessionAnnouncement, reason: str) -> None:
    from mobysession.session.local import open_local_session

    async with open_local_session(announcement) as session:
        await session.abort(reason)


def _print_list(found: list[SessionAnnouncement], as_json: bool) -> None:
    import dataclasses

    from mobysession.buildkit.printable import printable

    if as_json:
        print_json([dataclasses.asdict(one) for one in found])
        return
    for one in found:
        created = local_time(one.created)
        print(printable(f"{one.session_id}  process {one.pid:<7}  {created}  {one.endpoint}"), flush=True)


def _print_inspection(found: Mapping[str, Any], as_json: bool) -> None:
    import json

    from mobysession.buildkit.printable import printable

    if as_json:
        print_json(found)
        return
    width = max(map(len, found), default=0)
    for name, value in found.items():
        text = value if isinstance(value, str) else json.dumps(value)
        print(printable(f"{name:{width}}  {text or '-'}"), flush=True)

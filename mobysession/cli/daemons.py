"""``mobysession daemons``: the daemons that are remembered, and which of them is used where nobody names one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mobysession.cli.app import run_async
from mobysession.cli.parser import add_commands, offer
from mobysession.cli.tables import local_time, print_json
from mobysession.state.references import VIEWS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser
    from mobysession.state.client import ClientState
    from mobysession.state.references import DaemonReference

__all__ = ["SYNOPSIS", "add_options", "run"]

SYNOPSIS = " COMMAND [ARGS]..."


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    command = add_commands(parser)
    as_json = "Print JSON."
    command("ls", "List the daemons that are remembered.", "").add_argument("--json", action="store_true", help=as_json)
    add = command("add", "Remember a daemon, or change what is remembered of it.", " ADDRESS")
    add.add_argument("address", metavar="ADDRESS", help="unix://, tcp://, https:// or ssh://, as for --host.")
    view = f"How progress is shown on it by default: {', '.join(VIEWS[:-1])} or {VIEWS[-1]}."
    offer(add.add_argument("--view", metavar="KIND", help=view), *VIEWS)
    from_stdin = "Read a passphrase or token from stdin, and keep it in the key ring."
    add.add_argument("--password-stdin", action="store_true", help=from_stdin)
    add.add_argument("--use", action="store_true", help="Use it from now on, as with the command use.")
    add.add_argument("--json", action="store_true", help=as_json)
    use = command("use", "Use a daemon where nobody names another.", " ADDRESS|--none")
    use.add_argument("address", nargs="?", metavar="ADDRESS", help="One that is remembered.")
    use.add_argument("--none", action="store_true", help="Use what the docker CLI would use, again.")
    rm = command("rm", "Forget daemons, with their passwords.", " ADDRESS...")
    rm.add_argument("addresses", nargs="+", metavar="ADDRESS", help="One that is remembered.")
    show = command("show", "Show what is remembered of a daemon.", " [ADDRESS]")
    show.add_argument("address", nargs="?", metavar="ADDRESS", help="One that is remembered [default: the active one]")
    show.add_argument("--json", action="store_true", help=as_json)


def run(target: Target, options: argparse.Namespace) -> int:
    """Remember daemons, and which one is used where nobody names one."""
    from mobysession.state.location import state_path

    if options.action == "ls" and not state_path().exists():
        # To look is no reason to begin remembering.
        _print_list([], None, options.json)
        return 0
    actions: dict[str, Callable[[ClientState, argparse.Namespace], Awaitable[None]]] = {
        "ls": _list,
        "add": _add,
        "use": _use,
        "rm": _remove,
        "show": _show,
    }
    run_async(_with_client, actions[options.action], options)
    return 0


async def _with_client(
    action: Callable[[ClientState, argparse.Namespace], Awaitable[None]], options: argparse.Namespace
) -> None:
    from mobysession.state.client import ClientState

    async with ClientState() as client:
        await action(client, options)


async def _list(client: ClientState, options: argparse.Namespace) -> None:
    _print_list(list(client.daemons), client.active, options.json)


async def _add(client: ClientState, options: argparse.Namespace) -> None:
    from mobysession.errors import UsageError

    if options.view not in (None, *VIEWS):
        raise UsageError(f"there is no view {options.view!r}", hint=f"It is one of {', '.join(VIEWS)}.")
    password = None
    if options.password_stdin:
        import trio

        password = await trio.to_thread.run_sync(_read_password, abandon_on_cancel=True)
    reference = await client.register_reference(options.address, view=options.view, password=password)
    if options.use:
        client.set_active(reference.address)
    await client.state.flush()
    if options.json:
        print_json(_value(client.find(reference.address) or reference, client.active))


def _read_password() -> str:
    from mobysession import limits

    return sys.stdin.read(limits.MAX_PASSWORD + 2).removesuffix("\n")


async def _use(client: ClientState, options: argparse.Namespace) -> None:
    from mobysession.errors import UsageError

    if (options.address is None) != options.none:
        raise UsageError("either an address or --none says what to use")
    client.set_active(options.address)


async def _remove(client: ClientState, options: argparse.Namespace) -> None:
    for address in options.addresses:
        await client.remove_reference(address)


async def _show(client: ClientState, options: argparse.Namespace) -> None:
    from mobysession.errors import UsageError

    active = client.active
    if options.address is None and active is None:
        raise UsageError("no daemon is active", hint="Name one, or choose one with: mobysession daemons use ADDRESS")
    known = client.find(options.address) if options.address is not None else active
    if known is None:
        raise UsageError(f"no daemon is remembered at {options.address}", hint="See which: mobysession daemons ls")
    value = _value(known, active)
    if options.json:
        print_json(value)
        return
    _print(f"address        {value['address']}")
    _print(f"active         {'yes' if value['active'] else 'no'}")
    _print(f"view           {value['view'] or 'not said'}")
    _print(f"password       {'in ' + value['password_in'] if value['password_in'] else 'none'}")
    _print(f"last accessed  {local_time(value['last_accessed'])}")


def _print_list(references: list[DaemonReference], active: DaemonReference | None, as_json: bool) -> None:
    values = [_value(reference, active) for reference in references]
    if as_json:
        print_json(values)
        return
    width = max((len(value["address"]) for value in values), default=0)
    for value in values:
        mark = "*" if value["active"] else " "
        _print(f"{mark} {value['address']:{width}}  {value['view'] or '-':5}  {local_time(value['last_accessed'])}")


def _value(reference: DaemonReference, active: DaemonReference | None) -> dict[str, Any]:
    return {
        "address": reference.address,
        "active": active is not None and active.address == reference.address,
        "view": reference.view,
        "password_in": reference.password_in,
        "last_accessed": reference.last_accessed,
    }


def _print(line: str) -> None:
    print(line, flush=True)

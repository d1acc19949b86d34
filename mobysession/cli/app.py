"""The group of verbs, what they share, and how every failure becomes one line, a hint and an exit status."""

from __future__ import annotations

import gc
import importlib
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mobysession._version import __version__
from mobysession.errors import BuildFailed, EngineError, MobysessionError, RpcError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mobysession.transport.endpoint import Endpoint

__all__ = ["Target", "run", "run_async"]

T = TypeVar("T")

_HANDLER = "mobysession command line"
_VERBS = {
    "build": "Build an image from a directory.",
    "demo": "Build a small image that proves the callbacks.",
    "dial": "Connect stdin and stdout to an upgraded stream of the daemon.",
    "probe": "Open a session and report what the daemon says and does.",
}


class _Verbs(click.Group):
    """Loads a verb's module when the verb is called; a list of verbs needs none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"mobysession.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_VERBS.items()))


class Target:
    """Which daemon the verbs talk to: ``--host``, ``--context``, or what the environment says."""

    def __init__(self, host: str | None, context: str | None) -> None:
        self._host = host
        self._context = context

    def endpoint(self) -> Endpoint:
        """Return the endpoint; EndpointError where there is none."""
        from mobysession.transport.endpoint import Endpoint

        return Endpoint.from_env(host=self._host, context=self._context)

    @property
    def is_default(self) -> bool:
        """True where the command line names no daemon."""
        return self._host is None and self._context is None


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-H",
    "--host",
    metavar="URL",
    help="Daemon: unix://, tcp://, ssh:// [default: DOCKER_HOST, the docker context, the socket]",
)
@click.option("-c", "--context", metavar="NAME", help="A docker context, instead of --host.")
@click.option("-v", "--verbose", count=True, help="Say more on stderr; twice for everything.")
@click.version_option(__version__, prog_name="mobysession", message="%(prog)s %(version)s")
@click.pass_context
def app(ctx: click.Context, host: str | None, context: str | None, verbose: int) -> None:
    """BuildKit builds and Docker-daemon sessions, without the docker CLI."""
    if host is not None and context is not None:
        raise click.UsageError("--host and --context exclude each other")
    _set_up_logging(verbose)
    ctx.obj = Target(host, context)


def run(arguments: list[str]) -> int:
    """Run the verb that ``arguments`` name and return the exit status."""
    try:
        status = app.main(arguments, prog_name="mobysession", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except SystemExit as exit_:
        # What click ends on its own: shell completion, a reader of stdout who has enough.
        return exit_.code if isinstance(exit_.code, int) else 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except MobysessionError as error:
        report(error)
        return error.exit_status
    except OSError as error:
        # What we open ourselves raises errors of our own: this is stdout, on a full disk or a broken device.
        click.echo(f"ERROR: the output cannot be written: {error.strerror}", err=True)
        return 1
    except Exception as error:
        _report_fault(error)
        return 70
    return status if isinstance(status, int) else 0


def run_async(function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Run a coroutine function on trio; Ctrl-C cancels it wherever it waits, and arrives here as KeyboardInterrupt."""
    import trio

    if not gc.isenabled():
        # `main` disabled it while everything was loaded; from now on there may be garbage.
        gc.freeze()
        gc.enable()
    return trio.run(function, *arguments, restrict_keyboard_interrupt_to_checkpoints=True)


def report(error: MobysessionError) -> None:
    """Print an error on stderr: for a failed build the place in the Dockerfile, then one line, then the hint.

    What a daemon says may be part of either, so nothing in them may speak to the terminal.
    """
    from mobysession.buildkit.printable import printable

    if isinstance(error, BuildFailed):
        from mobysession.progress import render_failure

        sys.stderr.write(render_failure(error))
    click.secho("ERROR: ", fg="red", bold=True, nl=False, err=True, color=_colour())
    # A failed build may need several lines; another error that claims to have them got them from outside.
    text = str(error) if isinstance(error, RpcError) else error.message or type(error).__name__
    click.echo(printable(text, newlines=isinstance(error, (BuildFailed, EngineError))), err=True)
    if error.hint:
        click.echo(printable(f"hint: {error.hint}", newlines=True), err=True)


def _report_fault(error: Exception) -> None:
    import logging
    import traceback

    click.echo(f"mobysession failed in a way that it should not: {type(error).__name__}", err=True)
    if logging.getLogger("mobysession").isEnabledFor(logging.INFO):
        traceback.print_exception(error)
    else:
        click.echo("hint: Run it again with -v before the verb to see where, and report it.", err=True)


def _colour() -> bool | None:
    import os

    return False if os.environ.get("NO_COLOR") else None


def _set_up_logging(verbose: int) -> None:
    import logging

    logger = logging.getLogger("mobysession")
    for old in [handler for handler in logger.handlers if handler.name == _HANDLER]:
        # Of an earlier run in this process, whose stderr may be closed by now.
        logger.removeHandler(old)
    handler = logging.StreamHandler()
    handler.name = _HANDLER
    handler.setFormatter(logging.Formatter("%(relativeCreated)6d %(levelname).1s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])

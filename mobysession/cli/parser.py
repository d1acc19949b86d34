"""How the command line is read: the standard library's parser, of which only the verb that is called fills its part.

argparse, because it is there in two milliseconds: click, with which this began, took a tenth of a small build's time.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from mobysession._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import SupportsWrite

    from mobysession.cli.app import Target

__all__ = ["CommandLine", "Parser", "add_attach", "add_commands", "add_progress", "complete", "offer", "parse"]

_VERBS = {
    "bake": "Build the targets of bake files or compose files.",
    "build": "Build an image from a directory.",
    "context": "Explain what of a directory a build would send.",
    "daemons": "Remember daemons, and which one is used where nobody names one.",
    "demo": "Build a small image that proves the callbacks.",
    "dial": "Connect stdin and stdout to an upgraded stream of the daemon.",
    "doctor": "Check what builds depend on, and say what mends it.",
    "du": "Show the build cache.",
    "history": "Look at the builds that an engine remembers.",
    "llb": "Look at a build as BuildKit is asked for it.",
    "probe": "Open a session and report what the daemon says and does.",
    "prune": "Delete build cache.",
    "record": "Record what a build and its engine say to each other.",
    "recording": "Show a recording.",
    "replay": "Play a recording against the services of this machine, or to any client.",
    "sessions": "See, watch and end the sessions of your processes on this machine.",
    "workers": "List what executes builds.",
}
#: What ``--progress`` of a build takes.
_VIEWS = ("auto", "plain", "tty", "quiet", "none", "rawjson")
#: Columns of a help text. Unless it is given, argparse asks for the terminal's with each option that it learns.
_HELP_WIDTH = 80


class CommandLine(NamedTuple):
    """What was asked for: the function of the verb, and the options, those before the verb too, by name."""

    run: Callable[[Target, argparse.Namespace], int]
    options: argparse.Namespace


class Parser(argparse.ArgumentParser):
    """A parser whose help and complaints look alike for the program and for its verbs."""

    #: Of a verb that takes another command behind ``--``: what its words are kept as.
    command_name: str | None = None

    def __init__(self, *, prog: str, description: str | None, synopsis: str) -> None:
        super().__init__(
            prog=prog,
            usage=f"{prog} [OPTIONS]{synopsis}",
            description=description,
            formatter_class=_Help,
            add_help=False,
            allow_abbrev=False,
        )
        self.add_argument("-h", "--help", action="help", help="Show this message and exit.")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Read ``args``; what follows an option that takes a value is that value, also where it begins with a dash."""
        words = list(args or ())
        if self.command_name is None:
            return super().parse_known_args(self._joined(words), namespace)
        at = words.index("--") if "--" in words else len(words)
        namespace, rest = super().parse_known_args(self._joined(words[:at]), namespace)
        setattr(namespace, self.command_name, words[at + 1 :])
        return namespace, rest

    def _joined(self, words: list[str]) -> list[str]:
        joined: list[str] = []
        while words:
            word = words.pop(0)
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                return [*joined, word, *words]
            name, given, value = word.partition("=")
            if given and isinstance(switch := self._option_string_actions.get(name), argparse._StoreConstAction):
                joined = [one for one in joined if one not in switch.option_strings]
                joined += [name] if self._is_true(switch, value) else []
                continue
            action = self._option_string_actions.get(word)
            if action is not None and action.nargs is None and words and words[0].startswith("-"):
                word += ("=" if word.startswith("--") else "") + words.pop(0)
            elif action is not None and action.nargs is None and words:
                joined.append(word)
                word = words.pop(0)
            joined.append(word)
        return joined

    def _is_true(self, switch: argparse.Action, value: str) -> bool:
        """Read the value of a switch, as ``--pull=false``: docker's CLI takes one, and scripts fill it in."""
        from mobysession.build.fields import parse_bool

        if (given := parse_bool(value)) is None:
            self.error(f"argument {'/'.join(switch.option_strings)}: {value!r} is neither true nor false")
        return given

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Print the help; OSError where that is impossible, which argparse would keep to itself."""
        (sys.stdout if file is None else file).write(self.format_help())

    def error(self, message: str) -> NoReturn:
        """Say on stderr what is wrong with the command line, and end with status 2."""
        self.exit(2, f"{self.format_usage()}Try '{self.prog} --help' for help.\n\nError: {message}\n")

    def refuse(self, word: str) -> NoReturn:
        """End as `error` does, because of a word that no option and no argument takes."""
        option = word.partition("=")[0]
        if not option.startswith("-"):
            self.error(f"unexpected argument {word!r}")
        import difflib

        close = sorted(difflib.get_close_matches(option, self._option_string_actions, cutoff=0.75))
        self.error(f"no such option {option!r}" + (f" (did you mean {' or '.join(close)}?)" if close else ""))


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=_HELP_WIDTH)

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = "Usage: ") -> None:
        super().add_usage(usage, actions, groups, prefix)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # As Python 3.13 has it: "-t, --tag NAME", which was "-t NAME, --tag NAME".
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{', '.join(action.option_strings)} {action.metavar}"


def parse(arguments: Sequence[str]) -> CommandLine:
    """Read the command line: the program's own options up to the verb, and the rest as the verb has it.

    Raises:
        SystemExit: it is answered already (help, the version), or it cannot be read and was told so (status 2).
    """
    program = _Program()
    if not arguments:
        program.print_help(sys.stderr)
        program.exit(2)
    before, verb, after = program.split(arguments)
    options, rest = program.parse_known_args(before)
    if rest:
        program.refuse(rest[0])
    if verb is None:
        program.error("the following arguments are required: COMMAND")
    if verb not in _VERBS:
        program.error(f"argument COMMAND: invalid choice: {verb!r} (choose from {', '.join(map(repr, _VERBS))})")
    parser = _fill(Parser(**_head(verb)), verb)
    options, rest = parser.parse_known_args(after, options)
    if rest:
        parser.refuse(rest[0])
    if options.host is not None and options.docker_context is not None:
        program.error("--host and --context exclude each other")
    return CommandLine(options.run, options)


def complete(line: str) -> None:
    """Tell the shell what may come next on ``line``, and end the process; nothing else may have been printed."""
    import argcomplete

    program = _Program()
    program.add_verbs(line.split())
    argcomplete.autocomplete(program, always_complete_options=False)


def offer(action: argparse.Action, *words: str) -> None:
    """Let shells complete an option's value; what else is given is judged by the build, in its own words."""
    action.completer = lambda **_: words  # type: ignore[attr-defined]  # where argcomplete looks


def add_attach(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses how a session is attached."""
    ways = ("auto", "hijack", "tunnel", "native", "buildkitd")
    text = "How the session is attached: auto, hijack, tunnel, native or buildkitd [default: auto]"
    offer(parser.add_argument("--attach", default="auto", metavar="WAY", help=text), *ways)


def add_progress(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses how a build is shown."""
    text = f"{', '.join(_VIEWS[:-1])} or {_VIEWS[-1]} [env: BUILDKIT_PROGRESS; default: auto]"
    offer(parser.add_argument("--progress", metavar="KIND", help=text), *_VIEWS)


def add_commands(parser: Parser) -> Callable[[str, str, str], Parser]:
    """Have a verb take commands, as ``options.action``.

    Returns:
        What adds one, of its name, its summary, and what its usage says behind the options.
    """
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="action", required=True)

    def add(name: str, summary: str, synopsis: str) -> Parser:
        prog = f"{parser.prog} {name}"
        return commands.add_parser(name, help=summary, prog=prog, description=summary, synopsis=synopsis)

    return add


class _Program(Parser):
    """The parser of what stands before the verb; the verbs are added where all are told of."""

    def __init__(self) -> None:
        super().__init__(
            prog="mobysession",
            description="BuildKit builds and Docker-daemon sessions, without the docker CLI.",
            synopsis=" COMMAND [ARGS]...",
        )
        add = self.add_argument
        add(
            *("-H", "--host"),
            metavar="URL",
            help="Daemon: unix://, tcp://, ssh://, docker-container:// and others "
            "[default: DOCKER_HOST, the docker context, the socket]",
        )
        add("-c", "--context", dest="docker_context", metavar="NAME", help="A docker context, instead of --host.")
        add("-v", "--verbose", action="count", default=0, help="Say more on stderr; twice for everything.")
        version = f"mobysession {__version__}"
        add("--version", action="version", version=version, help="Show the version and exit.")

    def split(self, words: Sequence[str]) -> tuple[Sequence[str], str | None, Sequence[str]]:
        """Return what stands before the verb, the verb, None where there is none, and what follows it."""
        at = 0
        while at < len(words):
            if words[at] == "--":
                return words[:at], *self._verb(words[at + 1 :])
            if not words[at].startswith("-"):
                return words[:at], *self._verb(words[at:])
            action = self._option_string_actions.get(words[at])
            at += 2 if action is not None and action.nargs is None else 1
        return words, None, ()

    @staticmethod
    def _verb(words: Sequence[str]) -> tuple[str | None, Sequence[str]]:
        return (words[0], words[1:]) if words else (None, ())

    def format_help(self) -> str:
        """Return the help, of which the verbs are a part."""
        if self._subparsers is None:
            self.add_verbs(())
        return super().format_help()

    def add_verbs(self, words: Sequence[str]) -> None:
        """Add the verbs. Of those that are not among ``words``, the command line, nothing but the name is known."""
        verbs = self.add_subparsers(
            title="commands", metavar="COMMAND", dest="verb", required=True, parser_class=Parser
        )
        for name, summary in _VERBS.items():
            if name in words:
                _fill(verbs.add_parser(name, help=summary, **_head(name)), name)
            else:
                verbs.add_parser(name, help=summary, prog=f"mobysession {name}", description=None, synopsis="")


def _head(verb: str) -> dict[str, Any]:
    command = importlib.import_module(f"mobysession.cli.{verb}")
    return {"prog": f"mobysession {verb}", "description": command.run.__doc__, "synopsis": command.SYNOPSIS}


def _fill(parser: Parser, verb: str) -> Parser:
    """Add the options of a verb, and what runs it."""
    command = importlib.import_module(f"mobysession.cli.{verb}")
    command.add_options(parser)
    parser.set_defaults(run=command.run)
    return parser

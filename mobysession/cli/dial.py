"""``mobysession dial``: the raw upgraded byte stream, for people who bring their own HTTP/2.

Bytes on stdin go to the daemon, bytes of the daemon to stdout, from the first one behind the 101. The end of stdin is
passed on where the transport can half-close; the daemon's end ends the command.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mobysession.cli.app import run_async

if TYPE_CHECKING:
    import argparse

    import trio

    from mobysession.cli.app import Target
    from mobysession.cli.parser import Parser

__all__ = ["SYNOPSIS", "add_options", "run"]


SYNOPSIS = ""


def add_options(parser: Parser) -> None:
    """Add what `run` takes."""
    add = parser.add_argument
    add("--id", dest="session_id", metavar="ID", help="Session ID [default: a random one]")
    add("--name", default="", metavar="TEXT", help="Name of the session.")
    add("--shared-key", default="", metavar="TEXT", help="Shared key of the session.")
    method = "A method that you will serve."
    add("--method", dest="methods", action="append", default=[], metavar="/SERVICE/METHOD", help=method)
    add("--grpc", action="store_true", help="Dial /grpc, where you are the client, instead of /session.")


def run(target: Target, options: argparse.Namespace) -> int:
    """Upgrade a connection to the daemon and connect it to stdin and stdout."""
    from mobysession.errors import UsageError

    given = options.session_id, options.name, options.shared_key, options.methods
    if options.grpc and any(given):
        raise UsageError("--grpc takes no session options: nothing is served there")
    run_async(_dial_grpc if options.grpc else _dial_session, target, options)
    return 0


async def _dial_grpc(target: Target, options: argparse.Namespace) -> None:
    from mobysession.transport.hijack import hijack

    async with await hijack(target.endpoint(), "/grpc") as stream:
        await _connect(stream)


async def _dial_session(target: Target, options: argparse.Namespace) -> None:
    from mobysession.session.sessions import Sessions

    async with Sessions(target.endpoint()).session(
        options.session_id or None, name=options.name, shared_key=options.shared_key, methods=options.methods
    ) as stream:
        await _connect(stream)


async def _connect(stream: trio.abc.Stream) -> None:
    import trio

    from mobysession.concurrency import open_nursery

    async with open_nursery() as nursery:
        nursery.start_soon(_send_stdin, stream)
        try:
            async for data in stream:
                # A reader of ours that has stopped must not keep Ctrl-C from ending this.
                await trio.to_thread.run_sync(_write, data, abandon_on_cancel=True)
        except trio.BrokenResourceError as error:
            from mobysession.errors import ConnectionLost

            raise ConnectionLost("the daemon broke the connection off") from error
        nursery.cancel_scope.cancel()


async def _send_stdin(stream: trio.abc.Stream) -> None:
    import trio

    while data := await trio.to_thread.run_sync(_read, abandon_on_cancel=True):
        try:
            await stream.send_all(data)
        except trio.BrokenResourceError:
            # The receiving side says why.
            return
    if isinstance(stream, trio.abc.HalfCloseableStream):
        await stream.send_eof()


def _read() -> bytes:
    import os

    return os.read(sys.stdin.fileno(), 65536)


def _write(data: bytes | bytearray) -> None:
    import os

    rest = memoryview(data)
    # Not through the buffer of sys.stdout: a thread that is left behind would hold its lock to the interpreter's end.
    while rest:
        rest = rest[os.write(sys.stdout.fileno(), rest) :]

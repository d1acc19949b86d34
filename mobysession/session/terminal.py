"""Approval by whoever sits at the terminal: one question at a time, answered with a letter."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from mobysession.errors import UsageError

if TYPE_CHECKING:
    from mobysession.session.access import AccessRequest

__all__ = ["TerminalApproval"]

#: Bytes of one answer that are read.
_ANSWER: Final = 256


class TerminalApproval:
    """Ask on the controlling terminal; to be given to `Access` as ``approve``.

    ``y`` grants one request; ``a`` this and all later ones for the same thing, ``v`` refuses these; anything else
    refuses one request. Where there is no terminal everything is refused.

    Args:
        path: the terminal.
    """

    #: For `Access`, which tells whoever shows something there.
    asks_on_terminal = True

    def __init__(self, path: str | os.PathLike[str] = "/dev/tty") -> None:
        self._path = path
        self._remembered: dict[tuple[str, str, str], bool] = {}
        self._turn = trio.Lock()

    async def __call__(self, request: AccessRequest) -> bool:
        """Return whether the person says yes.

        Raises:
            UsageError: there is no terminal; who starts the build must do so on one, or approve in another way.

        Cancel: the question is left unanswered on the terminal.
        """
        thing = request.session_id, request.kind, request.subject
        async with self._turn:
            if thing in self._remembered:
                return self._remembered[thing]
            answer = await self._ask(request)
            if answer in ("a", "always", "v", "never"):
                self._remembered[thing] = answer in ("a", "always")
            return answer in ("y", "yes", "a", "always")

    async def _ask(self, request: AccessRequest) -> str:
        name = f" {request.session_name}" if request.session_name else ""
        shown = "".join(char if char.isprintable() else "?" for char in f"{name} ({request.session_id})")
        question = f"The engine asks for {request}, session{shown}. Allow? [y]es, [a]lways, [N]o, ne[v]er: "
        import termios  # not on Windows

        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"there is no terminal to ask on: {os.fspath(self._path)}: {error.strerror}") from error
        try:
            # What was typed before the question is no answer to it.
            with suppress(termios.error):  # no terminal, but something like one
                termios.tcflush(descriptor, termios.TCIFLUSH)
            os.write(descriptor, question.encode("utf-8", "backslashreplace"))
            try:
                await trio.lowlevel.wait_readable(descriptor)
            except trio.Cancelled:
                # What comes next does not belong to the question.
                os.write(descriptor, b"\n")
                raise
            return os.read(descriptor, _ANSWER).decode("utf-8", "replace").strip().lower()
        finally:
            os.close(descriptor)

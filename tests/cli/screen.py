"""A terminal's screen: what somebody sees of what was written there, as far as progress and questions need it."""

from __future__ import annotations

import re

__all__ = ["Screen"]

_PIECE = re.compile(r"\x1b\[(\??[0-9;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+|.", re.DOTALL)


class Screen:
    """Lines of text without an end, and a cursor. Sequences that it does not know fail the test."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = self.column = 0

    def write(self, text: str) -> None:
        """Take what a program wrote."""
        for found in _PIECE.finditer(text):
            if found[2]:
                self._obey(found[2], found[1])
            elif found[0] == "\r":
                self.column = 0
            elif found[0] == "\n":
                self._down()
                self.column = 0  # a terminal in its usual mode sends the carriage back too
            else:
                self._put(found[0])

    @property
    def text(self) -> str:
        """What is to be seen."""
        return "\n".join(line.rstrip() for line in self.lines).rstrip()

    def _put(self, text: str) -> None:
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + text + line[self.column + len(text) :]
        self.column += len(text)

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")

    def _obey(self, command: str, argument: str) -> None:
        match command:
            case "A":
                self.row = max(0, self.row - int(argument or 1))
            case "B":
                self.row = min(len(self.lines) - 1, self.row + int(argument or 1))
            case "K":
                self.lines[self.row] = "" if argument == "2" else self.lines[self.row][: self.column]
            case "m" | "h" | "l":
                pass  # colours, and whether the cursor is seen
            case _:
                raise AssertionError(f"an unknown sequence: {argument}{command}")

"""The colours of the terminal view, and whether the terminal has any.

``BUILDKIT_COLORS`` names them as for BuildKit's own clients, ``run=green:error=250,0,0:cancel=light-yellow``; what it
says wrongly is left out with a warning. ``NO_COLOR`` is obeyed by rich, behind all of this.

Source: moby/buildkit util/progress/progressui/init.go and colors.go.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobysession.progress.table import Style

__all__ = ["has_colours", "styles"]

_log = logging.getLogger("mobysession.progress")

_KEYS: Mapping[str, Style] = {"run": "done", "cancel": "cancelled", "error": "failed", "warning": "warning"}
_NAMES = ("black", "blue", "cyan", "green", "magenta", "red", "white", "yellow")
_LIGHT = {f"light-{name}": f"bright_{name}" for name in _NAMES}
_COLOURS = {"default": "default", **dict(zip(_NAMES, _NAMES, strict=True)), **_LIGHT}


def styles(environ: Mapping[str, str] = os.environ) -> dict[Style, str]:
    """Return what each kind of row looks like, in rich's words."""
    chosen: dict[Style, str] = {
        "plain": "",
        "done": "blue",
        "failed": "red",
        "cancelled": "yellow",
        "warning": "yellow",
        "faint": "dim",
    }
    for field in filter(None, environ.get("BUILDKIT_COLORS", "").split(":")):
        key, _, value = field.partition("=")
        kind, colour = _KEYS.get(key.strip().lower()), _colour(value.strip().lower())
        if kind is None or colour is None:
            _log.warning("BUILDKIT_COLORS: %r is not KEY=COLOUR, as run=green or error=250,0,0", field)
        else:
            chosen[kind] = colour
    return chosen


def _colour(text: str) -> str | None:
    if text in _COLOURS:
        return _COLOURS[text]
    parts = text.split(",")
    if len(parts) == 3 and all(part.isdecimal() and int(part) <= 255 for part in parts):
        return f"rgb({','.join(parts)})"
    return None


def has_colours(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Ask the database of terminals whether the one behind ``stream`` has colours; True where it does not know."""
    if environ.get("COLORTERM") or not environ.get("TERM"):
        return True
    try:
        import curses
    except ImportError:  # some Pythons come without
        return True
    try:
        curses.setupterm(environ["TERM"], stream.fileno())
    except (OSError, ValueError, curses.error):  # no terminal, or one that is not in the database
        return True
    return curses.tigetnum("colors") > 0

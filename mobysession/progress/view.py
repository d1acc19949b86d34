"""What a build needs of a view, and the choice among the views.

A view is fed with every change of the status model and decides by itself how often it writes. Between changes time
passes too: whoever feeds a view calls :meth:`View.tick` every :attr:`View.interval` seconds, so that timers go on and
what was held back for a moment gets out. Nothing here waits, apart from the writing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TextIO, get_args

from mobysession.errors import UsageError

if TYPE_CHECKING:
    from typing import NoReturn

    from mobysession.buildkit.status import BuildStatus, Changes

__all__ = ["View", "ViewKind", "keep_ticking", "open_view"]

ViewKind = Literal["auto", "plain", "tty", "quiet", "none", "rawjson", "notebook"]


class View(Protocol):
    """Shows one build."""

    @property
    def interval(self) -> float:
        """Seconds between ticks."""
        ...

    def update(self, status: BuildStatus, changes: Changes) -> None:
        """Take what one message changed. ``status`` is the same object at each call."""
        ...

    def tick(self) -> None:
        """Take notice that time has passed."""
        ...

    def close(self, error: BaseException | None = None) -> None:
        """Write what is still held back and give the terminal back; a second call does nothing.

        Args:
            error: what ended the build, None for success. With an error the logs of the failed steps come last.
        """
        ...


def open_view(kind: ViewKind, stream: TextIO) -> View:
    """Return the view of this kind, writing to ``stream``.

    Args:
        kind: ``tty`` redraws a table, ``plain`` appends lines, ``quiet`` is silent up to the end, ``rawjson`` writes
            what the engine says as BuildKit's clients do, ``none`` shows nothing, ``notebook`` displays a table below
            the cell and leaves ``stream`` alone; ``auto`` is ``notebook`` in the kernel of one, ``tty`` where
            ``stream`` is a terminal that can move its cursor, else ``plain``.
        stream: text stream; stays the caller's, is flushed and never closed.

    Raises:
        UsageError: there is no such kind, or not what it needs; the caller must name another.
    """
    if kind not in get_args(ViewKind):
        message = f"unknown progress {kind!r}"
        raise UsageError(message, hint=f"Choose one of: {', '.join(get_args(ViewKind))}")
    if kind == "quiet":
        from mobysession.progress.quiet import QuietView

        return QuietView(stream)
    if kind == "none":
        from mobysession.progress.silent import SilentView

        return SilentView()
    if kind == "rawjson":
        from mobysession.progress.rawjson import RawJsonView

        return RawJsonView(stream)
    if kind == "notebook" or (kind == "auto" and _in_notebook()):
        from mobysession.progress.notebook import NotebookView

        return NotebookView()
    if kind == "tty" or (kind == "auto" and _can_redraw(stream)):
        from mobysession.progress.tty import TtyView  # loads rich, which takes a while

        return TtyView(stream)
    from mobysession.progress.plain import PlainView

    return PlainView(stream)


async def keep_ticking(view: View) -> NoReturn:
    """Tick ``view`` until cancelled. Cancel: between two ticks only; the view still has to be closed."""
    import trio  # the views themselves do without

    while True:
        await trio.sleep(view.interval)
        view.tick()


def _in_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook; what is not loaded yet is not loaded for it."""
    import sys

    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_shell is not None and getattr(get_shell(), "kernel", None) is not None


def _can_redraw(stream: TextIO) -> bool:
    import os

    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")

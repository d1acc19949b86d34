"""The file that shows a build over time, written however the build ends."""

from __future__ import annotations

import logging
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from mobysession.build.outputs import write_atomically
from mobysession.errors import ProviderError, UsageError
from mobysession.progress.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mobysession.build.options import BuildOptions
    from mobysession.progress.timeline import Recorded

__all__ = ["check_timeline", "recording"]

_log = logging.getLogger("mobysession.build")


def check_timeline(path: str | os.PathLike[str]) -> None:
    """Refuse a name from which nobody can tell what the file is to be. Raises UsageError."""
    if os.path.splitext(path)[1].lower() not in (".html", ".htm", ".json"):
        raise UsageError(
            f"timeline {os.fspath(path)!r} says by its end neither that it is a page nor that it is a trace",
            hint="Name it FILE.html for a page, or FILE.json for a trace.",
        )


@asynccontextmanager
async def recording(options: BuildOptions, hide: Callable[[str], str]) -> AsyncIterator[Timeline]:
    """Give a timeline for the length of the block, and write it to ``options.timeline`` when the block ends.

    Raises:
        ProviderError: the build is done, and the file cannot be written. After a build that failed this is a warning.

    Cancel: the file is written all the same.
    """
    timeline = Timeline(_title(options), hide=hide)
    failure: BaseException | None = None
    try:
        yield timeline
    except BaseException as error:
        failure = error
        raise
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_write, options, timeline, failure)


def _write(options: BuildOptions, timeline: Timeline, failure: BaseException | None) -> None:
    path = os.fspath(options.timeline or "")
    try:
        write_atomically(path, _render(path, timeline.recorded(failure)))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if failure is None:
            raise ProviderError(f"the build is done, but {path!r} cannot be written: {reason}") from error
        _log.warning("%r cannot be written: %s", path, reason)


def _render(path: str, recorded: Recorded) -> str:
    if path.lower().endswith(".json"):
        from mobysession.progress.trace import render_trace

        return render_trace(recorded)
    from mobysession.progress.page import render_page

    return render_page(recorded)


def _title(options: BuildOptions) -> str:
    if options.tags:
        return ", ".join(options.tags)
    if not isinstance(options.context, (str, os.PathLike)):
        return "build"
    context = os.fspath(options.context)
    return context if ":" in context or context == "-" else os.path.basename(os.path.abspath(context)) or context

"""Where a failed build failed, ready to print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession.buildkit.printable import printable

if TYPE_CHECKING:
    from mobysession.errors import BuildFailed

__all__ = ["render_failure"]


def render_failure(error: BuildFailed, *, log: bool = False) -> str:
    """Return the lines of the Dockerfile at which the build failed, the ones meant marked.

    The message and the hint are not part of it: these every error has, and whoever reports errors prints them after
    this.

    Args:
        error: what the build raised.
        log: put the log of the failed step before the lines; for callers without a view, as every view ends in it.

    Returns:
        Whole lines, each with its newline; empty when the error names no place and has no log to show.
    """
    blocks = []
    if log and error.step is not None:
        lines = (f" > {printable(error.step)}:", *(printable(line) for line in error.log))
        blocks.append("\n".join(("------", *lines, "------")))
    if error.excerpt:
        blocks.append(printable(error.excerpt, newlines=True))
    return "".join(f"{block}\n" for block in blocks)

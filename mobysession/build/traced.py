"""A solve as a span: what it is asked with, and the engine's history, which gets the spans of the build."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from mobysession.buildkit.traces import hand_over

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobysession.buildkit.control import Control
    from mobysession.session.tracing import CallSpans

__all__ = ["traced"]


@asynccontextmanager
async def traced(spans: CallSpans, control: Control, *, ref: str) -> AsyncIterator[list[tuple[str, str]]]:
    """Give what a solve tells the engine of its span; with the block the span ends, and the engine gets it and others.

    Cancel: the engine gets none.
    """
    spans.note({"ref": ref})
    try:
        yield spans.introduction()
    except BaseException as error:
        spans.close(error)
        await trio.lowlevel.checkpoint_if_cancelled()
        raise
    finally:
        spans.close()
        await hand_over(control, spans.take())

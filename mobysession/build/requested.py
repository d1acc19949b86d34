"""Which files of a context an engine asks for: known only after it has asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession.build.build import build_with
from mobysession.build.options import BuildOptions
from mobysession.errors import BuildFailed
from mobysession.filesync.observed import Observed
from mobysession.transport.endpoint import Endpoint

if TYPE_CHECKING:
    import os

    from mobysession.filesync import Source

__all__ = ["requested_files"]


async def requested_files(
    engine: str, source: Source, file: str | os.PathLike[str] | None = None
) -> tuple[list[str], BuildFailed | None]:
    """Build a context, keep nothing of the result, and return the paths that the engine asked for.

    Args:
        engine: its address.
        source: the context.
        file: as of `BuildOptions`.

    Returns: the paths, in order, and why the build failed if it did; what came after that was not asked for.

    Raises:
        TransportError, SessionError: the engine cannot be reached or went away.
        ContextError: the context cannot be used.
    """
    observed = Observed(source)
    options = BuildOptions(context=observed, file=file, outputs=["type=cacheonly"], no_cache=True)
    failure = None
    try:
        await build_with(options, endpoint=Endpoint.parse(engine))
    except BuildFailed as error:
        failure = error
    return list(observed.read), failure

"""How new a BuildKit is: it says so itself, or, where a distribution has built it, only the engine around it does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mobysession.errors import UnsupportedByEngine

if TYPE_CHECKING:
    from mobysession.buildkit.control import Control
    from mobysession.transport.endpoint import Endpoint

__all__ = ["parse_version", "refuse_space_bounds"]

#: Those that look at the bounds of a prune, see docker/buildx, release 0.18, and moby/moby, release 28.0.
_BUILDKIT_WITH_BOUNDS: Final = (0, 17)
_DOCKER_WITH_BOUNDS: Final = (28, 0)


def parse_version(text: str) -> tuple[int, int]:
    """Return the first two numbers of a version; (0, 0) of one that says nothing."""
    found = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


async def refuse_space_bounds(control: Control, endpoint: Endpoint | None) -> None:
    """Ask a BuildKit whether it looks at all bounds of a prune; UnsupportedByEngine where it would ignore some."""
    said = await control.info()
    version = parse_version(said.version if said is not None else "")
    if version >= _BUILDKIT_WITH_BOUNDS:
        return
    if version == (0, 0) and endpoint is not None and not endpoint.is_buildkitd:
        from mobysession.transport.api import EngineApi

        found = await EngineApi(endpoint).version()
        if parse_version(str(found.get("Version", ""))) >= _DOCKER_WITH_BOUNDS:
            return
    raise UnsupportedByEngine(
        "this engine would ignore max_used_space and min_free_space",
        hint="BuildKit 0.17 and Docker 28 and later do not; reserved_space works on all.",
    )

"""The keywords of `mobysession.bake.bake`, for the front doors that hand them on; see `mobysession.build.keywords`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession.build.keywords import CommonKeywords

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from mobysession.bake.read import FileLike
    from mobysession.build.many import OnStatus
    from mobysession.progress.view import View
    from mobysession.transport.endpoint import Endpoint

__all__ = ["BakeKeywords"]


class BakeKeywords(CommonKeywords, total=False):
    """The keywords of `mobysession.bake.bake`."""

    files: FileLike | Iterable[FileLike]
    sets: Sequence[str]
    variables: Mapping[str, str] | None
    allow: Sequence[str]
    endpoint: Endpoint | None
    progress: str | View | None
    on_status: OnStatus | None
    metadata_file: str | os.PathLike[str] | None
    parallel: int

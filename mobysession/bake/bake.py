"""`bake`: the targets of a definition, built side by side with one view, the first failure ending all of them.

Each target is a build of its own, with its own session: what the engine asks for is answered with what this target has.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from mobysession import limits
from mobysession.bake.grants import refuse_ungranted
from mobysession.bake.links import Links
from mobysession.bake.plan import options_of
from mobysession.bake.read import FileLike, read_definition
from mobysession.build.keywords import CommonKeywords
from mobysession.build.many import open_many
from mobysession.build.options import check_count
from mobysession.concurrency import open_nursery
from mobysession.errors import MobysessionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Unpack

    from mobysession.bake.definition import Selection
    from mobysession.build.many import Many, OnStatus
    from mobysession.build.options import BuildOptions
    from mobysession.build.result import BuildResult
    from mobysession.progress.view import View
    from mobysession.transport.endpoint import Endpoint

__all__ = ["bake", "bake_selection"]

_COMMON: Final = tuple(CommonKeywords.__annotations__)


async def bake(
    targets: str | Sequence[str] = (),
    *,
    files: FileLike | Iterable[FileLike] = (),
    sets: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    allow: Sequence[str] = (),
    endpoint: Endpoint | None = None,
    progress: str | View | None = None,
    on_status: OnStatus | None = None,
    metadata_file: str | os.PathLike[str] | None = None,
    parallel: int = limits.BUILDS_AT_ONCE,
    **options: Unpack[CommonKeywords],
) -> dict[str, BuildResult]:
    """Build the targets of bake files, side by side, and return what became of each by its name.

    Args:
        targets: names of targets and groups, or patterns; none is ``default``.
        files: bake files (HCL or JSON), compose files, and dictionaries of what a JSON file would hold, merged in this
            order; none are those with the usual names in the working directory.
        sets: overrides, as ``TARGET.KEY=VALUE``.
        variables: values of the definition's variables, over those of the environment.
        allow: what the definition may do besides reading and writing below the working directory: ``network.host``,
            ``security.insecure``, ``device``, ``ssh``, ``fs.read=PATH``, ``fs.write=PATH``, ``fs=PATH``. What is given
            as a dictionary is the caller's own, and may do everything where there is nothing else.
        endpoint: the engine; as with `mobysession.build.build`.
        progress: shown on stderr, one view for all targets; as with `mobysession.build.build`.
        on_status: called with the name of a target and the status of its build; must not wait.
        metadata_file: file for the engine's responses by target, as JSON.
        parallel: how many targets are built at the same time; those linked by contexts count as one.
        **options: of `BuildOptions`, for all targets; see `mobysession.build.CommonKeywords`.

    Raises:
        BakeError: the definition makes no sense; names file and line.
        UsageError: the definition needs what was not allowed, or an argument makes no sense.
        As `mobysession.build.build`, for the target that failed first; its message begins with the target's name.

    Cancel: the engine cancels all builds.
    """
    given: list[FileLike] = [files] if isinstance(files, str | os.PathLike | Mapping) else list(files)
    definition = await trio.to_thread.run_sync(partial(read_definition, given, variables=variables))
    names = [targets] if isinstance(targets, str) else targets
    selection = definition.select(names, sets)
    is_own = bool(given) and all(isinstance(file, Mapping) for file in given)
    if not is_own:
        await trio.to_thread.run_sync(refuse_ungranted, selection, allow)
    return await bake_selection(
        selection,
        endpoint=endpoint,
        progress=progress,
        on_status=on_status,
        metadata_file=metadata_file,
        parallel=parallel,
        **options,
    )


async def bake_selection(
    selection: Selection,
    *,
    endpoint: Endpoint | None = None,
    progress: str | View | None = None,
    on_status: OnStatus | None = None,
    metadata_file: str | os.PathLike[str] | None = None,
    parallel: int = limits.BUILDS_AT_ONCE,
    **options: Unpack[CommonKeywords],
) -> dict[str, BuildResult]:
    """Build targets that are chosen already; arguments, result and errors as of `bake`, but nothing asks for leave."""
    for name in options:
        if name not in _COMMON:
            raise UsageError(f"bake() has no option {name!r}", hint=f"For all targets: {', '.join(_COMMON)}.")
    check_count("parallel is a number of targets", parallel, least=1)
    with tempfile.TemporaryDirectory(prefix="mobysession-bake-") as scratch:
        builds = await trio.to_thread.run_sync(_plan, selection, scratch, options)
        if metadata_file is not None:
            # A build with such a file also reads what it is written with.
            builds = {name: replace(build, metadata_file=f"{scratch}/{name}.json") for name, build in builds.items()}
        # Builds that wait for each other have their turns together, or they would wait for ever.
        async with open_many(
            endpoint=endpoint, at_once=max(len(builds), 1), progress=progress, on_status=on_status
        ) as many:
            results = await _Bakery(many, Links(selection.targets), builds, endpoint).run(parallel)
    if metadata_file is not None:
        await trio.to_thread.run_sync(_write_metadata, metadata_file, results)
    return results


def _plan(selection: Selection, scratch: str, common: Mapping[str, Any]) -> dict[str, BuildOptions]:
    return {name: options_of(name, target, scratch, common) for name, target in sorted(selection.targets.items())}


class _Bakery:
    """Builds planned targets."""

    def __init__(self, many: Many, links: Links, builds: Mapping[str, BuildOptions], endpoint: Endpoint | None) -> None:
        self._many = many
        self._links = links
        self._builds = builds
        self._endpoint = endpoint
        self._results: dict[str, BuildResult] = {}

    async def run(self, parallel: int) -> dict[str, BuildResult]:
        """Build all of them, and return the results in the order of the builds."""
        limiter = trio.CapacityLimiter(parallel)
        async with open_nursery() as nursery:
            for names in self._links.components():
                nursery.start_soon(self._build_together, names, limiter)
        return {name: self._results[name] for name in self._builds}

    async def _build_together(self, names: list[str], limiter: trio.CapacityLimiter) -> None:
        async with limiter, open_nursery() as nursery:
            for name in names:
                nursery.start_soon(self._build, name)

    async def _build(self, name: str) -> None:
        options = self._many.shared(self._builds[name])
        on = self._many.ground(options, self._endpoint)
        if self._links.is_linked(name):
            on.ask = partial(self._links.ask, name)
        try:
            self._results[name] = await self._many.build(options, name=name, on=on)
            self._links.give_up(name)
        except MobysessionError as failure:
            if len(self._builds) > 1:
                failure.message = f"target {name!r}: {failure.message}"
                failure.args = (failure.message,)
            raise


def _write_metadata(path: str | os.PathLike[str], results: Mapping[str, BuildResult]) -> None:
    import json

    from mobysession.build.outputs import write_atomically
    from mobysession.errors import ProviderError

    text = json.dumps({name: result.metadata() for name, result in results.items()}, indent=2) + "\n"
    try:
        write_atomically(path, text)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        message = f"the targets were built, but {os.fspath(path)!r} cannot be written: {reason}"
        raise ProviderError(message) from error

"""Several builds from one call: side by side, shown by one view, and sharing what they would each do for themselves.

Each build has a session of its own, as each build has. Shared are the lookups of logins, and what is listed of a
directory while several builds read it. ``one_session`` makes them share the session too, for builds that differ in
nothing that goes over it; see `mobysession.build.one_session`.

::

    api, worker = await build_many([{"target": "api"}, {"target": "worker"}], names=["api", "worker"], progress="auto")
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

import trio

from mobysession import limits
from mobysession.build.build import BuildOn, build_with, make_options, view_of
from mobysession.build.options import BuildOptions, check_count, check_listener, check_switch
from mobysession.build.progress import BuildProgress
from mobysession.build.retries import Attempts, check_repeatable
from mobysession.concurrency import open_nursery
from mobysession.errors import MobysessionError, UsageError
from mobysession.filesync.shared import SharedWalks
from mobysession.services.credentials import CredentialSource, DockerCredentials, credential_source
from mobysession.services.kept_credentials import KeptCredentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from typing import Unpack

    from mobysession.build.keywords import ManyKeywords
    from mobysession.build.prepare import Prepared
    from mobysession.build.result import BuildResult
    from mobysession.buildkit.status import BuildStatus
    from mobysession.progress.together import Together
    from mobysession.progress.view import View
    from mobysession.session.session import Session
    from mobysession.transport.endpoint import Endpoint

    #: Called with the name of a build and its status.
    OnStatus = Callable[[str, BuildStatus], None]

__all__ = ["Many", "build_many", "open_many"]

_log = logging.getLogger("mobysession.build")


@overload
async def build_many(
    builds: Sequence[BuildOptions | Mapping[str, Any]],
    *,
    return_errors: Literal[False] = ...,
    **options: Unpack[ManyKeywords],
) -> list[BuildResult]: ...


@overload
async def build_many(
    builds: Sequence[BuildOptions | Mapping[str, Any]], *, return_errors: bool, **options: Unpack[ManyKeywords]
) -> list[BuildResult | MobysessionError]: ...


async def build_many(
    builds: Sequence[BuildOptions | Mapping[str, Any]],
    *,
    names: Sequence[str] = (),
    endpoint: Endpoint | None = None,
    at_once: int | None = None,
    progress: str | View | None = None,
    on_status: OnStatus | None = None,
    one_session: bool = False,
    retries: int = 0,
    return_errors: bool = False,
) -> list[BuildResult] | list[BuildResult | MobysessionError]:
    """Build several images and return their results, in the order of ``builds``.

    Args:
        builds: what to build, each as `BuildOptions` or as its fields by name.
        names: what each build is called in the view and in errors; none: its target, else its first tag, else a number.
        endpoint, progress: as of `mobysession.build.build`; one view shows all of them.
        at_once: how many run at the same time; None: `limits.BUILDS_AT_ONCE`.
        on_status: called with a build's name and status, as ``on_status`` of `mobysession.build.build`.
        one_session: attach one session for all of them; see `mobysession.build.one_session` for which builds can.
        retries: how often a build is asked for again whose engine went away, as long as it has exported nothing.
        return_errors: go on after a failure, and return the error in the place of the result. False: the first failure
            cancels the other builds and is raised.

    Raises:
        UsageError: the arguments make no sense; no build was begun.
        As `mobysession.build.build`, without ``return_errors``.

    Cancel: the engine cancels all builds.
    """
    if isinstance(builds, str | Mapping | BuildOptions) or not isinstance(builds, Iterable):
        raise UsageError("builds takes a list, of BuildOptions or of mappings of their fields")
    options = [_options(build) for build in builds]
    called = _names(options, names)
    check_switch("one_session", one_session)
    check_switch("return_errors", return_errors)
    if one_session and retries:
        raise UsageError(
            "a build on a session of several cannot be repeated: the session went with its engine",
            hint="Leave one_session or retries out.",
        )
    results: list[Any] = [None] * len(options)

    async def build(many: Many, number: int, on: BuildOn | None) -> None:
        try:
            results[number] = await many.build(options[number], name=called[number], on=on)
        except MobysessionError as error:
            if not return_errors:
                error.add_note(f"in the build {called[number]}")
                raise
            results[number] = error

    async with open_many(
        endpoint=endpoint, at_once=at_once, progress=progress, on_status=on_status, retries=retries
    ) as many:
        options = [many.shared(each) for each in options]
        async with _grounds(endpoint, options, one_session=one_session) as grounds, open_nursery() as nursery:
            for number, on in enumerate(grounds):
                nursery.start_soon(build, many, number, on)
    return results


@asynccontextmanager
async def open_many(
    *,
    endpoint: Endpoint | None = None,
    at_once: int | None = None,
    progress: str | View | None = None,
    on_status: OnStatus | None = None,
    retries: int = 0,
) -> AsyncIterator[Many]:
    """Open what several builds share, for the length of the block; arguments as of `build_many`.

    The view is closed with the block, and shows the error that leaves it.
    """
    check_listener(on_status)
    if at_once is not None:
        check_count("at_once is the number of builds that run at the same time", at_once, least=1)
    check_count("retries is a number", retries, least=0)
    together = _together(view_of(progress))
    many = Many(endpoint, trio.CapacityLimiter(at_once or limits.BUILDS_AT_ONCE), together, on_status, retries)
    error: BaseException | None = None
    try:
        async with open_nursery() as nursery:
            if together is not None and together.view is not None:
                from mobysession.progress.view import keep_ticking

                nursery.start_soon(keep_ticking, together.view)
            yield many
            nursery.cancel_scope.cancel()
    except BaseException as failure:
        error = failure
        raise
    finally:
        many.close()
        if together is not None:
            together.close(error)


class Many:
    """What several builds share. Made by `open_many`."""

    def __init__(
        self,
        endpoint: Endpoint | None,
        limiter: trio.CapacityLimiter,
        together: Together | None,
        on_status: OnStatus | None,
        retries: int,
    ) -> None:
        self._endpoint = endpoint
        self._walks = SharedWalks()
        self._limiter = limiter
        self._together = together
        self._on_status = on_status
        self._retries = retries
        self._users = DockerCredentials()
        #: By the identity of what was given, which is kept with it so that no other object can have it.
        self._sources: dict[int, tuple[object, CredentialSource]] = {}
        self._unwatch: dict[int, Callable[[], None]] = {}

    async def build(self, options: BuildOptions, *, name: str = "", on: BuildOn | None = None) -> BuildResult:
        """Build, once it is this build's turn; as `mobysession.build.build`.

        Args:
            options: what to build.
            name: what the build is called in the view.
            on: what it runs on; None: a session of its own.
        """
        if self._retries:
            check_repeatable(options)
        options = self.shared(options)
        attempts = Attempts(self._retries)
        # The address, for what is told of one step by two engines is not told of one step.
        view = self._part(name, options, on.dialer.endpoint.url if on is not None else "")

        def told(status: BuildStatus) -> None:
            attempts.told(status)
            if self._on_status is not None:
                self._on_status(name, status)

        async with self._limiter:
            wait = limits.RETRY_WAIT
            while True:
                ground = on or self.ground(options, self._endpoint)
                try:
                    return await build_with(options, progress=view, on_status=told, on=ground)
                except MobysessionError as error:
                    if not attempts.may_repeat(error):
                        raise
                    _log.warning("%s; asking again in %g s", error.message, wait)
                await trio.sleep(wait)
                wait = min(wait * 2, limits.RETRY_WAIT_MOST)

    def shared(self, options: BuildOptions) -> BuildOptions:
        """Return ``options`` with logins that are looked up once for all builds."""
        given = options.credentials
        if given is None:
            return replace(options, credentials=self._users)
        if isinstance(given, (Mapping, CredentialSource)):
            return options
        if id(given) not in self._sources:
            self._sources[id(given)] = given, KeptCredentials(credential_source(given))
        return replace(options, credentials=self._sources[id(given)][1])

    def ground(self, options: BuildOptions, endpoint: Endpoint | None) -> BuildOn:
        """Return a session of its own for a build, at an endpoint that need not be that of the others."""
        return _OnMany(self._walks, endpoint, options)

    def progress(self, name: str = "") -> BuildProgress:
        """Return what shows steps that are no engine's among those of the builds."""
        return BuildProgress(None if self._together is None else self._together.part(name))

    def close(self) -> None:
        """Give up what is kept for builds to come."""
        self._walks.forget()
        for unwatch in self._unwatch.values():
            unwatch()

    def _part(self, name: str, options: BuildOptions, engine: str) -> View | None:
        if self._together is None or self._together.view is None:
            return None
        access = options.access
        if access is not None and getattr(access, "asks_on_terminal", False) and id(access) not in self._unwatch:
            # All builds keep still while one of them has a question.
            self._unwatch[id(access)] = access.watch(self._together.view.hold)
        return self._together.part(name, engine=engine)


class _OnMany(BuildOn):
    """A session of its own, with the walks of the others."""

    def __init__(self, walks: SharedWalks, endpoint: Endpoint | None, options: BuildOptions) -> None:
        super().__init__(endpoint, options)
        self._walks = walks

    def session(self, prepared: Prepared) -> Session:
        """Return the session, not attached; what is listed from now on may be of use for others."""
        prepared.files.replace_sources(self._walks.share)
        return super().session(prepared)


@asynccontextmanager
async def _grounds(
    endpoint: Endpoint | None, options: Sequence[BuildOptions], *, one_session: bool
) -> AsyncIterator[Sequence[BuildOn | None]]:
    """Give what each build runs on, None for a session of its own."""
    if not one_session or not options:
        yield [None] * len(options)
        return
    from mobysession.build.one_session import open_one_session

    async with open_one_session(endpoint, options) as grounds:
        yield grounds


def _options(build: BuildOptions | Mapping[str, Any]) -> BuildOptions:
    if isinstance(build, BuildOptions):
        return build
    if not isinstance(build, Mapping):
        raise UsageError(
            f"a build is a BuildOptions or a mapping of its fields, not an object of type {type(build).__name__}"
        )
    fields = dict(build)
    return make_options(fields.pop("context", "."), fields)


def _names(options: Sequence[BuildOptions], given: Sequence[str]) -> list[str]:
    if isinstance(given, str):
        raise UsageError("names takes a list, not one string")
    if given and len(given) != len(options):
        raise UsageError(f"there are {len(options)} builds and {len(given)} names")
    found = list(given) or [each.target or next(iter(each.tags), "") for each in options]
    return [name if name and found.count(name) == 1 else f"{name or 'build'} {n}" for n, name in enumerate(found, 1)]


def _together(view: View | None) -> Together | None:
    if view is None:
        return None
    from mobysession.progress.together import Together

    return Together(view)

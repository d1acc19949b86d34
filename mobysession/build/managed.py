"""A build as a request of a managed session.

::

    async with manager.create(services=[]) as session:
        handle = await session.send(as_request(".", tags=["demo"]))
        result = await handle.result()

A build has a session ID of its own, because of how BuildKit remembers directories; see `ManagedSession.companion`. It
goes to the same daemon, under the same rules and approvals, what happens is an event of the managed session, and what
that hosts it hosts too: secrets, say, that all builds may have. The options of the run go over its own:
``session.send(request, no_cache=True)``. Its status is an event of kind ``build_status``, as often as the engine tells
something.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from mobysession.build.build import BuildOn, build_with, make_options
from mobysession.errors import UsageError
from mobysession.services.auth import Auth
from mobysession.session.attach import EndpointDialer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Unpack

    from mobysession.build.keywords import BuildKeywords
    from mobysession.build.options import BuildOptions
    from mobysession.build.prepare import Prepared
    from mobysession.build.result import BuildResult
    from mobysession.buildkit.status import BuildStatus
    from mobysession.filesync.sources import SourceLike
    from mobysession.llb import Definition, State
    from mobysession.progress.view import View
    from mobysession.rpc.registrar import Attachable
    from mobysession.session.managed.session import ManagedSession
    from mobysession.session.session import Session

__all__ = ["BuildRequest", "as_request"]

#: What the session has decided already.
_OF_THE_SESSION: Final = {"access": None, "attach": "auto", "tracing": None}


def as_request(
    context: SourceLike | State | Definition = ".",
    *,
    progress: str | View | None = None,
    on_status: Callable[[BuildStatus], None] | None = None,
    **options: Unpack[BuildKeywords],
) -> BuildRequest:
    """Return a build that a managed session can run; arguments as of `mobysession.build.build`.

    Raises:
        UsageError: an option makes no sense, or is decided by the session: ``access``, ``attach``, ``tracing``.
    """
    return BuildRequest(make_options(context, options), progress=progress, on_status=on_status)


class BuildRequest:
    """A build that a managed session can run, any number of times. Made by `as_request`."""

    #: It brings its services, so that none have to be chosen for a session that is made for it.
    brings_services = True

    def __init__(
        self,
        options: BuildOptions,
        *,
        progress: str | View | None = None,
        on_status: Callable[[BuildStatus], None] | None = None,
    ) -> None:
        for name, default in _OF_THE_SESSION.items():
            if getattr(options, name) != default:
                raise UsageError(f"{name} is decided by the session that the build runs on")
        self.options = options
        self._progress = progress
        self._on_status = on_status

    def __repr__(self) -> str:
        tags = f", tags={list(self.options.tags)}" if self.options.tags else ""
        return f"<BuildRequest of {self.options.context}{tags}>"

    async def __call__(self, session: ManagedSession) -> BuildResult:
        """Build on ``session``; errors as of `mobysession.build.build`. Cancel: the engine cancels the build."""
        dialer = session.origin.dialer
        if not isinstance(dialer, EndpointDialer):
            raise UsageError(
                f"a build needs a session to an endpoint, and this one has {session.origin.where}",
                hint="Give SessionConfig an endpoint, in place of a dialer or a dial_command.",
            )
        options = self.options
        given = dict(session.options)
        if given:
            options = make_options(given.pop("context", options.context), {**_kept(options), **given})
        if options.credentials is None and session.origin.config.credentials:
            options = replace(options, credentials=session.origin.config.credentials)

        def on_status(status: BuildStatus) -> None:
            if self._on_status is not None:
                self._on_status(status)
            session.feed.publish("build_status", status)

        return await build_with(
            options, progress=self._progress, on_status=on_status, on=_OnSession(session, dialer, options)
        )


class _OnSession(BuildOn):
    """A managed session, as what a build runs on."""

    def __init__(self, managed: ManagedSession, dialer: EndpointDialer, options: BuildOptions) -> None:
        self.dialer = dialer
        self.access = managed.access
        self._managed = managed
        self._options = options

    def session(self, prepared: Prepared) -> Session:
        """Return a session for this build, not attached."""
        return self._managed.companion(
            *self._services(prepared.services), shared_key=prepared.shared_key, name=prepared.name
        )

    def _services(self, services: Sequence[Attachable]) -> list[Attachable]:
        """Leave out the user's own logins where the session has some and the build has none of its own."""
        has_logins = any(isinstance(service, Auth) for service in self._managed.services)
        if not has_logins or self._options.credentials is not None:
            return list(services)
        return [service for service in services if not isinstance(service, Auth)]


def _kept(options: BuildOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__ if name != "context"}

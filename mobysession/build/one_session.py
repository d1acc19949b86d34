"""One session for several builds, where they are all that it serves.

A session answers a name with one directory, a secret's ID with one value. So builds can share one only if they ask for
the same: one context, one set of secrets, agents and logins. They differ in what is part of the solve: the stage, the
platforms, the arguments, the tags. What comes back over a session is told apart by a number that each solve counts for
itself, so nothing may come back.

An engine reads a directory once for all solves of a session and never looks again (moby/buildkit source/local,
CacheKey), which is what makes it worth it: several stages of a large context cost one transfer.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mobysession.build.build import BuildOn
from mobysession.errors import UsageError
from mobysession.session.session import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from mobysession.build.options import BuildOptions
    from mobysession.build.prepare import Prepared
    from mobysession.events import CallEnded, SessionEvent
    from mobysession.transport.endpoint import Endpoint

__all__ = ["open_one_session"]

#: What goes over a session, and so has to be the same.
_OVER_A_SESSION: Final = (
    *("context", "build_contexts", "secrets", "ssh", "credentials", "services", "access", "strict"),
    *("tracing", "driver", "attach"),
)
_HINT: Final = "Give each build a session of its own: leave one_session out."


@asynccontextmanager
async def open_one_session(endpoint: Endpoint | None, builds: Sequence[BuildOptions]) -> AsyncIterator[list[BuildOn]]:
    """Attach one session for all ``builds`` and give what each of them runs on, for the length of the block.

    What the engine reads of us is among the transfers of the first build's result.

    Raises:
        UsageError: the builds cannot share a session.
        As `mobysession.build.prepare.prepare` and `mobysession.session.session.Session.attach`.
    """
    for number, build in enumerate(builds, 1):
        _check(builds[0], build, number)
    ground = BuildOn(endpoint, builds[0])
    prepared = await ground.prepare(builds[0])
    session = ground.session(prepared)
    async with session.attach():
        yield [_OnShared(ground, session, prepared, number) for number in range(len(builds))]


def _check(first: BuildOptions, build: BuildOptions, number: int) -> None:
    for name in _OVER_A_SESSION:
        one, other = getattr(first, name), getattr(build, name)
        if one is not other and one != other:
            raise UsageError(f"build {number} cannot be on the session of the first: they differ in {name}", hint=_HINT)
    if _folder(first) != _folder(build):
        raise UsageError(
            f"build {number} cannot be on the session of the first: their Dockerfiles are in different directories",
            hint=_HINT,
        )
    if "-" in (build.context, build.file):
        raise UsageError("a build that reads stdin cannot share its session", hint=_HINT)
    if any(output.is_received for output in build.exports()):
        raise UsageError(f"build {number} has an output that the engine sends over its session", hint=_HINT)
    if any(cache.type == "local" for cache in (*build.imported_caches(), *build.exported_caches())):
        raise UsageError(f"build {number} has a local cache, which the engine reads over its session", hint=_HINT)


def _folder(build: BuildOptions) -> str:
    """Return the directory that the Dockerfile is read from; one in the context is there in all of them."""
    return "" if build.file is None else os.path.realpath(Path(build.file).parent)


class _OnShared(BuildOn):
    """A session that is attached already, as what one of several builds runs on."""

    def __init__(self, ground: BuildOn, session: Session, first: Prepared, number: int) -> None:
        self.dialer = ground.dialer
        self.access = ground.access
        self._session = session
        self._first = first
        self._number = number

    async def prepare(self, options: BuildOptions) -> Prepared:
        """Prepare a build that is served with what was prepared for the first."""
        if self._number == 0:
            return self._first
        prepared = await super().prepare(options)
        # Whoever gives a secret away tells this one, and every log has to be freed of it.
        return prepared._replace(redactor=self._first.redactor, services=self._first.services)

    def session(self, prepared: Prepared) -> Session:
        """Return the session, whose attaching is done."""
        return _Shared(self._session)


class _Shared(Session):
    """An attached session as one of its builds sees it: it is there for as long as the build is."""

    def __init__(self, session: Session) -> None:
        super().__init__(session._dialer, session_id=session.id, tracing=False)
        self._shared = session

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that are hosted."""
        return self._shared.methods

    def listen(self, listener: Callable[[SessionEvent], None]) -> None:
        """Call ``listener`` with what happens on the session, for whichever build."""
        self._shared.listen(listener)

    @asynccontextmanager
    async def attach(self, *, ready_timeout: float = 0.0) -> AsyncIterator[Session]:
        """Give the session, which is attached."""
        # Both lists are one, so that a build finds the failure of ours that its engine quotes.
        self.failures: list[CallEnded] = self._shared.failures
        self.attachment = self._shared.attachment
        yield self

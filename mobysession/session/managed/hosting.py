"""What a managed session hosts: attached when something needs it, and more of it for a while."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from mobysession.errors import MobysessionError, UsageError
from mobysession.session.managed.core import SessionCore
from mobysession.session.managed.methods import Methods, audience_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mobysession.rpc.registrar import Attachable
    from mobysession.session.session import Session

__all__ = ["HostingSession"]


class HostingSession(SessionCore):
    """A session that can be attached. The operations are those of its subclass, `ManagedSession`."""

    async def session_id(self) -> str:
        """Return its ID once the daemon has confirmed it, for which it is attached if it is not; errors as `mount`."""
        if not self._resolved.is_set():
            await self.mount()
        await trio.lowlevel.checkpoint()
        return self.id

    async def wait_resolved(self) -> None:
        """Wait until the daemon has confirmed it, without attaching it."""
        await self._resolved.wait()

    async def mount(self) -> None:
        """Attach the session, so that its methods can be called; nothing happens where it is attached.

        Raises:
            TransportError, SessionNotReady: it could not be opened, and has failed.
            SessionOver: it is over already.

        Cancel: it is not attached.
        """
        self.refuse_over()
        await self.attach()

    async def attach(self) -> None:
        """As `mount`, also while the session is closing: what is in flight then is still worked off."""
        link = self._link
        if link is None or self.is_terminal:
            self.refuse_over()
            return
        if link.attached:
            await trio.lowlevel.checkpoint()
            return
        try:
            await link.attach()
        except MobysessionError as error:
            self.fail(error)
            raise

    @asynccontextmanager
    async def hosting(self, *services: Attachable, shared_key: str = "", name: str = "") -> AsyncIterator[Session]:
        """Host more services for the length of the block, in place of those with the same methods; attached.

        A session that is attached and has not told the daemon of their methods is attached anew, which on a hijacked
        connection takes up to some seconds. For a build with directories see `companion`.

        Args:
            shared_key, name: of the session where it has none yet and is attached for the first time.

        Yields: the session as it is attached.

        Raises:
            UsageError: two of the services have the same method.
            TransportError, SessionNotReady: it could not be attached, and has failed.
        """
        link = self._link
        if link is None or self.is_terminal:
            self.refuse_over()
        assert link is not None
        try:
            await link.fit(services, shared_key, name)
        except UsageError:
            raise
        except MobysessionError as error:
            self.fail(error)
            raise
        with self.bare.hosting(*services):
            self.hosted.append(services)
            try:
                yield self.bare
            finally:
                self.hosted.remove(services)

    def companion(self, *services: Attachable, shared_key: str = "", name: str = "") -> Session:
        """Return a session with another ID to the same daemon, for one build; attach it where it is needed.

        It is under the same rules and approvals, what happens on it is told as events of this one, and what this one
        hosts it hosts too, except where ``services`` have the same methods. A build needs an ID of its own: BuildKit
        takes a directory of the same name, asked for under the same session ID, for one that it has read already, and
        never looks again (moby/buildkit source/local, CacheKey).

        Raises:
            UsageError: two of the services have the same method.
            SessionOver: the session is over.
        """
        if self.is_terminal:
            self.refuse_over()
        companion = self._make_session(None, name, shared_key)
        companion.allow(*services)
        for service in self.services:
            hosted = Methods(self.id, (service,)).names
            if audience_of(service) != "client" and not any(method in companion.methods for method in hosted):
                companion.allow(service)
        self.companions.add(companion)
        recorder = self._whole.recorder
        if recorder is not None and not recorder.is_stopped and companion.observe is None:
            recorder.watch(companion)
        return companion

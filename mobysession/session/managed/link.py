"""The attachment of a managed session: made when it is needed, kept by one task, made anew when it no longer fits.

The daemon is told what a session hosts when it is attached, and never again. A request that brings services whose
methods it was not told of therefore has the session attached anew, under the same ID. On a hijacked connection that
takes as long as the engine takes to let the old one go; see `mobysession.limits.RESUME_PATIENCE`. What was told once is
told again, so that it happens once for each kind of request and not at each change between two.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from mobysession import limits
from mobysession.errors import MobysessionError, SessionIdInUse
from mobysession.rpc.registrar import Registrar

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from mobysession.rpc.registrar import Attachable
    from mobysession.session.session import Session

__all__ = ["Link"]

_log = logging.getLogger("mobysession.session")


class Link:
    """Attaches a session and keeps it attached.

    Args:
        session: the bare session.
        nursery: where the task runs that keeps it.
        ready_timeout: seconds that the daemon has to speak HTTP/2 on a session that it accepted.
        patience: seconds for which an ID that the daemon still has is asked for again.
        patient_at_first: also the first time: the session is one that is resumed.
        inside: the scope in which the session's calls are served.
        on_change: is told whether the session is attached, after each change.
        on_lost: is told why it is not any more.
    """

    def __init__(
        self,
        session: Session,
        nursery: trio.Nursery,
        *,
        ready_timeout: float,
        patience: float,
        patient_at_first: bool,
        inside: Callable[[], AbstractContextManager[None]],
        on_change: Callable[[bool], None],
        on_lost: Callable[[MobysessionError], None],
    ) -> None:
        self.session = session
        self._nursery = nursery
        self._ready_timeout = ready_timeout
        self._patience = patience
        self._patient = patient_at_first
        self._inside = inside
        self._on_change = on_change
        self._on_lost = on_lost
        #: One change at a time.
        self._changing = trio.Lock()
        #: Set to let the keeper go; None while there is none.
        self._leave: trio.Event | None = None
        self._left = trio.Event()

    @property
    def attached(self) -> bool:
        """True while the session is attached, and was seen ready."""
        return self._leave is not None

    async def attach(self) -> None:
        """Attach the session if it is not; errors as `mobysession.session.session.Session.attach`.

        Cancel: the connection that was being made is closed.
        """
        async with self._changing:
            if self._leave is None:
                await self._attach()

    async def detach(self) -> None:
        """End the attachment in order, if there is one. Cancel: it ends all the same."""
        async with self._changing:
            await self._detach()

    async def fit(self, services: tuple[Attachable, ...], shared_key: str, name: str) -> None:
        """Attach the session so that the methods of some services can be hosted; see `ManagedSession.hosting`.

        Raises:
            UsageError: two of them have the same method.
        """
        probe = Registrar(self.session.id)
        for service in services:
            service.register(probe)
        self.session.expected.update(probe.methods)
        async with self._changing:
            wanted = {name.lower() for name in self.session.granted(probe.methods)}
            if self._leave is not None and not wanted <= self.session.advertised:
                _log.info("session %s is attached anew: the daemon is to be told of more methods", self.session.id)
                await self._detach()
            if self._leave is None:
                # The first that brings them names the session: the engine reads them when it is attached.
                self.session.shared_key = self.session.shared_key or shared_key
                self.session.name = self.session.name or name
                await self._attach()

    async def _attach(self) -> None:
        deadline = trio.current_time() + (self._patience if self._patient else 0.0)
        while True:
            try:
                await self._nursery.start(self._keep)
            except SessionIdInUse:
                if trio.current_time() + limits.RESUME_PAUSE > deadline:
                    raise
                await trio.sleep(limits.RESUME_PAUSE)
            else:
                self._patient = True
                return

    async def _detach(self) -> None:
        if self._leave is not None:
            self._leave.set()
            await self._left.wait()

    async def _keep(self, task_status: trio.TaskStatus[None]) -> None:
        began = False
        try:
            with self._inside():
                async with self.session.attach(ready_timeout=self._ready_timeout):
                    leave = self._leave = trio.Event()
                    self._left = trio.Event()
                    began = True
                    self._on_change(True)
                    task_status.started()
                    await leave.wait()
        except MobysessionError as error:
            if not began:
                raise
            self._leave = None
            self._on_lost(error)
        finally:
            if began:
                asked = self._leave is not None and self._leave.is_set()
                self._leave = None
                self._left.set()
                if asked:
                    self._on_change(False)

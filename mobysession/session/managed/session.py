"""What a program does on a managed session: runs, calls from this side, children, interruptions, snapshots.

::

    async with manager.create(services=[Secrets({"token": b"..."})]) as session:
        handle = await session.send(build_request("."))
        async for event in handle:
            print(event.kind)
        print(await handle.result())

Queueing, sending, running, spawning and dispatching go through what was added with `ManagedSession.use`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio

from mobysession import limits
from mobysession.errors import UsageError
from mobysession.services.health import Health
from mobysession.session.managed.channels import MESSAGES
from mobysession.session.managed.hosting import HostingSession
from mobysession.session.managed.lifecycle import SessionSnapshot
from mobysession.session.managed.methods import Methods
from mobysession.session.managed.middleware import Operation, call_through

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from mobysession.recording import Recording
    from mobysession.session.managed.channels import QueueChanged
    from mobysession.session.managed.handle import RunHandle
    from mobysession.session.managed.inbox import InboxStorage
    from mobysession.session.managed.inspection import SessionInspection
    from mobysession.session.managed.methods import MethodInfo
    from mobysession.session.managed.middleware import Middleware
    from mobysession.session.managed.runs import Request, SchedulerState
    from mobysession.session.recorder.managed import ManagedRecorder
    from mobysession.session.recorder.recorder import RecordingMode

__all__ = ["ManagedSession"]

_log = logging.getLogger("mobysession.session")
_NOTHING: Mapping[str, Any] = {}


class ManagedSession(HostingSession):
    """A session with runs. Made by `mobysession.session.managed.manager.SessionManager`."""

    _middleware: tuple[Middleware, ...] = ()
    _options: Mapping[str, Any] = _NOTHING
    _persist: tuple[Callable[[SessionSnapshot], Awaitable[None] | None], ...] = ()
    _inbox: InboxStorage | None = None
    #: What records it, or did; None before `start_recording`.
    recorder: ManagedRecorder | None = None

    # -- runs ----------------------------------------------------------------------------------------------------------

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of the request that is worked on; else those that runs begin with."""
        return self._options or self.origin.options

    @property
    def queued(self) -> tuple[Any, ...]:
        """The requests that wait, in order; a copy."""
        return self.runs.queued

    @property
    def current_run(self) -> int:
        """The number of the present run, or of the latest one; 0 before the first."""
        return self.runs.number

    @property
    def is_aborted(self) -> bool:
        """True from an interruption of a run until `clear_abort`; no run or child can be begun meanwhile."""
        return self.runs.aborted

    @property
    def scheduler_state(self) -> SchedulerState:
        """What goes on with its requests; each change is an event of kind ``scheduler``."""
        return self.runs.state

    def use(self, middleware: Middleware) -> None:
        """Put ``middleware`` around the operations from now on, inside of what is there; see `Operation`."""
        self._middleware = (*self._middleware, middleware)

    async def queue(
        self, request: Request, *, middleware: Sequence[Middleware] = (), context: Mapping[str, Any] = _NOTHING
    ) -> None:
        """Hold a request for the next run, without beginning one; during a run, for that one.

        Args:
            request: a build, see `mobysession.build.as_request`, or any async function of the session.
            middleware, context: for this call only.

        Raises:
            UsageError: it is no function.
            SessionOver: the session is over.
        """

        async def queue(operation: Operation) -> None:
            self.refuse_over()
            self.runs.add(operation.request)
            await trio.lowlevel.checkpoint()

        await self._through("queue", queue, middleware, context, request=request)

    async def send(
        self,
        request: Request | None = None,
        *,
        middleware: Sequence[Middleware] = (),
        context: Mapping[str, Any] = _NOTHING,
        **options: Any,
    ) -> RunHandle:
        """Begin a run, or join the one that goes on, with one more request.

        Args:
            request: as for `queue`; None: what is queued.
            middleware, context: for this call only.
            **options: of the run; for one that goes on, of what is not begun yet.

        Returns: the run's handle, the same for all who join it.

        Raises:
            UsageError: the request is no function.
            SessionError: the session was interrupted, and that was not cleared.
            SessionOver: it is over.
        """

        async def send(operation: Operation) -> RunHandle:
            await trio.lowlevel.checkpoint()
            self.refuse_over()
            if operation.request is not None:
                self.runs.refuse_aborted()
                self.runs.add(operation.request)
            return self.runs.join(operation.options)

        found: RunHandle = await self._through("send", send, middleware, context, request=request, options=options)
        return found

    async def run(
        self, *, middleware: Sequence[Middleware] = (), context: Mapping[str, Any] = _NOTHING, **options: Any
    ) -> RunHandle:
        """Run what is queued with ``options``; during a run, give them to what is not begun yet.

        Returns: the run's handle; an empty one that is settled where nothing is queued. Errors as `send`.
        """

        async def run(operation: Operation) -> RunHandle:
            await trio.lowlevel.checkpoint()
            self.refuse_over()
            return self.runs.join(operation.options)

        found: RunHandle = await self._through("run", run, middleware, context, options=options)
        return found

    async def carry_out(self, request: Any, run: RunHandle) -> Any:
        """Run one request; only for the session's own scheduler."""
        self._options = dict(run.options)
        try:
            if not getattr(request, "attaches", False):
                await self.attach()
            return await request(self)
        finally:
            self._options = _NOTHING

    async def interrupt(self, request: Request | None = None, reason: str | None = None) -> None:
        """End the run that goes on, which cancels what it has asked the daemon for; then queue a request.

        The handle's result is a `RunInterrupted`; what was queued stays. Children are interrupted too. Without a run
        this only queues.

        Raises:
            SessionOver: the session is over.
        """
        self.refuse_over()
        self.runs.interrupt(reason)
        for child in tuple(self.children):
            if not child.is_over:
                await child.interrupt(reason=reason)
        if request is not None:
            self.runs.add(request)
        await trio.lowlevel.checkpoint()

    def clear_abort(self) -> None:
        """Let runs begin again after an interruption."""
        self.runs.aborted = False

    # -- calls from this side ------------------------------------------------------------------------------------------

    def methods(self) -> tuple[MethodInfo, ...]:
        """Return every method that is hosted now: name, alias, cardinality, audience, JSON schema of its request."""
        return self._methods().describe()

    async def dispatch(
        self,
        method: str,
        request: Message | Mapping[str, Any] | bytes | Sequence[Any] | None = None,
        *,
        middleware: Sequence[Middleware] = (),
        context: Mapping[str, Any] = _NOTHING,
    ) -> Any:
        """Call a hosted method from this side, whatever its audience; the session is attached first if it is not.

        It returns once the handler has: never for a method that answers for ever, as ``Watch`` of health does, unless
        it is cancelled. `close` waits for calls that get one answer.

        Args:
            method: its name or its alias.
            request: a message, a mapping of its fields, or its bytes; a list of them where the method takes several.
            middleware, context: for this call only.

        Returns: the answer, a list where there may be several; raw bytes where nobody says what they are.

        Raises:
            UsageError: there is no such method, or the request does not fit it; nothing was called.
            RpcError: the handler's status.
            SessionOver: the session is over.
        """

        async def dispatch(operation: Operation) -> Any:
            methods = self._methods()
            prepared = methods.prepare(operation.method, operation.request)
            with self.in_flight(awaited=prepared.method.cardinality.one_answer):
                await self.mount()
                return await methods.call(prepared)

        return await self._through("dispatch", dispatch, middleware, context, request=request, method=method)

    def submit_approval(
        self,
        call_id: int,
        approved: bool,
        replacement: Message | Mapping[str, Any] | None = None,
        reason: str | None = None,
    ) -> None:
        """Answer a request that waits on the channel ``approvals``.

        Args:
            call_id: as in the `ApprovalAsked`.
            approved: grant it.
            replacement: what is answered in place of the request, as a message or as its fields; only where it is
                approved, and its method takes one message.
            reason: told to whoever listens.

        Raises:
            UsageError: nothing of this number waits.
        """
        self.approvals.submit(call_id, approved, replacement, reason)

    # -- children ------------------------------------------------------------------------------------------------------

    async def spawn(
        self,
        request: Request,
        *,
        middleware: Sequence[Middleware] = (),
        context: Mapping[str, Any] = _NOTHING,
        **overrides: Any,
    ) -> RunHandle:
        """Run a request to its end on a child: a session with an ID and a connection of its own.

        Args:
            request: as for `queue`.
            middleware, context: for this call only.
            **overrides: of what it otherwise inherits: ``services``, ``metadata``, ``options``, ``name``,
                ``shared_key``, and the fields of `SessionConfig`.

        Returns: the handle of the child's run; the child is its ``session``.

        Raises:
            UsageError: it would be a child of the tenth generation, or an override makes no sense.
            SessionError: the session was interrupted, and that was not cleared.
            SessionOver: the session is over.
        """

        async def spawn(operation: Operation) -> RunHandle:
            from mobysession.session.managed.children import spawn_child

            self.refuse_over()
            self.runs.refuse_aborted()
            return await spawn_child(self, operation.request, operation.options)

        found: RunHandle = await self._through("spawn", spawn, middleware, context, request=request, options=overrides)
        return found

    # -- memory --------------------------------------------------------------------------------------------------------

    def snapshot(self) -> SessionSnapshot:
        """Return what the session can be resumed from, in this process or another one."""
        return SessionSnapshot(
            session_id=self.id,
            shared_key=self.bare.shared_key,
            name=self.bare.name,
            created_at=self.created_at,
            runs=self.runs.number,
            sequence=self.feed.sequence,
            parent_session_id=self.parent_session_id,
            metadata=dict(self.metadata),
            options=_plain(self.origin.options),
        )

    def on_persist(self, callback: Callable[[SessionSnapshot], Awaitable[None] | None]) -> None:
        """Call ``callback`` with a snapshot after each run, in order; an async one is awaited before the close."""
        self._persist = (*self._persist, callback)

    def run_settled(self) -> None:
        """Take the end of a run once everybody was told."""
        if self._persist and self._nursery is not None:
            self.nursery.start_soon(self._persist_now, self.snapshot())
        super().run_settled()

    async def _persist_now(self, snapshot: SessionSnapshot) -> None:
        # What was done is kept, also when the block is being left; one run after the other, so that the latest is last.
        with trio.CancelScope(shield=True):
            async with self._persisting:
                for callback in self._persist:
                    await self._persist_with(callback, snapshot)

    async def _persist_with(
        self, callback: Callable[[SessionSnapshot], Awaitable[None] | None], snapshot: SessionSnapshot
    ) -> None:
        try:
            with trio.move_on_after(limits.PERSIST_TIMEOUT):
                done = callback(snapshot)
                if isinstance(done, Awaitable):
                    await done
        except Exception as error:  # of any kind: the function is not ours
            _log.warning("session %s could not be kept: %s", self.id, type(error).__name__)

    # -- recording -----------------------------------------------------------------------------------------------------

    def start_recording(self, mode: RecordingMode = "full", *, frames: bool = False) -> None:
        """Record what is said on the session from now on; while it is recorded, only change the mode.

        Its builds, which have connections of their own, are recorded too; its children are not. After
        `stop_recording` this begins another recording.

        Args:
            mode: ``full`` keeps every call with what was said, secrets excepted; ``lightweight`` its sizes and times.
            frames: keep the frames of HTTP/2 too, of connections that begin from now on.

        Raises:
            UsageError: there is no such mode.
            SessionOver: the session is over.
        """
        from mobysession.session.recorder.managed import start_recording

        self.refuse_over()
        self.recorder = start_recording(self, mode, frames=frames)

    def stop_recording(self) -> None:
        """Record no more; what was recorded is kept as ``recording``. Nothing happens where nothing is recorded."""
        if self.recorder is not None:
            self.recorder.stop()

    @property
    def recording(self) -> Recording | None:
        """What was recorded so far, without secrets; None where that was never begun."""
        return None if self.recorder is None else self.recorder.recording

    def snapshot_at(self, run: int) -> SessionSnapshot | None:
        """Return the snapshot of the end of a run, counted from 1; None where that run was not recorded to its end."""
        return None if self.recorder is None else self.recorder.snapshots.get(run)

    # -- inbox ---------------------------------------------------------------------------------------------------------

    def set_inbox_storage(
        self, storage: InboxStorage, on_message: Callable[[Any], Awaitable[None] | None] | None = None
    ) -> None:
        """Keep messages between sessions in ``storage``.

        Args:
            storage: e.g. `mobysession.state.inbox.InboxStorage`.
            on_message: is given each message that was left for this session, from when it is attached on, oldest first;
                one is done with when the function returns. Without it they wait.

        Raises:
            SessionOver: the session is over.
        """
        from mobysession.session.managed.inbox import process_inbox

        self.refuse_over()
        self._inbox = storage
        if on_message is not None:
            self.nursery.start_soon(process_inbox, self, storage, on_message)

    async def notify_parent(self, message: object) -> None:
        """Leave a message, a JSON value, for the session that this one works for; durable when it returns.

        Raises:
            UsageError: there is no parent, or no storage.
        """
        if self.parent_session_id is None:
            raise UsageError(f"session {self.id} has no parent to be notified")
        storage = self._inbox or (self.parent._inbox if self.parent is not None else None)
        if storage is None:
            raise UsageError("there is no inbox", hint="Call set_inbox_storage() first.")
        await storage.put(self.parent_session_id, message, sender=self.id)

    # -- for whoever looks at it ---------------------------------------------------------------------------------------

    def inspect(self) -> SessionInspection:
        """Return how it is now: status, connection, open calls, last outputs, totals, services."""
        from mobysession.session.managed.inspection import inspect_session

        return inspect_session(self)

    def queue_changed(self, change: QueueChanged) -> None:
        """Tell that the queue has changed; only for the session's own scheduler."""
        self.channel(MESSAGES).publish(change)

    def _methods(self) -> Methods:
        return Methods(self.id, (Health(),), self.services, *self.hosted)

    async def _through(
        self,
        name: str,
        innermost: Callable[[Operation], Awaitable[Any]],
        middleware: Sequence[Middleware],
        context: Mapping[str, Any],
        *,
        request: Any = None,
        method: str = "",
        options: Mapping[str, Any] = _NOTHING,
    ) -> Any:
        operation = Operation(name=name, session=self, request=request, method=method, options=options)
        return await call_through((*self._middleware, *middleware), operation, context, innermost)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options that are JSON values."""
    import json

    found = {}
    for name, value in options.items():
        try:
            found[name] = json.loads(json.dumps(value))
        except (TypeError, ValueError):
            _log.debug("option %s is no JSON value and not part of a snapshot", name)
    return found

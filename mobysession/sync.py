"""The front door for blocking code: the same names and options, no event loop to see.

A build runs trio in the calling thread, so that Ctrl-C cancels it wherever it waits. A session lives in a thread of
its own while the ``with`` block runs; what goes wrong with it meanwhile is raised at the end of the block. So does
a build that is watched while it runs.
"""

from __future__ import annotations

import contextvars
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import trio

from mobysession.build.build import build as _build
from mobysession.errors import MobysessionError, RpcError, SessionError, SessionLost, UsageError
from mobysession.rpc.keepalive import SESSION_KEEPALIVE
from mobysession.session.session import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import Unpack

    from mobysession.bake.keywords import BakeKeywords
    from mobysession.build.keywords import BuildKeywords, ManyKeywords
    from mobysession.build.many import OnStatus
    from mobysession.build.nodes import Nodes
    from mobysession.build.options import BuildOptions
    from mobysession.build.result import BuildResult
    from mobysession.build.running import RunningBuild
    from mobysession.buildkit.status import BuildStatus
    from mobysession.filesync.sources import SourceLike
    from mobysession.llb import Definition, State
    from mobysession.progress.view import View
    from mobysession.rpc.inspection import Inspection
    from mobysession.rpc.keepalive import Keepalive
    from mobysession.rpc.registrar import Attachable
    from mobysession.session.access import Access
    from mobysession.session.attach import Dialer
    from mobysession.session.managed.config import SessionConfig
    from mobysession.session.managed.runs import Request
    from mobysession.session.tracing import Tracing
    from mobysession.transport.endpoint import Endpoint

__all__ = [
    "BlockingBuild",
    "BlockingSession",
    "bake",
    "build",
    "build_many",
    "build_on",
    "open_build",
    "open_session",
    "run_once",
]

T = TypeVar("T")


def build(
    context: SourceLike | State | Definition = ".",
    *,
    endpoint: Endpoint | None = None,
    progress: str | View | None = None,
    on_status: Callable[[BuildStatus], None] | None = None,
    **options: Unpack[BuildKeywords],
) -> BuildResult:
    """Build an image; see `mobysession.build.build`, whose arguments, result and errors are the same.

    Ctrl-C cancels the build on the engine and is raised as KeyboardInterrupt. Inside a running asyncio loop, as in a
    notebook, this works and holds the loop up meanwhile; trio code gets a UsageError and awaits the other `build`.
    """
    run = partial(_build, context, endpoint=endpoint, progress=progress, on_status=on_status, **options)
    return _run("mobysession.build.build(...)", run)


@overload
def build_many(
    builds: Sequence[BuildOptions | Mapping[str, Any]],
    *,
    return_errors: Literal[False] = ...,
    **options: Unpack[ManyKeywords],
) -> list[BuildResult]: ...


@overload
def build_many(
    builds: Sequence[BuildOptions | Mapping[str, Any]], *, return_errors: bool, **options: Unpack[ManyKeywords]
) -> list[BuildResult | MobysessionError]: ...


def build_many(
    builds: Sequence[BuildOptions | Mapping[str, Any]], *, return_errors: bool = False, **options: Unpack[ManyKeywords]
) -> list[BuildResult] | list[BuildResult | MobysessionError]:
    """Build several images; see `mobysession.build.many.build_many`, whose arguments, results and errors are the same.

    Ctrl-C cancels all builds on the engine; running loops are as with `build`.
    """
    from mobysession.build.many import build_many as _build_many

    return _run(
        "mobysession.build.build_many(...)", partial(_build_many, builds, return_errors=return_errors, **options)
    )


def build_on(
    nodes: Nodes,
    context: SourceLike | State | Definition = ".",
    *,
    progress: str | View | None = None,
    on_status: OnStatus | None = None,
    **options: Unpack[BuildKeywords],
) -> BuildResult:
    """Build on several engines; see `mobysession.build.nodes.build_on`: arguments, result and errors are the same.

    Ctrl-C cancels the builds on all of them; running loops are as with `build`.
    """
    from mobysession.build.nodes import build_on as _build_on

    return _run(
        "mobysession.build.build_on(...)",
        partial(_build_on, nodes, context, progress=progress, on_status=on_status, **options),
    )


def bake(targets: str | Sequence[str] = (), **options: Unpack[BakeKeywords]) -> dict[str, BuildResult]:
    """Build the targets of bake files; see `mobysession.bake.bake`, whose arguments, result and errors are the same.

    Ctrl-C and running loops are as with `build`.
    """
    from mobysession.bake.bake import bake as _bake

    return _run("mobysession.bake.bake(...)", partial(_bake, targets, **options))


def run_once(
    request: Request,
    services: Iterable[Attachable] | None = None,
    *,
    config: SessionConfig | None = None,
    **options: Any,
) -> Any:
    """Run one request in a managed session of its own, and return its result; see `SessionManager.run_once`.

    Args:
        request: a build, see `mobysession.build.as_request`, or an async function of the session, which runs on trio.
        services, options: as for `mobysession.SessionManager.create`.
        config: the defaults; None: what the environment says, see `mobysession.SessionConfig.from_env`.

    Errors are those of the request and of the session; Ctrl-C and running loops are as with `build`.
    """

    async def run() -> Any:
        from mobysession.session.managed.config import SessionConfig as Config
        from mobysession.session.managed.manager import SessionManager

        manager = SessionManager(config if config is not None else Config.from_env())
        return await manager.run_once(request, services, **options)

    return _run("mobysession.SessionManager.run_once(...)", run)


class BlockingBuild:
    """A build that runs, seen from blocking code: something to iterate over. Made by `open_build`."""

    def __init__(self, running: RunningBuild, token: trio.lowlevel.TrioToken) -> None:
        self._running = running
        self._token = token

    def __iter__(self) -> Iterator[BuildStatus]:
        return self

    def __next__(self) -> BuildStatus:
        """Wait for news and return the status, a copy at each turn; errors as of the other `build`."""
        try:
            status = trio.from_thread.run(self._running._next_copy, trio_token=self._token)
        except trio.RunFinishedError:
            # As in `wait`.
            status = self._running._last_copy()
        if status is None:
            raise StopIteration
        return status

    def wait(self) -> BuildResult:
        """Wait for the end and return the result; errors as of the other `build`."""
        try:
            return trio.from_thread.run(self._running.wait, trio_token=self._token)
        except trio.RunFinishedError:
            # The block has ended, and with it the loop; what there was to say is still known.
            return self._running._settled()


@contextmanager
def open_build(
    context: SourceLike | State | Definition = ".",
    *,
    endpoint: Endpoint | None = None,
    progress: str | View | None = None,
    **options: Unpack[BuildKeywords],
) -> Iterator[BlockingBuild]:
    """Build while the ``with`` block runs; see `mobysession.build.open_build`.

    An exception that leaves the block, as that of Ctrl-C, cancels the build on the engine. Inside a running loop
    it is as with `build`.
    """
    _refuse_in_trio("mobysession.build.open_build(...)")
    from mobysession.build.running import open_build as opened

    host = _Host(partial(opened, context, endpoint=endpoint, progress=progress, **options))
    with _hosted(host, "mobysession build") as token:
        running: RunningBuild = host.opened
        yield BlockingBuild(running, token)
        trio.from_thread.run(running._leave, trio_token=token)


class BlockingSession:
    """An attached session, seen from blocking code. Made by `open_session`."""

    def __init__(self, session: Session, token: trio.lowlevel.TrioToken) -> None:
        self._session = session
        self._token = token

    @property
    def id(self) -> str:
        """The session's ID, to be named in a build request."""
        return self._session.id

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that are hosted, as they are advertised."""
        return self._session.methods

    @property
    def settings(self) -> dict[str, int]:
        """The daemon's HTTP/2 settings by name."""
        return self._session.settings

    def ping(self) -> float:
        """Return the round trip to the daemon in seconds.

        Raises:
            SessionLost: the session has ended.
        """
        try:
            return trio.from_thread.run(self._session.ping, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled, RpcError) as error:
            raise SessionLost(f"session {self.id} has ended") from error

    def inspect(self) -> Inspection:
        """Return how the session's connection is; see `mobysession.session.Session.inspect`.

        Raises:
            SessionLost: the session has ended.
        """
        try:
            return trio.from_thread.run_sync(self._session.inspect, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled, SessionError) as error:
            raise SessionLost(f"session {self.id} has ended") from error


@contextmanager
def open_session(
    target: Endpoint | Dialer | None = None,
    *services: Attachable,
    attach: str = "auto",
    session_id: str | None = None,
    name: str = "",
    shared_key: str = "",
    keepalive: Keepalive | None = SESSION_KEEPALIVE,
    access: Access | None = None,
    tracing: Tracing | Literal[False] | None = None,
) -> Iterator[BlockingSession]:
    """Open a session for the length of the ``with`` block; arguments and errors as `mobysession.open_session`.

    A session that is lost while the block runs is raised at the block's end; what the block itself raises comes first.
    Ctrl-C ends the block, and the session with it. Inside a running loop it is as with `build`.
    """
    _refuse_in_trio("mobysession.open_session(...)")
    session = Session(
        target,
        attach=attach,
        session_id=session_id,
        name=name,
        shared_key=shared_key,
        keepalive=keepalive,
        access=access,
        tracing=tracing,
    )
    session.allow(*services)
    with _hosted(_Host(session.attach), f"mobysession {session.id}") as token:
        yield BlockingSession(session, token)


@contextmanager
def _hosted(host: _Host, name: str) -> Iterator[trio.lowlevel.TrioToken]:
    """Let ``host`` run in a thread for the length of the block, and raise afterwards what it ended with."""
    context = contextvars.copy_context()  # callbacks see the context variables of who called
    thread = threading.Thread(target=context.run, args=(host.run,), name=name, daemon=True)
    thread.start()
    try:
        yield host.wait_ready()
    finally:
        host.stop()
        thread.join()
    host.raise_failure()


def _run(other: str, function: Callable[[], Awaitable[T]]) -> T:
    """Run ``function`` in a loop of its own; ``other`` is what trio code calls instead."""
    _refuse_in_trio(other)
    return trio.run(function, restrict_keyboard_interrupt_to_checkpoints=True)


def _refuse_in_trio(other: str) -> None:
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return
    raise UsageError("mobysession.sync cannot be used inside a running trio loop", hint=f"Use {other} there.")


class _Host:
    """A trio loop in a thread, for what ``manager`` opens: a session, or a build."""

    def __init__(self, manager: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._manager = manager
        self.opened: Any = None
        self._ready = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._stopped = False
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:
            self._failure = error
        self._ready.set()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        if self._stopped:
            # Before there was a token to be told with.
            return
        with self._scope:
            async with self._manager() as self.opened:
                self._ready.set()
                await trio.sleep_forever()

    def wait_ready(self) -> trio.lowlevel.TrioToken:
        self._ready.wait()
        self.raise_failure()
        if self._token is None:
            raise RuntimeError("the session's loop did not start")
        return self._token

    def stop(self) -> None:
        self._stopped = True
        if self._token is None:
            return
        try:
            self._token.run_sync_soon(self._scope.cancel)
        except trio.RunFinishedError:
            return

    def raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

"""The fake daemon for tests that do not run trio: on a unix socket, in a thread with a loop of its own."""

from __future__ import annotations

import importlib
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import trio

from mobysession.testing.fake_daemon import FakeDaemon

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from mobysession.testing.caller import CallRecord, FakeCaller
    from mobysession.transport.endpoint import Endpoint

__all__ = ["BlockingFakeDaemon", "SessionSnapshot"]

Result = TypeVar("Result")

#: Parts of the daemon that load themselves when a client first needs them.
_LOADED_LATE = ("caller", "classic", "frontend", "script", "solver")


@dataclass(frozen=True)
class SessionSnapshot:
    """A session as it was at one moment: what the client gave, and the calls that had ended."""

    id: str
    name: str
    shared_key: str
    methods: tuple[str, ...]
    calls: tuple[CallRecord, ...]


class BlockingFakeDaemon:
    """A `FakeDaemon` that listens for the length of a ``with`` block.

    ::

        with BlockingFakeDaemon() as daemon:
            result = mobysession.sync.build(".", endpoint=daemon.endpoint)
            caller = daemon.call(daemon.daemon.wait_session)         # async code, run in the daemon's loop

    Args:
        path: unix socket to listen on; None: one in a temporary directory.
        options: as `FakeDaemon`.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, **options: Any) -> None:
        self._path = path
        self._options = options
        self._thread = threading.Thread(target=self._run, name="fake daemon", daemon=True)
        self._settled = threading.Event()
        self._daemon: FakeDaemon | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: trio.Event | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        # Two threads that load protobuf for the first time can trip over its circular imports.
        for part in _LOADED_LATE:
            importlib.import_module(f"mobysession.testing.{part}")
        self._thread.start()
        self._settled.wait()
        self._raise_failure()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None and self._stop is not None:
            # A daemon that is gone already has its reason, which is raised below.
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)
        self._thread.join()
        self._raise_failure()

    @property
    def daemon(self) -> FakeDaemon:
        """The daemon itself. It belongs to its own loop: use it through `call`, but for its settings."""
        assert self._daemon is not None, "the fake daemon does not run; enter it first"
        return self._daemon

    @property
    def host(self) -> str:
        """The address as ``DOCKER_HOST`` takes it."""
        return self.daemon.host

    @property
    def endpoint(self) -> Endpoint:
        """The address as mobysession takes it."""
        return self.daemon.endpoint

    @property
    def requests(self) -> list[tuple[str, str]]:
        """What was asked over HTTP/1.1 so far: method and path."""
        return self._soon(lambda: list(self.daemon.requests))

    @property
    def sessions(self) -> tuple[SessionSnapshot, ...]:
        """All sessions there were, the ended ones first."""
        return self._soon(lambda: tuple(map(_snapshot, (*self.daemon.ended, *self.daemon.sessions.values()))))

    def call(self, function: Callable[..., Awaitable[Result]], *args: object) -> Result:
        """Run an async function in the daemon's loop and return its result: ``call(daemon.daemon.wait_session)``."""
        return trio.from_thread.run(function, *args, trio_token=self._token)

    def _soon(self, function: Callable[[], Result]) -> Result:
        return trio.from_thread.run_sync(function, trio_token=self._token)

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:
            self._failure = error
        finally:
            self._settled.set()

    async def _main(self) -> None:
        async with FakeDaemon.listen(self._path, **self._options) as daemon:
            self._daemon = daemon
            self._token = trio.lowlevel.current_trio_token()
            self._stop = trio.Event()
            self._settled.set()
            await self._stop.wait()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def _snapshot(caller: FakeCaller) -> SessionSnapshot:
    return SessionSnapshot(caller.id, caller.name, caller.shared_key, caller.methods, tuple(caller.calls))

"""What a plain function of a grpcio servicer sees of its call, from whatever thread it asks."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from mobysession.rpc.grpcio_context import CallContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobysession.rpc.grpcio_threads import Worker
    from mobysession.rpc.server import ServerCall

__all__ = ["ServicerContext"]


class ServicerContext(CallContext, grpc.ServicerContext):
    """``grpc.ServicerContext`` for plain functions; any thread may use it."""

    def __init__(self, call: ServerCall, method: grpc.RpcMethodHandler[Any, Any], worker: Worker) -> None:
        super().__init__(call, method)
        self._worker = worker
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] | None = []

    def details(self) -> Any:
        """Return the text that was asked for, as grpcio's bytes; None where none was."""
        return None if self._text is None else self._text.encode("utf-8", "replace")

    def trailing_metadata(self) -> Any:
        """Return the metadata that will be sent with the status; None where none was set."""
        return None if self._trailing is None else super().trailing_metadata()

    def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with ``code`` and ``details``, by raising."""
        self._abort(code, details, trailing_metadata)

    def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with a ``grpc.Status``, by raising."""
        self._abort(status.code, status.details, status.trailing_metadata)

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Begin the response."""
        self._worker.run(self.begin, initial_metadata)

    def set_compression(self, compression: Any) -> None:
        """See `CallContext.set_compression`."""
        self._worker.run_sync(super().set_compression, compression)

    def is_active(self) -> bool:
        """Tell whether the peer still waits."""
        return self._worker.alive

    def cancel(self) -> bool:
        """End the call with CANCELLED."""
        self.cancel_requested = True
        return self._worker.cancel()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call ``callback``, in a thread, when the call is over; False when it is over already."""
        with self._lock:
            if self._callbacks is None:
                return False
            self._callbacks.append(callback)
            return True

    def take_callbacks(self) -> list[Callable[[], None]]:
        """Return the callbacks; no more are accepted from now on."""
        with self._lock:
            callbacks, self._callbacks = self._callbacks, None
        return callbacks or []

"""What a grpcio servicer sees of its call: the contexts of grpc's two server APIs, over one of our calls.

`ServicerContext` is handed to plain functions, which run in threads; `AioServicerContext` to ``async def``, which runs
on trio. Both collect the status that the servicer asks for, and `CallContext.conclude` makes it the end of the call.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import grpc

from mobysession.errors import MobysessionError, RpcError, StatusCode
from mobysession.protocol.metadata import encode_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mobysession.rpc.grpcio_threads import Worker
    from mobysession.rpc.server import ServerCall

__all__ = ["AioServicerContext", "AnswerAborted", "CallContext", "CallOver", "ServicerContext"]

_log = logging.getLogger("mobysession.rpc")

_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}
#: The one reserved key that grpcio accepts as metadata; grpcio-status sets it.
_STATUS_DETAILS = "grpc-status-details-bin"
#: What ``peer()`` says: a session is a hijacked stream and has no address of its own.
_PEER = "unix:"


class CallOver(grpc.RpcError):
    """The call ended while the servicer was waiting for its peer: cancelled, timed out, or the connection was lost."""


class AnswerAborted(grpc.aio.AbortError):
    """The servicer called ``abort``."""


class MetadataEntry(NamedTuple):
    """One entry of ``invocation_metadata()``."""

    key: str
    value: str | bytes


class CallContext:
    """What both kinds of context share: the request's side of the story, and the status asked for so far."""

    def __init__(self, call: ServerCall, method: grpc.RpcMethodHandler[Any, Any]) -> None:
        self._call = call
        self._method = method
        self._code: grpc.StatusCode | None = None
        self._text = ""
        self._details = b""
        self._trailing: list[tuple[str, str | bytes]] = []
        self._compress_next = True
        #: True once the servicer itself has cancelled the call.
        self.cancel_requested = False
        remaining = call.time_remaining()
        # Not trio's clock: worker threads ask.
        self._deadline = None if remaining is None else time.monotonic() + remaining

    # -- the request ---------------------------------------------------------------------------------------------------

    def invocation_metadata(self) -> Any:
        """Return the request's metadata as named ``(key, value)`` pairs."""
        return tuple(MetadataEntry(key, value) for key, value in self._call.metadata)

    def time_remaining(self) -> Any:
        """Return the seconds to the deadline; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def peer(self) -> str:
        """Return a constant: the other end of a session is the daemon."""
        return _PEER

    def peer_identities(self) -> Iterable[bytes] | None:
        """Return None: sessions are not authenticated call by call."""
        return None

    def peer_identity_key(self) -> str | None:
        """Return None, as `peer_identities`."""
        return None

    def auth_context(self) -> Mapping[str, Any]:
        """Return an empty mapping, as grpcio does on an insecure port."""
        return {}

    # -- the answer's status -------------------------------------------------------------------------------------------

    def set_code(self, code: Any) -> None:
        """Ask for ``code``, a ``grpc.StatusCode`` or its number; what is neither counts as UNKNOWN."""
        self._code = _grpc_code(code)

    def set_details(self, details: str | bytes) -> None:
        """Ask for ``details`` as the text of the status."""
        self._text = details.decode("utf-8", "replace") if isinstance(details, bytes) else details

    def code(self) -> Any:
        """Return the ``grpc.StatusCode`` that was asked for; None where none was."""
        return self._code

    def details(self) -> Any:
        """Return the text that was asked for."""
        return self._text

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Replace the metadata that is sent with the status.

        Raises:
            LocalProtocolError: gRPC does not allow it.
        """
        metadata = _pairs(trailing_metadata)
        details = [value for key, value in metadata if key == _STATUS_DETAILS]
        rest = [(key, value) for key, value in metadata if key != _STATUS_DETAILS]
        encode_metadata(rest)
        self._trailing = rest
        self._details = details[-1] if details and isinstance(details[-1], bytes) else b""

    def trailing_metadata(self) -> Any:
        """Return the metadata that will be sent with the status."""
        details: list[tuple[str, str | bytes]] = [(_STATUS_DETAILS, self._details)] if self._details else []
        return (*self._trailing, *details)

    def set_compression(self, compression: Any) -> None:
        """Compress the answers with gzip, where the peer takes that and nothing was sent yet.

        Deflate, which this library does not speak, and no compression both mean: as they are, which gRPC always allows.
        """
        if compression == grpc.Compression.Gzip:
            self._call.compress_answers()

    def disable_next_message_compression(self) -> None:
        """Send the next answer as it is."""
        self._compress_next = False

    @property
    def failed(self) -> bool:
        """True when the status asked for is not OK; no message needs to be sent before it."""
        return self._code not in (None, grpc.StatusCode.OK)

    def conclude(self, failure: BaseException | None) -> None:
        """End the call after its function returned, or raised ``failure``; returning from here is OK.

        Raises:
            Exception: the status, as `mobysession.rpc.server` understands it.
        """
        self._call.trailing_metadata[:] = self._trailing
        code = StatusCode(self._code.value[0]) if self._code is not None else StatusCode.OK
        if failure is None or isinstance(failure, AnswerAborted):
            if code is not StatusCode.OK or self._text:
                raise RpcError(code, self._text, details=self._details, method=self._call.method)
            return
        if isinstance(failure, MobysessionError):
            raise failure
        text = f"the handler of {self._call.method} failed with {type(failure).__name__}"
        if code is StatusCode.OK:
            _log.warning("%s", text)
            code = StatusCode.UNKNOWN
        raise RpcError(code, self._text or text, details=self._details, method=self._call.method) from failure

    def decode(self, message: bytes) -> Any:
        """Return one request; RpcError INTERNAL where the servicer's decoder refuses it."""
        decoder = self._method.request_deserializer
        try:
            return message if decoder is None else decoder(message)
        except Exception as error:
            raise RpcError(StatusCode.INTERNAL, f"{self._call.method}: the request cannot be decoded") from error

    def encode(self, answer: Any) -> bytes:
        """Return the bytes of one answer; RpcError INTERNAL where it is not what the method answers."""
        encoder = self._method.response_serializer
        try:
            return bytes(answer) if encoder is None else encoder(answer)
        except Exception as error:
            raise RpcError(StatusCode.INTERNAL, f"{self._call.method}: the answer cannot be encoded") from error

    async def send(self, message: bytes) -> None:
        """Send one encoded answer."""
        compress, self._compress_next = self._compress_next, True
        await self._call.send_batch((message,), compress=compress)

    def _abort(self, code: Any, details: str | bytes, trailing_metadata: Any = None) -> NoReturn:
        code = _grpc_code(code)
        # Aborting with OK is a mistake of the servicer, and as in grpcio not a success.
        self._code, self._text = (grpc.StatusCode.UNKNOWN, "") if code is grpc.StatusCode.OK else (code, "")
        if code is not grpc.StatusCode.OK:
            self.set_details(details)
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        raise AnswerAborted(f"the servicer aborted the call with {self._code.name}")


class ServicerContext(CallContext, grpc.ServicerContext):
    """``grpc.ServicerContext`` for plain functions; any thread may use it."""

    def __init__(self, call: ServerCall, method: grpc.RpcMethodHandler[Any, Any], worker: Worker) -> None:
        super().__init__(call, method)
        self._worker = worker
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] | None = []

    def abort(self, code: Any, details: str = "") -> NoReturn:
        """End the call with ``code`` and ``details``, by raising."""
        self._abort(code, details)

    def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with a ``grpc.Status``, by raising."""
        self._abort(status.code, status.details, status.trailing_metadata)

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Begin the response."""
        self._worker.run(self._call.send_initial_metadata, _pairs(initial_metadata))

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


class AioServicerContext(CallContext, grpc.aio.ServicerContext[Any, Any]):
    """``grpc.aio.ServicerContext`` for ``async def``, on trio."""

    def __init__(self, call: ServerCall, method: grpc.RpcMethodHandler[Any, Any], cancel: Callable[[], None]) -> None:
        super().__init__(call, method)
        self._cancel = cancel
        self._done_callbacks: list[Callable[[Any], None]] = []
        self._done = False
        self._cancelled = False

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with ``code`` and ``details``, by raising."""
        self._abort(code, details, trailing_metadata)

    async def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with a ``grpc.Status``, by raising."""
        self._abort(status.code, status.details, status.trailing_metadata)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Begin the response."""
        await self._call.send_initial_metadata(_pairs(initial_metadata))

    async def read(self) -> Any:
        """Return the next request; ``grpc.aio.EOF`` behind the last one."""
        message = await self._call.receive()
        return grpc.aio.EOF if message is None else self.decode(message)

    async def write(self, message: Any) -> None:
        """Send one answer; waits while the peer reads too slowly."""
        await self.send(self.encode(message))

    def add_done_callback(self, callback: Any) -> None:
        """Call ``callback`` with this context when the call is over; at once when it is over already."""
        if self._done:
            callback(self)
        else:
            self._done_callbacks.append(callback)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call ``callback`` when the call is over; False when it is over already."""
        if self._done:
            return False
        self._done_callbacks.append(lambda _context: callback())
        return True

    def is_active(self) -> bool:
        """Tell whether the peer still waits."""
        return not self._done

    def done(self) -> bool:
        """Tell whether the call is over."""
        return self._done

    def cancelled(self) -> bool:
        """Tell whether the call ended before its function did."""
        return self._cancelled

    def cancel(self) -> bool:
        """End the call with CANCELLED, at the function's next wait."""
        self.cancel_requested = True
        self._cancel()
        return not self._done

    def finish(self, *, cancelled: bool) -> None:
        """Take the news that the call is over and tell who asked for it."""
        self._done, self._cancelled = True, cancelled
        callbacks, self._done_callbacks = self._done_callbacks, []
        for callback in callbacks:
            run_callback(self._call.method, callback, self)


def run_callback(method: str, callback: Callable[..., None], *args: object) -> None:
    """Call ``callback``; what it raises is logged without its text and concerns nobody else."""
    try:
        callback(*args)
    except Exception as error:
        _log.warning("a callback at the end of %s failed with %s", method, type(error).__name__)


def _grpc_code(code: Any) -> grpc.StatusCode:
    if isinstance(code, grpc.StatusCode):
        return code
    return _GRPC_CODES.get(code, grpc.StatusCode.UNKNOWN) if isinstance(code, int) else grpc.StatusCode.UNKNOWN


def _pairs(metadata: Any) -> list[tuple[str, str | bytes]]:
    """Return grpcio's metadata in our terms: text for text keys, bytes for ``-bin`` keys, either accepted for both."""
    pairs: list[tuple[str, str | bytes]] = []
    for key, value in metadata or ():
        if key.endswith("-bin"):
            pairs.append((key, value.encode() if isinstance(value, str) else bytes(value)))
        else:
            pairs.append((key, value.decode("ascii", "replace") if isinstance(value, bytes) else value))
    return pairs

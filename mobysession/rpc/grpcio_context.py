"""What a grpcio servicer sees of its call, as far as grpc's two server APIs agree.

`mobysession.rpc.grpcio_plain` has the context of plain functions, `mobysession.rpc.grpcio_aio` that of ``async def``.
Both collect the status that the servicer asks for, and `CallContext.conclude` makes it the end of the call.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import grpc

from mobysession.concurrency import single_cause
from mobysession.errors import MobysessionError, RpcError, StatusCode
from mobysession.protocol.metadata import encode_metadata
from mobysession.rpc.security import COMMON_NAME, SUBJECT_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mobysession.rpc.server import ServerCall

__all__ = ["AnswerAborted", "CallContext", "CallOver", "invocation_metadata", "run_callback"]

_log = logging.getLogger("mobysession.rpc")

_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}
#: The one reserved key that grpcio accepts as metadata; grpcio-status sets it.
_STATUS_DETAILS = "grpc-status-details-bin"


class CallOver(grpc.RpcError):
    """The call ended while the servicer was waiting for its peer: cancelled, timed out, or the connection was lost."""


class AnswerAborted(grpc.aio.AbortError):
    """The servicer called ``abort``."""


class MetadataEntry(NamedTuple):
    """One entry of ``invocation_metadata()``."""

    key: str
    value: str | bytes


def invocation_metadata(call: ServerCall) -> tuple[MetadataEntry, ...]:
    """Return the request's metadata as grpcio names it, and with the user agent, which grpcio counts among it."""
    entries = [MetadataEntry(key, value) for key, value in call.metadata]
    if call.user_agent:
        entries.append(MetadataEntry("user-agent", call.user_agent))
    return tuple(entries)


class CallContext:
    """What both kinds of context share: the request's side of the story, and the status asked for so far."""

    def __init__(self, call: ServerCall, method: grpc.RpcMethodHandler[Any, Any]) -> None:
        self._call = call
        self._method = method
        self._code: grpc.StatusCode | None = None
        self._text: str | None = None
        self._details = b""
        self._trailing: list[tuple[str, str | bytes]] | None = None
        self._compress_next = True
        #: True once the response has begun.
        self._begun = False
        #: True once the servicer itself has cancelled the call.
        self.cancel_requested = False
        remaining = call.time_remaining()
        # Not trio's clock: worker threads ask.
        self._deadline = None if remaining is None else time.monotonic() + remaining
        # For the same reason asked of the TLS layer here.
        self._security = call.security

    # -- the request ---------------------------------------------------------------------------------------------------

    def invocation_metadata(self) -> Any:
        """Return the request's metadata as named ``(key, value)`` pairs."""
        return invocation_metadata(self._call)

    def time_remaining(self) -> Any:
        """Return the seconds to the deadline; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def peer(self) -> str:
        """Return the address of the caller; on a session that is the daemon, as it was dialled."""
        return self._call.peer_name

    def peer_identities(self) -> Iterable[bytes] | None:
        """Return the names in the caller's certificate; None where it showed none that was verified."""
        key = self.peer_identity_key()
        return None if key is None else list(self._security[key])

    def peer_identity_key(self) -> str | None:
        """Return the key of these names in `auth_context`; None where there are none."""
        return next((key for key in (SUBJECT_NAMES, COMMON_NAME) if key in self._security), None)

    def auth_context(self) -> Mapping[str, Any]:
        """Return how the connection is secured, and what is known of the caller; on a session that is the daemon."""
        return {key: list(values) for key, values in self._security.items()}

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
        return self._text or ""

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
        return (*(self._trailing or ()), *details)

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
        self._call.trailing_metadata[:] = self._trailing or ()
        code = StatusCode(self._code.value[0]) if self._code is not None else StatusCode.OK
        if isinstance(failure, BaseExceptionGroup):
            failure = single_cause(failure) or failure
        if failure is None or isinstance(failure, AnswerAborted):
            if code is not StatusCode.OK or self._text:
                raise RpcError(code, self._text or "", details=self._details, method=self._call.method)
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
            if encoder is not None:
                return encoder(answer)
            # Not ``bytes(answer)``: of a number that would be as many zeros.
            return answer if isinstance(answer, bytes) else bytes(memoryview(answer))
        except Exception as error:
            raise RpcError(StatusCode.INTERNAL, f"{self._call.method}: the answer cannot be encoded") from error

    async def send(self, message: bytes) -> None:
        """Send one encoded answer."""
        await self._call.send_batch((message,), compress=self.begin_answer())

    def begin_answer(self) -> bool:
        """Take note of the next answer, and tell whether it is to be compressed."""
        compress, self._compress_next = self._compress_next, True
        self._begun = True
        return compress

    async def begin(self, metadata: Any) -> None:
        """Begin the response with ``metadata``; ValueError where it has begun."""
        if self._begun:
            raise ValueError("the initial metadata of this call was sent already")
        self._begun = True
        await self._call.send_initial_metadata(_pairs(metadata))

    def _abort(self, code: Any, details: str | bytes, trailing_metadata: Any = None) -> NoReturn:
        code = _grpc_code(code)
        if code is grpc.StatusCode.OK:
            # A mistake of the servicer, and as in grpcio not a success.
            code, details = grpc.StatusCode.UNKNOWN, ""
        self._code = code
        self.set_details(details)
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        raise AnswerAborted(f"the servicer aborted the call with {code.name}")


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

"""How a call ends, and what a handler's exception makes of it.

A handler ends its call by returning (OK) or by raising: an `RpcError` is the answer as it stands, any other of our
errors is UNKNOWN with its message, which is written for readers, and whatever else happened is UNKNOWN without its
text, because a stranger's exception may quote a secret.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import trio

from mobysession.concurrency import single_cause
from mobysession.errors import MobysessionError, RpcError, StatusCode

if TYPE_CHECKING:
    from mobysession.rpc.server import ServerCall

__all__ = ["OK", "Abandoned", "Outcome", "is_failure", "outcome_of"]

_log = logging.getLogger("mobysession.rpc")


class Outcome(NamedTuple):
    """How a call ends: what the peer is told, and the local failure behind it."""

    code: StatusCode = StatusCode.OK
    message: str = ""
    details: bytes = b""
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    error: BaseException | None = None


class Abandoned(GeneratorExit):
    """The event loop is gone, and with it everybody who could be told of a call's end."""


def is_failure(error: BaseException) -> bool:
    """Tell whether ``error``, which a handler raised, ends its call and nothing else.

    So does what is no `Exception` only because another loop has its own meaning for it (``asyncio.CancelledError``,
    ``GeneratorExit``). What asks the process to end, and trio's cancellation, goes further.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_failure, error.exceptions))
    return not isinstance(error, KeyboardInterrupt | SystemExit | trio.Cancelled | Abandoned)


#: Of a call whose handler has returned.
OK = Outcome()


def outcome_of(call: ServerCall, error: BaseException) -> Outcome:
    """Return the end of ``call``, whose handler raised ``error``."""
    if isinstance(error, BaseExceptionGroup):
        error = single_cause(error) or error
    if isinstance(error, RpcError):
        # A success may be explained too; grpcio's servicers do that.
        failure = None if error.code is StatusCode.OK else error.__cause__ or error
        return Outcome(error.code, error.message, error.details, error.trailers, failure)
    if isinstance(error, MobysessionError):
        return Outcome(StatusCode.UNKNOWN, error.message, error=error)
    text = f"the handler of {call.method} failed with {type(error).__name__}"
    _log.warning("%s", text)
    # Where, but not what: a stranger's exception may quote a secret.
    _log.debug("it failed at\n%s", _Places(error))
    return Outcome(StatusCode.UNKNOWN, text, error=error)


class _Places:
    """The lines of code that an exception went through, formatted only if somebody logs them."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __str__(self) -> str:
        import traceback

        return "".join(traceback.format_tb(self._error.__traceback__))

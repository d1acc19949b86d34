"""Why a build failed: the engine's words, and behind them what failed on our side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobysession.buildkit.solve_errors import build_failed
from mobysession.errors import (
    BuildFailed,
    ConnectionLost,
    ContextError,
    MobysessionError,
    OutputError,
    ProtocolError,
    RpcError,
    SessionLost,
    StatusCode,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mobysession.build.contexts import SourceFile
    from mobysession.buildkit.status import BuildStatus
    from mobysession.redaction import Redactor
    from mobysession.session.session import Session

__all__ = ["explain", "read_if_there"]


def explain(
    error: RpcError | BuildFailed,
    session: Session,
    status: BuildStatus,
    dockerfile: bytes | None,
    redactor: Redactor | None = None,
    *,
    in_flight: Sequence[str] = (),
) -> MobysessionError:
    """Return the error to raise for a failed build, its cause chained.

    Args:
        error: the end of the solve, or what the classic endpoint said; loses the secrets in its message.
        dockerfile: content of the Dockerfile, for an excerpt where the engine sends none; None where it cannot be read.
        redactor: hides secrets in the error.
        in_flight: the calls that were running on the session when it failed.
    """
    if redactor:
        error.message = redactor.redact(error.message)
        error.args = (error.message,)
    if isinstance(error, RpcError) and isinstance(error.__cause__, (ConnectionLost, ProtocolError)):
        # It may have finished the image just before: what is known is only that its answer will not come.
        from mobysession.session.lost import named  # only for who loses something: start-up

        words = "; ".join([f"the engine went away during the build: {error.message}", *named(in_flight)])
        # The session is watched by itself, and would have been told of.
        lost = SessionLost(words, hint="Its log says why.", in_flight=in_flight, first="control")
        lost.__cause__ = error.__cause__
        return lost
    explained = build_failed(error if isinstance(error, RpcError) else error.message, status, dockerfile=dockerfile)
    if redactor:
        _redact(explained, redactor)
    cause = _local_cause(session, explained.message)
    if isinstance(cause, OutputError):
        # The build itself was fine, and what is to be mended is here.
        return cause
    if isinstance(cause, MobysessionError) and cause.hint:
        explained.hint = cause.hint
    explained.__cause__ = cause or error.__cause__
    return explained


def _redact(error: BuildFailed, redactor: Redactor) -> None:
    """Hide secrets in what did not come through the progress: the typed errors, the Dockerfile."""
    error.message = redactor.redact(error.message)
    error.args = (error.message,)
    error.step = redactor.redact(error.step) if error.step is not None else None
    error.hint = redactor.redact(error.hint) if error.hint is not None else None
    error.log = tuple(map(redactor.redact, error.log))
    error.excerpt = redactor.redact(error.excerpt)
    if redactor.redact(error.details) != error.details:
        # Lengths are part of it: what is changed cannot be read any more.
        error.details = b""


def read_if_there(path: Path | SourceFile) -> bytes | None:
    """Return the content of a file, None where it cannot be read; blocking."""
    try:
        return path.read_bytes()
    except (OSError, ContextError):
        return None


def _local_cause(session: Session, message: str) -> BaseException | None:
    """Return the latest failure of a callback of ours that the engine's words quote; others were not what failed it."""
    for failure in reversed(session.failures):
        quoted = failure.message and failure.message in message
        if failure.error is not None and failure.code is not StatusCode.CANCELLED and quoted:
            return failure.error
    return None

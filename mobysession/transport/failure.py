"""What a stream's failure means to a reader who knows the endpoint and not trio."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from mobysession.errors import ConnectionLost, MobysessionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.transport.endpoint import Endpoint

__all__ = ["name_failures", "reason_of", "system_error"]


@contextmanager
def name_failures(endpoint: Endpoint | None) -> Iterator[None]:
    """Turn a broken stream into the error that says whose it was and why.

    Raises:
        TLSError: TLS broke it, e.g. because the daemon demands a client certificate, which TLS 1.3 tells this late.
        ConnectionLost: anything else did.
    """
    try:
        yield
    except trio.BrokenResourceError as error:
        if isinstance(error, MobysessionError):  # a remote command's, with its own words
            raise
        name = str(endpoint) if endpoint is not None else "the daemon"
        raise _tls_failure(error, endpoint, name) or ConnectionLost(
            f"the connection to {name} broke: {reason_of(error)}",
            hint="The daemon, or what stands between here and it, cut it off: the logs there may say why.",
        ) from error


def _tls_failure(error: trio.BrokenResourceError, endpoint: Endpoint | None, name: str) -> MobysessionError | None:
    if endpoint is None or endpoint.tls is None:
        return None
    from mobysession.transport.tls import tls_failure

    return tls_failure(error, name)


def system_error(error: BaseException) -> OSError | None:
    """Return what the system said, at the bottom of what each layer has wrapped around it; None where it did not."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        elif isinstance(cause, OSError) and cause.strerror:
            return cause
        else:
            cause = cause.__cause__
    return None


def reason_of(error: BaseException) -> str:
    """Return in words why something failed: the system's own, where it had any."""
    found = system_error(error)
    return (found.strerror if found is not None else None) or str(error) or "no reason given"

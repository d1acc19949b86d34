"""What a stream's failure means to a reader who knows the endpoint and not trio."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from mobysession.errors import ConnectionLost, MobysessionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobysession.transport.endpoint import Endpoint

__all__ = ["name_failures"]


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
            f"the connection to {name} broke: {_reason(error)}",
            hint="The daemon, or what stands between here and it, cut it off: the logs there may say why.",
        ) from error


def _tls_failure(error: trio.BrokenResourceError, endpoint: Endpoint | None, name: str) -> MobysessionError | None:
    if endpoint is None or endpoint.tls is None:
        return None
    from mobysession.transport.tls import tls_failure

    return tls_failure(error, name)


def _reason(error: BaseException) -> str:
    cause = error.__cause__
    # Each layer of a stream wraps what the one below raised: what the system said is at the bottom.
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__
    return str(error) or "no reason given"

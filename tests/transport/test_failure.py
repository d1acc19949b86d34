"""What a broken stream is told as: by the endpoint, and by what the system said below all layers."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from mobysession import errors
from mobysession.transport.endpoint import Endpoint
from mobysession.transport.failure import name_failures

ENDPOINT = Endpoint.parse("unix:///a.sock")


def broken(words: str, *causes: BaseException) -> trio.BrokenResourceError:
    """Return the error of a stream, with what the streams below it said, the lowest last."""
    error: BaseException = trio.BrokenResourceError(words)
    top = error
    for cause in causes:
        error.__cause__ = cause
        error = cause
    assert isinstance(top, trio.BrokenResourceError)
    return top


RESET = OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (broken("", RESET), "Connection reset by peer"),
        (broken("", trio.BrokenResourceError(), RESET), "Connection reset by peer"),  # as under TLS
        (broken("the pipe is gone", OSError()), "the pipe is gone"),
        (broken(""), "no reason given"),
    ],
)
def test_what_the_system_said_is_told(error: trio.BrokenResourceError, words: str) -> None:
    """However many streams lie above it; and who closed it is where to look."""
    with pytest.raises(errors.ConnectionLost) as caught, name_failures(ENDPOINT):
        raise error
    assert caught.value.message == f"the connection to {ENDPOINT} broke: {words}"
    assert "logs" in str(caught.value.hint)

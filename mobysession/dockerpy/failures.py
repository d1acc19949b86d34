"""Our errors as those that code written for docker-py catches. The original is their ``__cause__``.

docker-py tells of what goes wrong in two ways. Until the older builder has the context and has read the Dockerfile,
the engine answers with a status, which is an APIError: 400 for a Dockerfile that cannot be parsed and for a stage that
is not in it, 500 for a context or a Dockerfile that cannot be had. What comes later is a message of the stream, and a
BuildError. BuildKit tells of both alike, so what it says has to be looked at.

Source: moby/moby api/server/router/build/build_routes.go, builder/dockerfile/builder.go and parse.go; and the answers
of engines 20.10.24 and 28.5.2.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import requests
from docker.errors import APIError, DockerException, InvalidVersion

from mobysession.errors import (
    ApiError,
    BuildFailed,
    ContextError,
    HandshakeTimeout,
    StatusCode,
    TransportError,
    UnsupportedByEngine,
    UpgradeRefused,
    UsageError,
)

if TYPE_CHECKING:
    from mobysession.errors import MobysessionError

__all__ = ["as_docker_error", "refused_status"]

#: What BuildKit says of a Dockerfile for which the engine answers 400.
_INVALID = re.compile(
    r"dockerfile parse error|target stage .* could not be found|the Dockerfile cannot be empty"
    r"|file with no instructions|no build stage in current context"
)
_UNREADABLE = re.compile(r"failed to read (?:dockerfile|downloaded context)")
#: The steps in which the engine fetches a context from its address.
_FETCHING = ("[internal] load remote build context", "[internal] load git source ")


def refused_status(error: BuildFailed) -> int | None:
    """Return the status by which the engine refuses with docker-py's own build what has failed here.

    Returns:
        None where docker-py's build would have begun, and told of it in the stream.
    """
    if error.step is not None:
        return 500 if error.step.startswith(_FETCHING) else None
    if error.code == StatusCode.INVALID_ARGUMENT or _INVALID.search(error.message):
        return 400
    return 500 if _UNREADABLE.search(error.message) else None


def as_docker_error(error: MobysessionError, url: str) -> Exception:
    """Return what docker-py would raise where the build could not even begin, with ``error`` as its cause.

    Args:
        error: what was raised here.
        url: the daemon's, for the message.
    """
    found = _translated(error, url)
    found.__cause__ = error
    return found


def _translated(error: MobysessionError, url: str) -> Exception:
    text = error.message if error.hint is None else f"{error.message}. {error.hint}"
    if isinstance(error, UnsupportedByEngine):
        return InvalidVersion(text)
    if isinstance(error, (UpgradeRefused, ApiError)):
        return _api_error(text, error.status, url)
    if isinstance(error, UsageError):
        return _api_error(text, 400, url)
    if isinstance(error, BuildFailed):
        return _api_error(text, refused_status(error) or 500, url)
    if isinstance(error, ContextError):
        return _api_error(text, 500, url)
    if isinstance(error, HandshakeTimeout):
        return requests.exceptions.ReadTimeout(text)
    if isinstance(error, TransportError):
        return requests.exceptions.ConnectionError(text)
    return DockerException(text)


def _api_error(text: str, status: int, url: str) -> APIError:
    response = requests.Response()
    response.status_code = status
    response.url = url
    response.reason = "Bad Request" if status == 400 else "Internal Server Error" if status == 500 else ""
    return APIError(text, response=response, explanation=text)

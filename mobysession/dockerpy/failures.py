"""Our errors as those that code written for docker-py catches. The original is their ``__cause__``."""

from __future__ import annotations

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

__all__ = ["as_docker_error"]


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
    if isinstance(error, (ContextError, BuildFailed)):
        invalid = isinstance(error, BuildFailed) and error.code == StatusCode.INVALID_ARGUMENT
        return _api_error(text, 400 if invalid else 500, url)
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

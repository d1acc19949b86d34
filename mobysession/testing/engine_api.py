"""One request to an engine, for blocking code: fixtures and what starts engines."""

from __future__ import annotations

import trio

from mobysession.errors import HandshakeTimeout
from mobysession.transport.api import EngineApi
from mobysession.transport.endpoint import Endpoint

__all__ = ["engine_request"]


def engine_request(host: str, method: str, path: str, *, body: bytes | None = None, timeout: float = 30.0) -> bytes:
    """Ask an engine and return the whole body of its answer. Blocks; not to be called from within trio.

    Args:
        host: the engine's endpoint, as DOCKER_HOST has it.
        path: from the slash on, with its query.
        timeout: seconds for all of it.

    Raises:
        ApiError: any status above 299, with the engine's words.
        TransportError: it could not be reached, or did not answer in time.
    """

    async def ask() -> bytes:
        headers = [("Content-Type", "application/x-tar")] if body is not None else []
        with trio.move_on_after(timeout):
            async with EngineApi(Endpoint.parse(host)).request(
                method, path, headers=headers, body=body, patience=timeout
            ) as response:
                if response.status > 299:
                    raise await response.error(f"{method} {path}")
                return await response.read()
        raise HandshakeTimeout(f"{host} did not answer {method} {path} within {timeout:g} seconds")

    return trio.run(ask)

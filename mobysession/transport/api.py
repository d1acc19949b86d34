"""Plain requests to the Engine API: who is there, which version, the classic build.

Every request has a connection of its own. Paths are sent without a version, which every engine takes for its own
newest.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import trio

from mobysession import limits
from mobysession.concurrency import open_nursery
from mobysession.errors import HandshakeError
from mobysession.jsontext import parse_json
from mobysession.protocol.http1 import encode_fields, one_line
from mobysession.protocol.plain_head import parse_answer, serialize_request
from mobysession.transport.dial import dial

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable

    from mobysession.protocol.plain_head import PlainAnswer
    from mobysession.transport.endpoint import Endpoint
    from mobysession.transport.http import Response

__all__ = ["EngineApi", "Ping", "ping_on"]

_OLDEST_API_VERSION = "1.24"  # what docker's clients assume of an engine that does not say
_HEAD_REFUSED = frozenset({404, 405, 501})


class Ping(NamedTuple):
    """What an engine says of itself in the header lines of ``/_ping``.

    Attributes:
        api_version: the newest Engine API it has, e.g. ``1.51``.
        builder_version: ``2`` when BuildKit is its default builder; says nothing about what else it has.
        os_type: ``linux`` or ``windows``; empty when it did not say.
        experimental: whether experimental features are on.
        swarm: ``inactive``, ``active/manager``, ...; empty when it did not say.
        server: its Server line, e.g. ``Docker/28.5.2 (linux)``.
    """

    api_version: str = _OLDEST_API_VERSION
    builder_version: str = ""
    os_type: str = ""
    experimental: bool = False
    swarm: str = ""
    server: str = ""

    @property
    def api(self) -> tuple[int, int]:
        """The version as numbers, to compare."""
        major, _, minor = self.api_version.partition(".")
        return int(major), int(minor)


class EngineApi:
    """The Engine API at an endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | AsyncIterable[bytes] | None = None,
        patience: float = limits.HANDSHAKE_TIMEOUT,
    ) -> AsyncIterator[Response]:
        """Send a request; the answer, of whatever status, can be read inside the block.

        Args:
            method: ``GET``, ``POST``, ...
            path: with its query, without a version.
            headers: header lines besides those of the endpoint.
            body: of the request; an iterator is sent piece by piece, beside the reading of the answer.
            patience: seconds that the daemon may take to read on, or for the head of its answer; ``math.inf`` for ever.

        Yields: the answer, its body unread.

        Raises:
            TransportError: as ``dial`` and ``hijack`` do.
            UsageError: the request cannot be written.

        Cancel: the connection is closed, as it is whenever the block is left.
        """
        from mobysession.transport.http import Exchange  # builds get by without it: start-up

        fields = [*self.endpoint.headers, *headers]
        stream = await dial(self.endpoint)
        try:
            exchange = Exchange(stream, self.endpoint)
            head = exchange.request_head(method, path, fields, body)
            async with open_nursery() as nursery:
                nursery.start_soon(exchange.send, head, body, self.endpoint.answer_timeout(patience))
                yield await exchange.receive_head()
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)

    async def get_json(self, path: str, *, timeout: float = limits.HANDSHAKE_TIMEOUT) -> dict[str, object]:
        """Ask for a JSON object.

        Raises:
            ApiError: the engine answered with an error status.
            TransportError: as ``request`` does; HandshakeTimeout also when the body took more than ``timeout`` seconds.
        """
        async with self.request("GET", path, patience=timeout) as response:
            if response.status >= 400:
                raise await response.error(f"GET {path}")
            content = await response.read(timeout=timeout)
        try:
            document = parse_json(content)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise HandshakeError(f"the answer of {self.endpoint} to GET {path} is not a JSON object")
        return document

    async def version(self) -> dict[str, object]:
        """Return what ``/version`` says."""
        return await self.get_json("/version")

    async def ping(self) -> Ping:
        """Ask who is there.

        Raises:
            TransportError: nobody, or what answered is not a Docker daemon.
        """
        async with self.request("HEAD", "/_ping") as response:
            if response.status not in _HEAD_REFUSED and response.header("api-version"):
                return _ping(response)
        async with self.request("GET", "/_ping") as response:  # engines before 18.09, and what is no engine
            ok = response.status == 200 and await _body(response) == b"OK"
            if ok or response.header("api-version"):
                return _ping(response)
            words = f"it answered GET /_ping with status {response.status}: {await response.explanation()}"
            raise self._not_docker(response, words)

    def _not_docker(self, response: Response, words: str) -> HandshakeError:
        server = one_line(response.header("server"))
        what = f" but by {server}" if server else ""
        return HandshakeError(
            f"{self.endpoint} is not served by a Docker daemon{what}: {words}",
            hint="Check the address; a proxy in front of the daemon must pass on all paths.",
        )


async def ping_on(stream: trio.abc.Stream, endpoint: Endpoint) -> tuple[Ping | None, bool]:
    """Ask who is there, on a connection that something else is to follow on.

    Args:
        stream: dialled, nothing in flight; stays the caller's.
        endpoint: where it leads to.

    Returns: what it said, None where it does not say its version; and whether the connection can be used again.

    Raises:
        TransportError: what answered is not a Docker daemon, or the connection broke.

    Cancel: the connection is useless.
    """
    patience = trio.current_time() + endpoint.answer_timeout(limits.HANDSHAKE_TIMEOUT)
    fields = [(b"Host", endpoint.host.encode("ascii", "replace")), *encode_fields(endpoint.headers)]
    plain = serialize_request("HEAD", endpoint.target("/_ping"), fields)
    received: bytes | None = None
    # Whatever breaks here breaks again below, where it is named.
    with trio.move_on_at(patience), suppress(trio.BrokenResourceError):
        if plain is not None:
            await stream.send_all(plain)
            received = bytes(await stream.receive_some(limits.READ_SIZE))
    answer = parse_answer(received or b"")
    if answer is not None and answer.status == 200 and not answer.has("connection") and not answer.rest:
        return _ping(answer) if answer.header("api-version") else None, True
    from mobysession.transport.http import Exchange  # healthy engines get by without it: start-up

    exchange = Exchange(stream, endpoint, received)
    head = exchange.request_head("HEAD", "/_ping", endpoint.headers, None, again=True)
    await exchange.send(head if plain is None else b"", None, max(0, patience - trio.current_time()))
    response = await exchange.receive_head()
    return _ping(response) if response.header("api-version") else None, await exchange.finish()


async def _body(response: Response) -> bytes:
    return await response.read(limits.MAX_REFUSAL_BODY, timeout=limits.HANDSHAKE_TIMEOUT)


def _ping(response: Response | PlainAnswer) -> Ping:
    version = response.header("api-version")
    return Ping(
        api_version=version if _is_version(version) else _OLDEST_API_VERSION,
        builder_version=response.header("builder-version"),
        os_type=response.header("ostype"),
        experimental=response.header("docker-experimental") == "true",
        swarm=response.header("swarm"),
        server=response.header("server"),
    )


def _is_version(text: str) -> bool:
    major, dot, minor = text.partition(".")
    return bool(dot) and all(part.isascii() and part.isdecimal() for part in (major, minor))
